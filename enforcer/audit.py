"""The enforcer's own record: one line of JSON for each order, each outcome, and each peer that sent something else."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
from pathlib import Path
from typing import Any, Final

from execray.service import Peer
from execray.wire.orders import Order, Outcome, encode_order, encode_outcome

MAX_BYTES: Final = 16 * 1024 * 1024
KEEP: Final = 4
_PLAIN: Final = re.compile(rb"[ -~]*\n")


class AuditLog:
    """Appends lines to a file, rotated by size: `orders.jsonl`, `orders.jsonl.1` the newest before it, and so on.

    Attacker-controlled text can't forge a line: everything is JSON in ASCII. A line that can't be written, on a full disk,
    is counted and never keeps an order from being carried out.
    """

    def __init__(self, path: Path, log: logging.Logger, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        """keep: rotated files kept, besides the current one."""
        self.path = path
        self.lost = 0
        self._log = log
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd: int | None = None
        self._size = 0

    def order(self, order: Order, peer: Peer, line: bytes = b"") -> None:
        """Records an order as it was taken up. line: what it was decoded from, where that is at hand."""
        # a line of JSON already, and one that can stand in another as it is, unless a peer other than policyd wrote it
        shown = line[:-1] if _PLAIN.fullmatch(line) else encode_order(order)
        # whom it is about may be waiting for this processor to end on, and this takes a third of what an encoder does
        head = b'{"time":"%b","what":"order","peer":{"pid":%d,"uid":%d},"order":' % (_now(), peer.pid, peer.uid)
        self._append(b"%b%b}\n" % (head, shown.rstrip(b"\n")))

    def outcome(self, outcome: Outcome) -> None:
        """Records an outcome."""
        self._write("outcome", {}, "outcome", encode_outcome(outcome))

    def bad_line(self, peer: Peer, error: str, line: bytes) -> None:
        """Records what a peer sent that is no order, with its first bytes."""
        self._write(
            "bad", {"peer": _peer(peer), "error": error, "line": line[:200].decode("utf-8", "backslashreplace")}
        )

    def refused_peer(self, peer: Peer, reason: str) -> None:
        """Records a peer that was turned away."""
        self._write("peer_refused", {"peer": _peer(peer), "reason": reason})

    def close(self) -> None:
        """Closes the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, what: str, fields: dict[str, Any], name: str = "", encoded: bytes = b"") -> None:
        """Writes a line of these fields, and of one more whose JSON is there already."""
        now = _now().decode("ascii")
        line = json.dumps({"time": now, "what": what, **fields}, separators=(",", ":")).encode("ascii")
        if name:
            line = b'%b,"%b":%b}' % (line[:-1], name.encode("ascii"), encoded.rstrip(b"\n"))
        self._append(line + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            if self._fd is None or self._size + len(line) > self._max_bytes:
                self._open()
            assert self._fd is not None
            written = os.write(self._fd, line)
            self._size += written
            if written < len(line):
                self._lose("the disk is full")
                self.close()  # the next line begins in a line of its own, after the newline that _open adds
        except OSError as error:
            self._lose(error.strerror or str(error))

    def _lose(self, why: str) -> None:
        self.lost += 1
        if self.lost == 1:
            self._log.error("audit line lost", extra={"kv": {"file": self.path, "reason": why}})

    def _open(self) -> None:
        """Opens the file, after rotating one that is full, and mends a line that was cut off."""
        self.close()
        if self.path.exists() and self.path.stat().st_size >= self._max_bytes * 3 // 4:
            self._rotate()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        if self._keep:
            self.path.replace(self._numbered(1))
        else:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _now() -> bytes:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").encode("ascii")


def _peer(peer: Peer) -> dict[str, int]:
    return {"pid": peer.pid, "uid": peer.uid}
