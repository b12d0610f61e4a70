"""bpf/include/execray/calls/connect.h: both ends of a connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from execray.schema.catalog import NO_FLAG, Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, shown
from tests.support.pace import patient

EVENTS = ["connect", "bind", "sendto"]
E = CONSTANTS["E"]


def test_connect_has_both_ends_as_the_socket_knows_them(live: Live) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = live.python(f"s = socket.create_connection(('127.0.0.1', {port})); print(s.getsockname()[1], s.fileno())")
    event = run.one("connect", dst__port=port)
    source, fd = run.stdout.split()
    assert (shown(event, "dst.ip"), shown(event, "src.ip")) == ("127.0.0.1", "127.0.0.1")
    assert (event.get("src.port"), event.get("fd"), event.get("ret")) == (int(source), int(fd), 0)
    assert (event.get("family"), event.get("direction")) == (socket.AF_INET, b"outbound")


def test_connect_over_ipv6_and_a_refused_one(live: Live) -> None:
    with socket.socket(socket.AF_INET6) as idle:
        idle.bind(("::1", 0))
        port = idle.getsockname()[1]
        run = live.python(f"s = socket.socket(socket.AF_INET6); print(s.connect_ex(('::1', {port})))")
    event = run.one("connect", dst__port=port)
    assert int(run.stdout) == E["ECONNREFUSED"] == -int(str(event.get("ret")))
    assert shown(event, "dst.ip") == "::1"


def test_connect_to_unix_sockets(live: Live, tmp_path: Path) -> None:
    run = live.python(f"""
        for name in ({str(tmp_path / "nobody")!r}, "\\0execray-test-abstract"):
            socket.socket(socket.AF_UNIX).connect_ex(name)
    """)
    assert run.one("connect", path=os.fsencode(tmp_path / "nobody")).get("ret") == -E["ENOENT"]
    assert run.one("connect", path=b"\0execray-test-abstract").get("family") == socket.AF_UNIX


def test_a_connected_socket_is_believed_before_the_callers_memory(live: Live) -> None:
    """The address says AF_UNIX by the time the call returns: the socket knows better."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = live.python(f"""
            import mmap
            shared = mmap.mmap(-1, 4096)
            real = struct.pack("<H", 2) + struct.pack(">H", {port}) + bytes([127, 0, 0, 1]) + bytes(8)
            fake = struct.pack("<H", 1) + b"/run/log" + bytes(6)
            shared[:16] = real
            address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
            child = os.fork()
            while child == 0:
                shared[:16] = fake
                shared[:16] = real
            reached, end = 0, time.monotonic() + {patient(8)}
            while reached < 50 and time.monotonic() < end:
                s = socket.socket()
                reached += syscall(42, s.fileno(), address, 16) == 0
                s.close()
            os.kill(child, 9); os.waitpid(child, 0)
        """)
    reached = [e for e in run.of("connect") if e.get("ret") == 0]
    assert reached
    assert {(e.get("family"), e.get("dst.port")) for e in reached} == {(socket.AF_INET, port)}


#: Memory that ends with a page: `edge(raw, n)` is the address of a copy of raw, of which only the first n bytes can be read.
EDGE = """
import mmap
def edge(raw, n):
    at = libc.mmap
    at.restype = ctypes.c_void_p
    start = at(None, ctypes.c_size_t(8192), 3, 0x22, -1, ctypes.c_long(0))
    assert libc.munmap(ctypes.c_void_p(start + 4096), ctypes.c_size_t(4096)) == 0
    ctypes.memmove(start + 4096 - n, raw, n)
    return start + 4096 - n
V4 = struct.pack("<H", 2) + struct.pack(">H", 9) + bytes([192, 0, 2, 1]) + bytes(8)
V6 = struct.pack("<H", 10) + struct.pack(">HI", 9, 0) + socket.inet_pton(10, "2001:db8::1") + bytes(4)
"""


@pytest.mark.parametrize(("raw", "readable", "length"), [("V4", 0, 16), ("V4", 4, 16), ("V6", 8, 28), ("V6", 24, 28)])
def test_an_address_that_cannot_be_read_is_unknown_and_none_of_zeros(
    live: Live, raw: str, readable: int, length: int
) -> None:
    """The kernel can't either, so the call fails."""
    run = live.python(f"""{EDGE}
s = socket.socket({"2" if raw == "V4" else "10"}, socket.SOCK_DGRAM)
at = edge({raw}, {readable})
for call in (42, 49):
    print(syscall(call, s.fileno(), at, {length}))
print(syscall(44, s.fileno(), at, 0, 0, at, {length}))
""")
    assert [int(word) for word in run.stdout.split()] == [-E["EFAULT"]] * 3
    for name, ip, port in (
        ("connect", "dst.ip", "dst.port"),
        ("bind", "src.ip", "src.port"),
        ("sendto", "dst.ip", "dst.port"),
    ):
        event = run.one(name)
        if readable == 24:  # all but the scope, which isn't told
            assert (shown(event, ip), event.get(port), event.flags) == ("2001:db8::1", 9, NO_FLAG)
        else:
            assert (event.get(ip), event.get(port), event.get("family")) == (None, None, None)
            assert Flag.UNREADABLE in event.flags
        assert event.get("ret") == -E["EFAULT"]


def test_an_address_that_is_too_short_is_no_address(live: Live) -> None:
    run = live.python(f"""{EDGE}
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
print(syscall(42, s.fileno(), buf(V6), 23), syscall(42, s.fileno(), buf(V6), 24))
""")
    first, second = (int(word) for word in run.stdout.split())
    failed, whole = run.of("connect")
    assert first == -E["EINVAL"] and (failed.get("dst.ip"), failed.get("family")) == (None, None)
    assert (whole.get("ret"), shown(whole, "dst.ip")) == (second, "2001:db8::1")


def test_a_unix_path_that_cannot_be_read_is_unknown(live: Live) -> None:
    run = live.python(f"""{EDGE}
s = socket.socket(socket.AF_UNIX)
print(syscall(42, s.fileno(), edge(struct.pack("<H", 1) + b"/run/x", 8), 110))
""")
    event = run.one("connect")
    assert (event.get("ret"), event.get("family"), event.get("path")) == (-E["EFAULT"], socket.AF_UNIX, None)
    assert Flag.UNREADABLE in event.flags


def test_a_disconnect_has_the_family_that_does_it(live: Live) -> None:
    run = live.python(
        "s = socket.socket(2, 2); s.connect(('127.0.0.1', 9)); syscall(42, s.fileno(), buf(bytes(16)), 16)"
    )
    event = run.of("connect")[-1]
    assert (event.get("family"), event.get("dst.ip"), event.get("ret"), event.flags) == (0, None, 0, NO_FLAG)


def test_sends_go_where_the_kernel_sends_them_and_not_where_the_caller_may_say(live: Live) -> None:
    """An address without a family is one of IPv4 to a socket of IPv4, and a length of 24 is enough for IPv6; but a stream, and
    an IPv6 socket told no family, send to whom they are connected."""
    run = live.python(f"""{EDGE}
def to(port, family, ip=bytes([127, 0, 0, 1])):
    return struct.pack("<H", family) + struct.pack(">H", port) + ip + bytes(8)
def to6(port):
    return struct.pack("<H", 10) + struct.pack(">HI", port, 0) + socket.inet_pton(10, "::1")
r4 = socket.socket(2, 2); r4.bind(("127.0.0.1", 0)); r6 = socket.socket(10, 2); r6.bind(("::1", 0))
listening = socket.create_server(("127.0.0.1", 0))
stream = socket.create_connection(listening.getsockname())
s4, s6, c6 = socket.socket(2, 2), socket.socket(10, 2), socket.socket(10, 2)
c6.connect(r6.getsockname())
p4, p6, ps = (s.getsockname()[1] for s in (r4, r6, listening))
def send(s, text, address):
    print(syscall(44, s.fileno(), buf(text), len(text), 0, buf(address), len(address)), end=" ")
send(s4, b"1", to(p4, 0))
send(s6, b"22", to6(p6))
send(c6, b"333", to(9, 0, bytes([192, 0, 2, 1])))
send(stream, b"4444", to(9, 2, bytes([192, 0, 2, 1])))
name, base = buf(to(9, 2, bytes([192, 0, 2, 1]))), buf(b"55555")
iov = buf(struct.pack("QQ", ctypes.addressof(base), 5))
c4 = socket.socket(2, 2); c4.connect(r4.getsockname())
message = struct.pack("QIxxxxQQQQIxxxx", ctypes.addressof(name), 0, ctypes.addressof(iov), 1, 0, 0, 0)
print(syscall(46, c4.fileno(), buf(message), 0))
r4.recv(10); r4.recv(10); r6.recv(10); r6.recv(10)
print(p4, p6, ps)
""")
    sent, ports = (list(map(int, line.split())) for line in run.stdout.splitlines())
    assert sent == [1, 2, 3, 4, 5]
    v4, v6, stream = ports
    went = [("127.0.0.1", v4), ("::1", v6), ("::1", v6), ("127.0.0.1", stream), ("127.0.0.1", v4)]
    assert [(shown(e, "dst.ip"), e.get("dst.port")) for e in run.of("sendto")] == went


def test_what_is_sent_to_nobody_has_no_destination(live: Live) -> None:
    run = live.python(f"""{EDGE}
kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
sockets = [socket.socket(family, kind) for kind in kinds for family in (2, 10)]
for s in sockets:
    print(syscall(44, s.fileno(), buf(b"1"), 1, 0x4000, 0, 0))
print(syscall(44, sockets[0].fileno(), buf(b"1"), 1, 0x4000, buf(V4), 16))
""")
    failed = [int(word) for word in run.stdout.split()]
    assert max(failed) < 0
    told = [(e.get("ret"), e.get("family"), e.get("dst.ip"), e.get("dst.port"), e.flags) for e in run.of("sendto")]
    assert told == [(ret, None, None, None, NO_FLAG) for ret in failed]
