"""The read event: of all calls the most frequent, so the test's own are left out as a daemon's are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.live import Live

EVENTS = ["read"]
UNSEEN = True


@pytest.mark.parametrize("call", ["syscall(0, fd, room, 10)", "syscall(17, fd, room, 10, 1)"], ids=["read", "pread64"])
def test_reads_have_the_file(live: Live, tmp_path: Path, call: str) -> None:
    (tmp_path / "f").write_text("hello")
    run = live.python(f"fd = os.open({str(tmp_path / 'f')!r}, 0); room = buf(bytes(10)); print({call})")
    event = run.one("read", path=os.fsencode(tmp_path / "f"))
    assert (event.get("len"), event.get("ret")) == (10, int(run.stdout))


def test_reads_from_sockets_and_into_pieces_have_no_length(live: Live) -> None:
    run = live.python("""
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); b.send(b"xy"); b.send(b"z"); b.send(b"q")
        a.recv(9); a.recvmsg(5); os.readv(a.fileno(), [bytearray(3)])
    """)
    events = [e for e in run.of("read") if str(e.get("path")).startswith("b'socket:")]
    assert [(e.get("len"), e.get("ret")) for e in events] == [(9, 2), (None, 1), (None, 1)]
