"""What the sensor costs the watched: system calls and programs untraced, beside an empty program on the same hook, and traced.

    python -m tests.bench.bench_overhead --json overhead.json

The ways take turns in one process, in a random order (tests/bench/calls.py); the median of the ratios to the same turn's
untraced blocks is reported, and for the bounds that are set whether they are held.

| way | what it is |
|---|---|
| untraced | nothing of ours is attached |
| empty | a program of two instructions on the raw tracepoint sys_exit |
| other | the sensor, which wants another call |
| unarmed | the call is wanted from armed processes only, and this is none |
| tested | the call is followed, its path built and tested; no record is sent |
| recorded | a record of each call, drained on another processor |
| spelled | the same with the path as the caller wrote it, which is captured where a policy or a tail asks for it |

Other programs on the same hooks, another sensor's say, make what isn't ours slower, and so the ratios smaller; where the kernel
counts the time of programs (`kernel.bpf_stats_enabled`), each run of any costs two readings of the clock more. Both are told.

Needs root and gcc.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from execray.schema.catalog import EVENT_BY_NAME, NO_CONTENT, Content
from tests.bench import command
from tests.bench.calls import build, compare, priority
from tests.bench.empty_program import attached as empty_program
from tests.support.live import Live

WAYS: Final = ("untraced", "empty", "other", "unarmed", "tested", "recorded", "spelled")
_DRAINED: Final = ("recorded", "spelled")
_ALWAYS: Final = ("er_exec", "er_fork", "er_exit")
#: name -> (C statement, events that record it, how often in a block, turns)
WORK: Final = {
    "open+close": ('close(open("/etc/hostname", 0));', ["open"], 1500, 60),
    "write 4 KiB": ("if (write(null, page, 4096) < 0) return 1;", ["write"], 5000, 60),
    "close(-1)": ("close(-1);", [], 5000, 60),
    "fork+exec": ("run();", ["exec", "fork", "exit"], 9, 80),
}
#: (work, way, the way it is compared with, at most so many times that)
BOUNDS: Final = (
    ("open+close", "tested", "untraced", 1.30),
    ("open+close", "recorded", "untraced", 1.40),
    ("write 4 KiB", "unarmed", "empty", 1.10),
    ("fork+exec", "recorded", "untraced", 1.05),
)


@contextmanager
def _drained(live: Live) -> Iterator[None]:
    """Empties the ring in the background, on another processor."""
    done = threading.Event()

    def drain() -> None:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0} or {0})
        while not done.wait(0.001):
            _empty(live)

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _empty(live)


def _empty(live: Live) -> None:
    ring = live.sensor.ring
    while ring.next() is not None:
        pass
    ring.release()


def _also_there() -> list[str]:
    """What else bears on the figures: asked before there is anything of ours."""
    found = []
    if Path("/proc/sys/kernel/bpf_stats_enabled").read_text(encoding="ascii").strip() != "0":
        found.append("the kernel counts the time of BPF programs (kernel.bpf_stats_enabled)")
    others = set()
    for file in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):  # it may have gone
            lines = dict(line.partition(":")[::2] for line in file.read_text(errors="replace").splitlines())
            if lines.get("tp_name", "").strip() in ("sys_exit", "sys_enter"):
                others.add(lines["link_id"])
    return [*found, f"{len(others)} other programs at each system call"] if others else found


class _Machine:
    """The sensor, and how each way is set up."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self.dropped = 0
        attach(live.sensor, False)

    def measure(self, program: Path, wanted: list[str], calls: int, turns: int) -> dict[str, float]:
        """Returns nanoseconds a call for each way that applies."""
        ways = {way: partial(self._set_up, way, wanted) for way in WAYS if _applies(way, wanted)}
        return compare(program, calls, ways, turns)

    @contextmanager
    def _set_up(self, way: str, wanted: list[str], _pid: int) -> Iterator[None]:
        """Makes it one of WAYS."""
        live = self._live
        before = live.sensor.counter("DROPPED")
        with ExitStack() as stack:
            if way == "empty":
                stack.enter_context(empty_program("sys_exit"))
            elif way != "untraced":
                attach(live.sensor, True)
                stack.callback(attach, live.sensor, False)
                codes = [EVENT_BY_NAME[event].code for event in (wanted if way != "other" else ["setuid"])]
                content = Content.WRITE | (Content.SPELLING if way == "spelled" else NO_CONTENT)
                live.sensor.want(codes, content, (), codes if way == "unarmed" else ())
                stack.callback(live.want, [])
                if way == "tested":
                    live.sensor._config[:8] = bytes(8)  # er_config::wanted: followed, and asked for by nobody
                elif way in _DRAINED:
                    stack.enter_context(_drained(live))
            yield
        if way in _DRAINED:
            self.dropped += live.sensor.counter("DROPPED") - before


def attach(sensor: Any, on: bool) -> None:
    """Attaches or detaches what follows processes, whatever is asked for."""
    for name in _ALWAYS:
        program = sensor._program(name)
        (program.attach if on else program.detach)()


def _applies(way: str, wanted: list[str]) -> bool:
    if way == "spelled":
        return any(EVENT_BY_NAME[event].asked.get("rawpath") for event in wanted)
    # exec, fork and exit always leave the kernel: lineage rests on them
    return way in ("untraced", "empty", "other") or (bool(wanted) and (way == "recorded" or "exec" not in wanted))


def run() -> dict[str, Any]:
    """Returns for each kind of work the nanoseconds untraced, and each way's ratio to that."""
    result: dict[str, Any] = {"real-time priority": bool(priority()), "also there": _also_there()}
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder:
        programs = {n: build(Path(folder), i, work[0]) for i, (n, work) in enumerate(WORK.items())}
        with Live([], ring_bytes=1 << 24) as live:
            machine = _Machine(live)
            for name, (_, wanted, calls, turns) in WORK.items():
                median = machine.measure(programs[name], wanted, calls, turns)
                result[name] = {"untraced_ns": round(median["untraced"], 1)}
                result[name] |= {way: round(ns / median["untraced"], 3) for way, ns in median.items()}
            result["dropped"] = machine.dropped
    result["bounds"] = [
        {"work": work, "way": way, "beside": beside, "bound": bound, "ratio": round(found / result[work][beside], 3)}
        for work, way, beside, bound in BOUNDS
        if (found := result[work].get(way))
    ]
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    show: Callable[[float | None], str] = lambda ratio: f"{ratio:9.2f}" if ratio is not None else " " * 9  # noqa: E731
    lines = [f"{'':14}{'untraced ns':>12}" + "".join(f"{way:>9}" for way in WAYS[1:])]
    lines += [
        f"{name:14}{result[name]['untraced_ns']:12.0f}" + "".join(show(result[name].get(way)) for way in WAYS[1:])
        for name in WORK
    ]
    lines += [
        f"{b['work']}, {b['way']}: {b['ratio']:.2f} of {b['beside']}, bound {b['bound']:.2f}:"
        f" {'held' if b['ratio'] <= b['bound'] else 'NOT held'}"
        for b in result["bounds"]
    ]
    priority = "at real-time priority" if result["real-time priority"] else "WITHOUT real-time priority: expect noise"
    lines += [f"also there: {what}" for what in result["also there"]]
    return "\n".join([*lines, f"{priority}; records lost while drained: {result['dropped']}"])


if __name__ == "__main__":
    command.main(__doc__, run, table)
