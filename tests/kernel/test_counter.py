"""bpf/counter.bpf.c: the optional count of system calls."""

from __future__ import annotations

import os

from tests.support.live import Live
from tracerd.processes import ProcessTable
from tracerd.sensor import Sensor


def test_every_system_call_is_counted() -> None:
    sensor = Sensor(counter=True, ring_bytes=1 << 16)
    try:
        sensor.start(ProcessTable(65536))
        before = sensor.counter("SYSCALLS")
        for _ in range(1000):
            os.getppid()
        assert sensor.counter("SYSCALLS") - before >= 1000
    finally:
        sensor.close()


def test_calls_on_every_processor_are_counted() -> None:
    sensor, mine = Sensor(counter=True, ring_bytes=1 << 16), os.sched_getaffinity(0)
    try:
        sensor.start(ProcessTable(65536))
        before = sensor.counter("SYSCALLS")
        for cpu in mine:
            os.sched_setaffinity(0, {cpu})
            for _ in range(1000):
                os.getppid()
        assert sensor.counter("SYSCALLS") - before >= 1000 * len(mine)
    finally:
        os.sched_setaffinity(0, mine)
        sensor.close()


def test_it_is_off_by_default() -> None:
    with Live([]) as live:
        assert live.sensor.counter("SYSCALLS") == 0
        assert "counter" not in live.sensor.reports
