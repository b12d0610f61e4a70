"""The read event: of all calls the most frequent, so the test's own are left out as a daemon's are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.live import Live
from tests.support.paths import fs_path

EVENTS = ["read"]
UNSEEN = True


@pytest.mark.parametrize("call", ["syscall(0, fd, room, 10)", "syscall(17, fd, room, 10, 1)"], ids=["read", "pread64"])
def test_reads_have_the_file(live: Live, tmp_path: Path, call: str) -> None:
    (tmp_path / "f").write_text("hello")
    run = live.python(f"fd = os.open({str(tmp_path / 'f')!r}, 0); room = buf(bytes(10)); print({call})")
    event = run.one("read", path=os.fsencode(tmp_path / "f"))
    assert (event.get("len"), event.get("ret")) == (10, int(run.stdout))


def test_reads_from_sockets_and_into_pieces_have_a_length(live: Live) -> None:
    run = live.python("""
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); b.send(b"xy"); b.send(b"z"); b.send(b"q")
        a.recv(9); a.recvmsg(5); os.readv(a.fileno(), [bytearray(3), bytearray(4)])
    """)
    events = [e for e in run.of("read") if str(e.get("path")).startswith("b'socket:")]
    assert [(e.get("len"), e.get("ret")) for e in events] == [(9, 2), (5, 1), (7, 1)]
    assert {e.get("fspath") for e in events} == {None}


def test_a_read_sees_through_a_bind_mount(live: Live, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "shown").mkdir()
    (tmp_path / "real" / "f").write_text("hello")
    run = live.python(
        """
        syscall(272, 0x00020000); syscall(165, buf(b"none"), buf(b"/"), 0, 0x44000, 0)  # a mount namespace, private
        here = os.fsencode(sys.argv[1])
        assert syscall(165, buf(here + b"/real"), buf(here + b"/shown"), 0, 0x1000, 0) == 0
        for name in ("real", "shown"):
            fd = os.open(f"{sys.argv[1]}/{name}/f", 0); os.read(fd, 9)
        """,
        tmp_path,
    )
    through = [run.one("read", path=os.fsencode(tmp_path / name / "f")) for name in ("real", "shown")]
    assert through[0].get("fspath") == through[1].get("fspath") == fs_path(tmp_path / "real" / "f")
    assert through[0].get("file.id") == through[1].get("file.id")
