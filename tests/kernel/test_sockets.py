"""bpf/include/execray/calls/connect.h: what sockets do besides connecting, and descriptors that are copied."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, shown

EVENTS = ["socket", "bind", "listen", "accept", "sendto", "dup"]
E = CONSTANTS["E"]


def test_a_server_from_its_socket_to_its_first_connection(live: Live) -> None:
    run = live.python("""
        s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(7)
        if os.fork() == 0:
            socket.create_connection(s.getsockname()).recv(1); os._exit(0)
        c, peer = s.accept()
        print(s.fileno(), s.getsockname()[1], c.fileno(), peer[1])
        c.close(); os.wait()
    """)
    fd, port, connection, peer = map(int, run.stdout.split())
    made = run.of("socket")[0]
    assert (made.get("family"), made.get("type"), made.get("ret")) == (socket.AF_INET, socket.SOCK_STREAM, fd)
    bound, listening = run.one("bind"), run.one("listen")
    for event in (bound, listening):
        assert (shown(event, "src.ip"), event.get("src.port"), event.get("fd")) == ("127.0.0.1", port, fd)
        assert (event.get("family"), event.get("path"), event.get("ret")) == (socket.AF_INET, None, 0)
    assert listening.get("backlog") == 7
    taken = run.one("accept")
    assert (taken.get("fd"), taken.get("ret"), taken.get("family")) == (fd, connection, socket.AF_INET)
    assert (shown(taken, "src.ip"), taken.get("src.port")) == ("127.0.0.1", peer)
    assert (shown(taken, "dst.ip"), taken.get("dst.port")) == ("127.0.0.1", port)
    assert taken.get("direction") == b"inbound"


def test_calls_that_fail_tell_what_was_asked(live: Live) -> None:
    run = live.python("""
        s = socket.socket(socket.AF_INET6)
        try: s.bind(("2001:db8::1", 4321))
        except OSError as e: print(e.errno)
        s.setblocking(False); s.bind(("::1", 0)); s.listen()
        try: s.accept()
        except BlockingIOError as e: print(e.errno)
        syscall(50, 777, 1)
    """)
    failed = run.of("bind")[0]
    assert (shown(failed, "src.ip"), failed.get("src.port")) == ("2001:db8::1", 4321)
    again = run.one("accept")
    assert [-int(n) for n in run.stdout.split()] == [failed.get("ret"), again.get("ret")]
    assert (again.get("family"), again.get("src.ip")) == (None, None)
    assert (run.one("listen", fd=777).get("family"), run.one("listen", fd=777).get("ret")) == (None, -E["EBADF"])


def test_unix_sockets_have_their_names(live: Live, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "s")
    run = live.python(f"""
        s = socket.socket(socket.AF_UNIX); s.bind({name!r}); s.listen(1)
        c = socket.socket(socket.AF_UNIX); c.connect({name!r}); s.accept()
        d = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); d.bind(b"\\0execray-abstract")
    """)
    assert [e.get("path") for e in run.of("bind")] == [name, b"\0execray-abstract"]
    assert run.one("listen").get("path") == run.one("accept").get("path") == name


def test_datagrams_go_where_the_caller_says_and_the_rest_where_the_socket_is_connected(live: Live) -> None:
    run = live.python("""
        r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(("127.0.0.1", 0)); to = r.getsockname()
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"12345", to); s.sendmsg([b"1", b"23"], [], 0, to)
        s.connect(to); s.send(b"1234"); s.sendmsg([b"12"])
        print(to[1])
    """)
    port = int(run.stdout)
    events = run.of("sendto")
    assert {(shown(e, "dst.ip"), e.get("dst.port")) for e in events} == {("127.0.0.1", port)}
    assert [(e.get("len"), e.get("ret")) for e in events] == [(5, 5), (None, 3), (4, 4), (None, 2)]
    assert {e.get("direction") for e in events} == {b"outbound"}


def test_what_is_sent_is_a_write_too_where_both_are_wanted() -> None:
    with Live(["sendto", "write"], content=True) as live:
        run = live.python("a, b = socket.socketpair(); a.send(b'both'); os.write(a.fileno(), b'one')")
        assert len(run.of("sendto")) == 1
        assert [e.get("content") for e in run.of("write") if str(e.get("path")).startswith("b'socket:")] == [
            b"both",
            b"one",
        ]


def test_the_first_of_several_messages_is_looked_at() -> None:
    with Live(["sendto", "write"], content=True) as live:
        run = live.python("""
            r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); r.bind(("127.0.0.1", 0)); port = r.getsockname()[1]
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            to = buf(struct.pack("<H", 2) + struct.pack(">H", port) + bytes([127, 0, 0, 1]) + bytes(8))
            texts = [buf(b"first message"), buf(b"second")]
            kept = [buf(struct.pack("QQ", ctypes.addressof(t), len(t) - 1)) for t in texts]
            form = "QIxxxxQQQQIxxxxIxxxx"
            at, iovs = ctypes.addressof(to), [ctypes.addressof(iov) for iov in kept]
            messages = b"".join(struct.pack(form, at, 16, iov, 1, 0, 0, 0, 0) for iov in iovs)
            print(port, syscall(307, s.fileno(), buf(messages), 2, 0))
        """)
        port, sent = map(int, run.stdout.split())
        datagram = run.one("sendto", dst__port=port)
        assert (shown(datagram, "dst.ip"), datagram.get("ret")) == ("127.0.0.1", sent) and sent == 2
        written = run.one("write", content=b"first message")
        assert (written.get("len"), written.get("ret")) == (13, 2)


def test_bytes_that_are_given_to_a_pipe_are_written() -> None:
    with Live(["write"], content=True) as live:
        run = live.python("""
            r, w = os.pipe(); text = buf(b"given away")
            print(syscall(278, w, buf(struct.pack("QQ", ctypes.addressof(text), 10)), 1, 0), os.fstat(w).st_ino)
        """)
        written = run.one("write", content=b"given away")
    given, ino = map(int, run.stdout.split())
    assert (written.get("path"), written.get("ret")) == (b"pipe:[%d]" % ino, given)


def test_a_descriptor_taken_from_another_process(live: Live, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("")
    run = live.python(f"""
        fd = os.open({str(tmp_path / "open")!r}, 0)
        pid = syscall(434, os.getpid(), 0)
        print(fd, syscall(438, pid, fd, 0))
    """)
    fd, taken = map(int, run.stdout.split())
    event = run.one("dup", path=os.fsencode(tmp_path / "open"))
    assert (event.get("fd"), event.get("ret")) == (fd, taken)


def test_copies_of_descriptors(live: Live) -> None:
    run = live.python("""
        s = socket.socket(); fd = s.fileno()
        print(fd, os.fstat(fd).st_ino, syscall(32, fd), syscall(33, fd, 77), syscall(292, fd, 78, 0), syscall(32, 999))
    """)
    fd, ino, *news = map(int, run.stdout.split())
    events = run.of("dup")[-4:]
    assert [e.get("ret") for e in events] == news and news[3] == -E["EBADF"]
    assert [e.get("path") for e in events] == [b"socket:[%d]" % ino] * 3 + [None]
    assert [e.get("fd") for e in events] == [fd, fd, fd, 999]


def test_what_is_copied_is_told_by_its_kind(live: Live, tmp_path: Path) -> None:
    """What fstat says is the truth; it has no word for what is anonymous."""
    run = live.python(
        """
        import select
        r, w = os.pipe(); s = socket.socket(); m = os.memfd_create("m"); e = select.epoll()
        kinds = {"fifo": r, "socket": s.fileno(), "memfd": m, "epoll": e.fileno(), "directory": os.open(sys.argv[1], 0),
                 "file": os.open(sys.argv[1] + "/f", os.O_CREAT | os.O_RDWR), "null": os.open("/dev/null", 0),
                 "link": os.open(sys.argv[1] + "/l", os.O_PATH | os.O_NOFOLLOW), "gone": 999}
        for name, fd in kinds.items():
            print(name, fd, os.fstat(fd).st_mode >> 12 if fd != 999 else 0, syscall(32, fd))
        """,
        _with_link(tmp_path),
    )
    words = {1: b"pipe", 2: b"character", 4: b"directory", 8: b"file", 10: b"link", 12: b"socket"}
    for line in run.stdout.splitlines():
        name, fd, mode, new = line.split()
        expected = b"anonymous" if name == "epoll" else words.get(int(mode))
        assert run.one("dup", fd=int(fd), ret=int(new)).get("old.kind") == expected, name


def _with_link(folder: Path) -> Path:
    (folder / "l").symlink_to("f")
    return folder
