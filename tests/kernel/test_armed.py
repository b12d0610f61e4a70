"""Events that are wanted from armed processes only: whose calls are recorded, and for how long a process is armed."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.event import Event
from tests.support.live import PRELUDE, Live, sleeper
from tests.support.pace import patient
from tracerd.armed import ARMED_AT, MAX_ARMED, SELF_AT
from tracerd.heartbeat import HeartbeatThread
from tracerd.processes import Process

WRITE = EVENT_BY_NAME["write"].code
HELLO = "os.write(nowhere, b'hello')"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """Opens and writes to other processes' memory from all, writes from armed ones."""
    with Live([]) as sensor:
        codes = [EVENT_BY_NAME[name].code for name in ("open", "write", "procmem")]
        assert not sensor.sensor.want(codes, True, (), [WRITE])
        yield sensor


@contextmanager
def _told(live: Live, code: str) -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """A process that does something when it is told to: by closing its standard input."""
    code = f"{PRELUDE}\nnowhere = os.open('/dev/null', os.O_WRONLY); sys.stdin.read(); {code}"
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE)
    assert child.stdin
    try:
        yield child, live.await_exec(child.pid)
    finally:
        child.stdin.close()
        child.kill()
        child.wait()


def _events(live: Live, child: subprocess.Popen[bytes], name: str) -> list[Event]:
    """Lets the process go on; returns what it did of one kind, up to its end."""
    assert child.stdin
    child.stdin.close()
    return [event for event in live.collect(child.pid) if event.type.name == name]


def test_writes_are_recorded_with_their_content_in_an_armed_process(live: Live) -> None:
    with _told(live, HELLO) as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns)
        assert [event.get("content") for event in _events(live, child, "write")] == [b"hello"]


def test_no_write_of_a_process_that_is_not_armed_is_recorded(live: Live) -> None:
    with _told(live, f"{HELLO}; os.open('/dev/zero', 0)") as (child, _):
        assert child.stdin
        child.stdin.close()
        events = live.collect(child.pid)
    assert not [event for event in events if event.type.name == "write"]
    assert b"/dev/zero" in [event.get("path") for event in events if event.type.name == "open"]


def test_another_process_that_had_the_pid_arms_nobody(live: Live) -> None:
    with _told(live, HELLO) as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns + 1)
        assert not _events(live, child, "write")


def test_a_process_is_armed_no_longer_when_it_is_disarmed(live: Live) -> None:
    with _told(live, HELLO) as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns)
        live.sensor.armed.disarm(process.pid, process.start_ns)
        assert not _events(live, child, "write")


@pytest.mark.parametrize("by_thread", [False, True])
def test_an_exec_leaves_a_process_armed(live: Live, by_thread: bool) -> None:
    run = "os.execv('/bin/echo', ['echo', 'hello'])"
    code = f"t = threading.Thread(target=lambda: {run}); t.start(); t.join()" if by_thread else run
    with _told(live, code) as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns)
        assert [event.get("content") for event in _events(live, child, "write")] == [b"hello\n"]


def test_every_thread_of_an_armed_process_is(live: Live) -> None:
    with _told(live, f"t = threading.Thread(target=lambda: {HELLO}); t.start(); t.join()") as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns)
        (event,) = _events(live, child, "write")
    assert event.tid != process.pid


def test_a_child_is_not_armed_with_its_creator(live: Live) -> None:
    with _told(live, f"pid = os.fork(); pid or {HELLO}; pid and os.waitpid(pid, 0)") as (child, process):
        live.sensor.armed.arm(process.pid, process.start_ns)
        assert not _events(live, child, "write")


def test_what_else_such_a_call_is_stays_an_event_of_all(live: Live) -> None:
    code = f"fd = os.open(f'/proc/{os.getpid()}/mem', os.O_WRONLY); os.pwrite(fd, b'', 0)"
    with _told(live, code) as (child, _):
        assert child.stdin
        child.stdin.close()
        events = live.collect(child.pid)
    assert [event.get("target.pid") for event in events if event.type.name == "procmem"]
    assert not [event for event in events if event.type.name == "write"]


def test_what_ends_is_armed_no_longer_and_its_mark_goes_with_the_next_sweep(live: Live) -> None:
    armed = live.sensor.armed
    before = armed.filter.pids()

    def marks() -> int:
        return sum(live.sensor._shapes[ARMED_AT:SELF_AT])

    with sleeper() as child:
        process = live.await_exec(child.pid)
        armed.arm(process.pid, process.start_ns)
        assert armed.filter.pids() == sorted([*before, child.pid])
        live.sensor.sweep()
        assert marks() == 2 * len({pid % 4096 for pid in armed.filter.pids()})
    assert armed.filter.pids() == before
    live.sensor.sweep()
    assert marks() == 2 * len({pid % 4096 for pid in before})


def test_a_process_of_ours_stays_hidden_through_a_sweep() -> None:
    with Live(["open"]) as live:
        me = live.table.find(os.getpid())
        assert me is not None
        live.sensor.hide(me.pid, me.start_ns)
        live.sensor.sweep()
        live.drain()
        before = live.sensor.counter("SELF")
        os.close(os.open("/dev/null", os.O_RDONLY))
        assert live.sensor.counter("SELF") > before
        assert not [event for event in live.drain() if event.actor.id[0] == os.getpid()]


def test_more_than_fit_are_refused() -> None:
    with Live([]) as live:
        for pid in range(MAX_ARMED):
            live.sensor.armed.arm(1 << 22 | pid, 1)
        with pytest.raises(OSError) as caught:
            live.sensor.armed.arm(1 << 23, 1)
    assert caught.value.errno == errno.E2BIG


def test_probes_of_what_only_armed_processes_are_followed_for_arrive() -> None:
    with Live([]) as live:
        thread = HeartbeatThread(0.2, lambda: frozenset({"write"}), lambda: False)
        thread.start()
        assert thread.started_as.wait(patient(10))
        me = live.table.find(os.getpid())
        assert me is not None
        live.sensor.hide(me.pid, me.start_ns)
        live.sensor.armed.arm(me.pid, me.start_ns)
        live.sensor.set_heartbeat_thread(me.pid, thread.tid)
        assert not live.sensor.want([WRITE], True, (), [WRITE])
        end = time.monotonic() + patient(20)
        while WRITE not in live.decoder.heartbeats and time.monotonic() < end:
            select.select([live.sensor.ring.fd], [], [], 0.1)
            live.drain()
        thread.stop()
        thread.join(patient(10))
    assert WRITE in live.decoder.heartbeats
