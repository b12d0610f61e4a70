"""bpf/sys.bpf.c: what is wanted leaves the kernel, and what does not fit is counted."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time

from execray.schema.catalog import EVENTS
from tests.support.live import Live
from tests.support.pace import patient
from tracerd.heartbeat import PROBED, HeartbeatThread


def test_only_wanted_events_leave_the_kernel() -> None:
    with Live(["open"]) as live:
        run = live.python(
            "os.write(1, b'x'); os.chmod('/proc/self/nothing', 0) if False else None; open('/dev/null').close()"
        )
        assert run.of("open") and not run.of("write")
        assert not live.sensor.want([], False)
        assert not live.sensor.hooks()["open"]["attached"]
        assert not live.python("open('/dev/null').close()").of("open")


def test_a_call_that_is_followed_and_not_wanted_leaves_no_record() -> None:
    """As setuid is for its "before": looked at, its path built, and decided against."""
    with Live(["open", "exec"]) as live:
        wanted = bytes(live.sensor._config[:8])
        live.sensor._config[:8] = bytes(8)
        sent = live.sensor.counter("SENT")
        run = live.python("open('/dev/null').close()")
        assert not run.of("open")
        assert live.sensor.counter("SENT") > sent  # exec, fork and exit are not its to decide
        live.sensor._config[:8] = wanted
        assert live.python("open('/dev/null').close()").of("open", rawpath=b"/dev/null")


def test_a_flood_past_the_ring_is_counted_exactly() -> None:
    with Live(["open"], ring_bytes=1 << 16) as live:
        code = "import os\nfor _ in range(5000): os.close(os.open('/dev/null', 0))\n"
        done = threading.Event()

        def flood() -> None:
            subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert done.wait(patient(30))
        thread.join()
        live.want([])  # or what others do meanwhile is counted on one side only
        for name in ("er_exec", "er_fork", "er_exit"):
            live.sensor._program(name).detach()
        sent, dropped = live.sensor.counter("SENT"), live.sensor.counter("DROPPED")
        events = live.drain()
        assert dropped > 0
        assert len(events) == sent
        assert sent + dropped >= 5000


def test_every_event_answers_its_probe_and_no_probe_is_an_event() -> None:
    askable = {event.name: event.code for event in EVENTS if event.name in PROBED}
    with Live([], ring_bytes=1 << 26) as live:
        thread = HeartbeatThread(0.2, lambda: frozenset(askable), lambda: False)
        thread.start()
        assert thread.started_as.wait(patient(10))
        me = live.table.find(os.getpid())
        assert me is not None
        live.sensor.hide(me.pid, me.start_ns)
        live.sensor.set_heartbeat_thread(me.pid, thread.tid)
        live.want(askable)
        events, end = [], time.monotonic() + patient(20)
        while set(askable.values()) - set(live.decoder.heartbeats) and time.monotonic() < end:
            select.select([live.sensor.ring.fd], [], [], 0.1)
            events += live.drain()
        thread.stop()
        thread.join(patient(10))
        silent = [name for name, code in askable.items() if code not in live.decoder.heartbeats]
    assert not silent
    assert not [event for event in events if event.tid == thread.tid]
