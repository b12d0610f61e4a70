"""bpf/include/execray/calls/connect.h: both ends of a connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, shown
from tests.support.pace import patient

EVENTS = ["connect"]
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
