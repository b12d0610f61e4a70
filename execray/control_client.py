"""The synchronous client of a daemon's control socket, for the command line: light to import, for every command pays for it."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from execray.errors import OperatorError, PeerError
from execray.wire.control import MAX_REPLY_BYTES, Request, decode_object, encode_request

NOT_PERMITTED: Final = "not permitted"


class Unreachable(OperatorError):
    """A daemon isn't there, doesn't answer, or refuses us. The command line exits with 3."""


class OperationFailed(OperatorError):
    """A daemon answered that it could not do what was asked."""


def daemon_of(path: Path) -> str:
    """Returns the daemon whose control socket this is: its folder is named after it."""
    return path.parent.name


class ControlClient:
    """One connection to a daemon's control socket, made at the first request. Not for use by several threads."""

    def __init__(self, path: Path, timeout_s: float = 5.0, group: str = "execray") -> None:
        """timeout_s: for connecting and for each answer. group: named in the hint when the daemon refuses us."""
        self.path = path
        self._timeout_s = timeout_s
        self._group = group
        self._daemon = daemon_of(path)
        self._sock: socket.socket | None = None
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        self._buffer.clear()

    def call(self, op: str, **args: object) -> Any:
        """Asks for something and returns the result. Raises Unreachable or OperationFailed."""
        self._send(Request(op, dict(args)))
        reply = self._read(self._timeout_s)
        if reply is None:
            raise self._unreachable("closed the connection without an answer")
        return reply.get("result")

    def follow(self, op: str, for_s: float | None = None, **args: object) -> Iterator[Any]:
        """Yields the items of an op that follows something, until the daemon closes.

        for_s: ends after that many seconds; None: no limit. Raises Unreachable or OperationFailed. The connection is of no use
        for anything else afterwards.
        """
        self._send(Request(op, dict(args)))
        end = None if for_s is None else time.monotonic() + for_s
        try:
            while self._readable(end) and (reply := self._read(None)) is not None:
                yield reply.get("item")
        finally:
            self.close()

    def _readable(self, end: float | None) -> bool:
        """Waits for something to read, until a moment of time.monotonic(); False when it has come."""
        if end is None or b"\n" in self._buffer:
            return end is None or time.monotonic() < end
        assert self._sock is not None
        left = end - time.monotonic()
        return left > 0 and bool(select.select([self._sock], [], [], left)[0])

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            sock.connect(os.fspath(self.path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            raise Unreachable(
                f"{self._daemon} is not running ({self.path})",
                f"start {self._daemon}: systemctl start execray-{self._daemon}, where it is a service",
            ) from error
        except PermissionError as error:
            sock.close()
            raise self._not_permitted() from error
        except OSError as error:
            sock.close()
            raise Unreachable(f"can't reach {self._daemon} at {self.path}: {error}", "is the path right?") from error
        return sock

    def _send(self, request: Request) -> None:
        if self._sock is None:
            self._sock = self._connect()
        try:
            self._sock.sendall(encode_request(request))
        except BrokenPipeError:
            pass  # it closed already; why stands in what it sent, which _read returns
        except OSError as error:
            raise self._unreachable(f"can't be written to: {error}") from error

    def _read(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Returns the next reply that is ok, None at the end of the stream."""
        assert self._sock is not None
        self._sock.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError as error:
                raise self._unreachable(f"did not answer within {timeout_s:g} s") from error
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._buffer += data
            if len(self._buffer) > MAX_REPLY_BYTES:
                raise self._unreachable("sent an endless answer")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return self._checked(line)

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            reply = decode_object(line)
        except PeerError as error:
            raise self._unreachable(f"sent {error}") from error
        if reply.get("ok") is True:
            return reply
        message, hint = str(reply.get("error", "no reason given")), str(reply.get("hint", ""))
        if message == NOT_PERMITTED:
            raise self._not_permitted(hint)
        raise OperationFailed(message, hint)

    def _not_permitted(self, hint: str = "") -> Unreachable:
        self.close()
        return Unreachable(
            f"not permitted to talk to {self._daemon} ({self.path})",
            hint or f"be root, or a member of the group `{self._group}`",
        )

    def _unreachable(self, what: str) -> Unreachable:
        self.close()
        return Unreachable(f"{self._daemon} {what}", f"is {self._daemon} overloaded, or of another version?")
