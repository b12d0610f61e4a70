"""What an event costs that the kernel gate drops: under plans of 1 and 1,000 policies, and in a flood that meets nothing.

    python -m tests.bench.bench_gated --json gated.json

As `overhead`: the ways take turns in one process, and the median of the ratios to the same turn's empty program is reported.
`left` is a plan in which the path leaves bits in every word, and flags or results take them away; in `waits` and `begun` all
writes wait for the open, and in the latter it was met in one process of ten: the program is that one in a tenth of what is
reported, and in all of `of it`, where each of its writes is looked at as if it waited for nothing.

Needs root and gcc.
"""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from execray.gate.hashes import exact_key, prefix_key
from execray.gate.memory import FOR_EVER
from execray.gate.plan import ALL_BITS, CELL_SLOTS, ROW_ALL, ROW_NONE, CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_PID_SLOTS, GATE_AT, GATE_BYTES, GATE_CELL, GATE_CELL_KEY
from tests.bench import command
from tests.bench.bench_overhead import attach
from tests.bench.calls import build, compare, priority
from tests.bench.empty_program import attached as empty_program
from tests.support.live import Live

TURNS: Final = 60
ARMED: Final = 0.1  # of the processes
FLOOD_S: Final = 5.0
#: name -> (C statement, event that records it, how often in a block)
WORK: Final = {
    "open+close": ('close(open("/etc/hostname", 0));', "open", 1500),
    "write 4 KiB": ("if (write(null, page, 4096) < 0) return 1;", "write", 5000),
    "close(-1)": ("close(-1);", "write", 5000),
}
BOUNDS: Final = {"open+close": 1.15, "write 4 KiB": 1.10, "close(-1)": 1.08}
#: Most of a busy program's calls; what of it is wanted is opens, writes, reads and connects.
_MIX: Final = (
    'int f = open("/etc/hostname", 0); char b[64]; for (int k = 0; k < 4; k++) { if (pread(f, b, 64, 0) < 0) return 1;'
    " if (write(null, page, 64) < 0) return 1; } close(f); close(-1);"
)
_MIX_CALLS: Final = 11
_FLOODED: Final = ("open", "write", "read", "connect")
_OPEN, _WRITE = EVENT_BY_NAME["open"].code, EVENT_BY_NAME["write"].code


def plan_of(policies: int, *, left: bool = False) -> GatePlan:
    """Returns a plan of policies with three steps each: an open of a file, one below a folder, and a write to a file."""
    opens = (1 << 2 * policies) - 1
    words = -(-2 * policies // 64)
    writes = (1 << policies) - 1 << 64 * words
    rows, keys = [0, ALL_BITS, opens, writes], {}
    for number in range(policies):
        for bit, key in (
            (2 * number, exact_key(b"/srv/p%d/secret" % number)),
            (2 * number + 1, prefix_key(b"/opt/app%d" % number)),
            (64 * words + number, exact_key(b"/var/lib/w%d" % number)),
        ):
            keys[key] = len(rows)
            rows.append(1 << bit)
    free: tuple[int, int] = (ROW_NONE, ROW_NONE)
    tests: list[tuple[NumberTest, ...]] = [(), ()]
    if left:
        every_other = sum(1 << bit for bit in range(0, 4096, 2))
        free = (len(rows), len(rows) + 1)
        rows += [opens & every_other, writes & every_other]
        tests = [(NumberTest(Input.FLAGS, NumberKind.BITS, (3,), len(rows)),)]
        tests += [(NumberTest(Input.RET, NumberKind.RANGES, (1 << 40,), len(rows)),)]
        rows += [ALL_BITS & ~every_other, ALL_BITS]
    codes = (
        CodeTest(_OPEN, 0, words, 2, free[0], 0, 0, ROW_ALL, tests[0]),
        CodeTest(_WRITE, words, words - (-policies // 64), 3, free[1], 0, 0, ROW_ALL, tests[1]),
    )
    return GatePlan(codes, frozenset(), tuple(rows), keys)


def waiting_plan(policies: int) -> GatePlan:
    """Returns the same where each policy's write waits for its opens, in the process that met them."""
    plan = plan_of(policies)
    words = plan.codes[0].end_word
    slots = {2 * n + at: 1 + n % (CELL_SLOTS - 1) for n in range(policies) for at in (0, 1)}
    slots |= {64 * words + n: 1 + n % (CELL_SLOTS - 1) for n in range(policies)}
    return replace(plan, first=2, slots=slots, windows=dict.fromkeys(slots.values(), 10**12))


def begin(live: Live, one: int | None) -> None:
    """Makes it so that all policies have begun in one process in ten, one of which is this; None: others alone."""
    gate = live.sensor.gate
    cell = struct.pack("<Q", FOR_EVER) * (GATE_CELL.size // 8)
    with memoryview(gate.map.view()) as view:

        def member(name: str) -> memoryview:
            at, size = GATE_AT[name]
            return view[(gate.value - 1) * GATE_BYTES + at :][:size]

        member("cells_ns")[:] = cell
        # where a program's stack is only the kernel knows: its own is among a tenth of all in one turn of ten
        threads, processes = (member(name).cast("Q") for name in ("threads_ns", "celled_ns"))
        for place in random.sample(range(len(threads)), len(threads) // 10 if one is None else len(threads)):
            threads[place] = FOR_EVER
        for pid in range(0, ER_PID_SLOTS, 10):
            processes[pid] = FOR_EVER
            gate.cells.update(GATE_CELL_KEY.pack((1 << 22) + pid, gate.value), cell)
        if one is not None:
            processes[one % ER_PID_SLOTS] = FOR_EVER
            gate.cells.update(GATE_CELL_KEY.pack(one, gate.value), cell)


def run() -> dict[str, Any]:
    """Returns for each kind of work nanoseconds untraced and each way's ratio to an empty program; and what came of the flood."""
    plans = {"1 policy": plan_of(1), "1,000": plan_of(1000), "1,000 left": plan_of(1000, left=True)}
    plans |= {"waits": waiting_plan(1000), "begun": waiting_plan(999), "of it": waiting_plan(999)}
    result: dict[str, Any] = {"real-time priority": bool(priority())}
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder, Live([], ring_bytes=1 << 22) as live:
        attach(live.sensor, False)
        for index, (name, (statement, event, calls)) in enumerate(WORK.items()):
            ways = {way: partial(_set_up, live, way, plans.get(way), event) for way in ("empty", "untraced", *plans)}
            found = compare(build(Path(folder), index, statement), calls, ways, TURNS)
            found["begun"] += (found["of it"] - found["begun"]) * ARMED
            result[name] = {"untraced_ns": round(found["untraced"], 1)}
            result[name] |= {way: round(ns / found["empty"], 3) for way, ns in found.items() if way != "untraced"}
        result["flood"] = _flood(live, plans["1,000"], build(Path(folder), len(WORK), _MIX))
    return result


@contextmanager
def _set_up(live: Live, way: str, plan: GatePlan | None, event: str, pid: int) -> Iterator[None]:
    with ExitStack() as stack:
        if way == "empty":
            stack.enter_context(empty_program("sys_exit"))
        elif plan is not None:
            live.sensor.want([EVENT_BY_NAME[event].code], False, plan=plan)
            live.sensor.gate.settle(live.sensor.gate.generation, {})
            if way in ("begun", "of it"):
                begin(live, pid if way == "of it" else None)
            stack.callback(live.sensor.want, [], False)
        yield


def _flood(live: Live, plan: GatePlan, program: Path) -> dict[str, Any]:
    """Runs the mix on every processor for a while, and counts what comes out and what reading it costs."""
    attach(live.sensor, True)
    live.sensor.want([EVENT_BY_NAME[name].code for name in _FLOODED], False, plan=plan)
    live.drain()
    before, sent, cpu = live.sensor.gate_status(), live.sensor.counter("SENT"), resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()
    rounds = 50_000
    calls = 0
    while time.monotonic() - began < FLOOD_S:
        children = [
            subprocess.Popen([program, str(rounds)], stdout=subprocess.DEVNULL) for _ in os.sched_getaffinity(0)
        ]
        for child in children:
            child.wait()
        calls += len(children) * rounds * _MIX_CALLS
        live.drain()
    took, used = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    after = live.sensor.gate_status()
    return {
        "calls_per_s": round(calls / took),
        "dropped": sum(after["dropped"].values()) - sum(before["dropped"].values()),
        "passed": sum(after["passed"].values()) - sum(before["passed"].values()),
        "records": live.sensor.counter("SENT") - sent,  # exec, fork and exit of the whole host among them
        "lost": live.sensor.counter("DROPPED"),
        "reader_cpu": round((used.ru_utime - cpu.ru_utime + used.ru_stime - cpu.ru_stime) / took, 4),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    ways = [way for way in result["open+close"] if way != "untraced_ns"]
    lines = [f"{'':14}{'untraced ns':>12}" + "".join(f"{way:>12}" for way in ways) + "   bound (to an empty program)"]
    for name in WORK:
        found = result[name]
        lines.append(
            f"{name:14}{found['untraced_ns']:12.0f}"
            + "".join(f"{found[way]:12.2f}" for way in ways)
            + f"{BOUNDS[name]:8.2f}"
        )
    flood = result["flood"]
    lines.append(
        f"flood: {flood['calls_per_s']:,} calls/s, {flood['dropped']:,} events dropped, {flood['passed']:,} passed, "
        f"{flood['records']:,} records of the whole host, {flood['lost']} lost, reader at {flood['reader_cpu']:.2%} of a CPU"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
