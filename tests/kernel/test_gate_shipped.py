"""What of ordinary work the kernel sends for the first steps of the shipped policies."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import compile_set
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from policyd.gate.ways import first_steps
from tests.support.live import Live

NAMES = ["connect", "setuid"]
CODES = {EVENT_BY_NAME[name].code for name in NAMES}
REQUESTS = 50


@pytest.fixture(scope="module")
def shipped() -> Iterator[Live]:
    """The sensor, under those of the shipped policies that such an event begins: what others wait for, anybody may begin."""
    found = compile_set([(file.name, file.read_bytes()) for file in sorted(Path("policies").glob("*.policy"))])
    chosen = [p for p in found.policies if any(CODES & {*p.steps[step].codes} for step in first_steps(p))]
    assert {"shell_after_connect", "setuid_root_by_name"} <= {policy.name for policy in chosen}
    made = build_plan([PolicyTable(policy, 0) for policy in chosen])
    with Live([], ring_bytes=1 << 24) as live:
        assert not live.sensor.want(list(CODES), False, plan=made.plan)
        assert live.sensor.gate.settle(live.sensor.gate.generation, {})
        yield live


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_requests_to_a_server_on_the_same_host_send_no_connect(shipped: Live, family: socket.AddressFamily) -> None:
    there = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.create_server((there, 0), family=family) as server:

        def serve() -> None:
            for _ in range(REQUESTS):
                taken, _ = server.accept()
                taken.recv(100)
                taken.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                taken.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        request = (
            f"s = socket.create_connection(({there!r}, {server.getsockname()[1]})); s.sendall(b'GET /'); s.recv(100)"
        )
        run = shipped.python(f"for _ in range({REQUESTS}): {request}; s.close()")
        thread.join(10)
    assert not thread.is_alive() and not run.of("connect")


def test_a_connection_to_elsewhere_is_sent(shipped: Live) -> None:
    run = shipped.python("s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect_ex(('192.0.2.1', 9))")
    assert run.one("connect").get("dst.ip") == bytes((192, 0, 2, 1))


def test_root_that_stays_root_sends_no_setuid_and_who_becomes_root_does(shipped: Live) -> None:
    stays = "syscall(105, 0); syscall(113, 0, 0); syscall(117, 0, 0, 0)"
    child = f"pid = os.fork()\nif not pid:\n    {stays}; os._exit(0)\nos.waitpid(pid, 0)"
    assert not shipped.python(f"{stays}\n{child}").of("setuid")
    assert not shipped.python("syscall(117, 7, 7, 0); syscall(117, -1, 8, -1)").of("setuid")
    run = shipped.python("syscall(117, 7, 7, 0); syscall(117, 0, 0, 0)")
    assert [(event.get("old.uid"), event.get("new.uid")) for event in run.of("setuid")] == [(7, 0)]
