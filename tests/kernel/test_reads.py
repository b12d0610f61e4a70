"""The read event: of all calls the most frequent, so the test's own are left out as a daemon's are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execray.schema.catalog import EVENT_BY_NAME, Content, Flag
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


READS = """
here = sys.argv[1]
fd = os.open(here, 0); room = buf(b"before" + bytes(400))
def told(result): print(result, flush=True)
told(syscall(0, fd, room, 400))  # more than there is
os.lseek(fd, 0, 0); told(syscall(17, fd, room, 5, 6))
os.lseek(fd, 99, 0); told(syscall(0, fd, room, 400))  # past the end
os.lseek(fd, 0, 0); told(syscall(0, fd, 8, 400))
two = [buf(bytes(3)), buf(bytes(20))]
iov = buf(b"".join(struct.pack("QQ", ctypes.addressof(one), len(one) - 1) for one in two))
os.lseek(fd, 0, 0); told(syscall(19, fd, iov, 2))
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
b.send(b"datagram"); told(len(a.recv(100)))
b.send(b"one of two"); b.send(b"two")
texts = [buf(b"-" * 40), buf(b"-" * 40)]
iovs = [buf(struct.pack("QQ", ctypes.addressof(text), 40)) for text in texts]
room = buf(b"".join(struct.pack("QIxxxxQQQQIxxxxIxxxx", 0, 0, ctypes.addressof(one), 1, 0, 0, 0, 0) for one in iovs))
told(syscall(299, a.fileno(), room, 2, 0, 0))
"""


def test_what_was_read_is_told_and_nothing_that_stood_there_before(live: Live, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello world")
    run = live.python(READS, tmp_path / "f")
    reads = run.of("read", path=os.fsencode(tmp_path / "f"))
    assert [event.get("ret") for event in reads] == [11, 5, 0, -14, 11]
    assert [event.get("content") for event in reads] == [b"hello world", b"world", None, None, b"hel"]
    sockets = [event for event in run.of("read") if str(event.get("path")).startswith("b'socket:")]
    assert [event.get("content") for event in sockets] == [b"datagram", b"one of two"]
    assert [event.get("ret") for event in sockets] == [8, 2]


def test_more_than_256_bytes_are_cut_and_say_so(live: Live, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 300)
    run = live.python("fd = os.open(sys.argv[1], 0); os.read(fd, 4096)", tmp_path / "f")
    event = run.one("read", path=os.fsencode(tmp_path / "f"))
    assert event.get("content") == b"x" * 256 and Flag.CONTENT_TRUNCATED in event.flags


def test_bytes_of_reads_stay_where_only_those_of_writes_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello")
    codes = [EVENT_BY_NAME[name].code for name in ("read", "write")]
    with Live([]) as live:
        me = live.table.find(os.getpid())
        assert me is not None
        live.sensor.hide(me.pid, me.start_ns)
        for wanted, expected in ((Content.WRITE, (None, b"out")), (Content.READ, (b"hello", None))):
            assert not live.sensor.want(codes, int(wanted))
            run = live.python("fd = os.open(sys.argv[1], 0); os.read(fd, 9); os.write(2, b'out')", tmp_path / "f")
            read, written = run.one("read", path=os.fsencode(tmp_path / "f")), run.one("write", len=3, fd=2)
            assert (read.get("content"), written.get("content")) == expected
