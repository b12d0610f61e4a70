"""bpf/sys.bpf.c: what is wanted leaves the kernel, and what does not fit is counted."""

from __future__ import annotations

import subprocess
import sys
import threading

from tests.support.live import Live


def test_only_wanted_events_leave_the_kernel() -> None:
    with Live(["open"]) as live:
        run = live.python(
            "os.write(1, b'x'); os.chmod('/proc/self/nothing', 0) if False else None; open('/dev/null').close()"
        )
        assert run.of("open") and not run.of("write")
        assert not live.sensor.want([], False)
        assert not live.sensor.hooks()["open"]["attached"]
        assert not live.python("open('/dev/null').close()").of("open")


def test_a_flood_past_the_ring_is_counted_exactly() -> None:
    with Live(["open"], ring_bytes=1 << 16) as live:
        live.drain()
        sent, dropped = live.sensor.counter("SENT"), live.sensor.counter("DROPPED")
        code = "import os\nfor _ in range(5000): os.close(os.open('/dev/null', 0))\n"
        done = threading.Event()

        def flood() -> None:
            subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert done.wait(30)
        thread.join()
        sent, dropped = live.sensor.counter("SENT") - sent, live.sensor.counter("DROPPED") - dropped
        events = live.drain()
        assert dropped > 0
        assert len(events) == sent
        assert sent + dropped >= 5000
