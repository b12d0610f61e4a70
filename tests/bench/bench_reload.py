"""How long a reload takes, and how long an event may have to wait meanwhile, with 100 and 1,000 policies.

    python -m tests.bench.bench_reload --json reload.json

policyd's own reloader and engine on uvloop; a batch of 64 events comes each millisecond, as from tracerd. `cold` is the first
load, `one changed` the usual reload, `all changed` the worst one. The wait is from when a batch was due to when the engine was
done with it; `idle` is the same with no reload under way. Medians, and the worst of all rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop

from execray.memory import settle_memory
from execray.wire.frames import Batch
from policyd.engine.machine import Machine
from policyd.reloading import SWITCH_S, Reloader
from policyd.store import PolicyStore
from tests.bench import command
from tests.bench.engine.stream import Scene

SIZES = (100, 1000)
ROUNDS = 7
TICK_S = 0.001
_KINDS = (
    'path "send{n}" key tree within 1m {{ open {{ path =~ "^/etc/(secret{n}|shadow{n})$" access has READ ret >= 0'
    ' exe not in ["/usr/bin/sudo", "/opt/agent{n}"] }} as o write | connect {{ }} as out on match {{ alert; kill }} }}',
    'path "drop{n}" key tree within 1m {{ open {{ created path startswith "/tmp/.x{n}/" }} chmod {{ mode hasany 0o111 }}'
    ' exec {{ exe startswith "/tmp/.x{n}/" ret >= 0 }} }}',
    'path "shell{n}" within 15s {{ connect {{ dst.port not in [80, 443, {m}] exe = "/opt/server{n}" }}'
    ' exec {{ name in ["sh", "bash"] cmdline contains "-c {n}" }} }}',
    'path "key{n}" {{ open {{ path endswith ".key{n}" or path contains "/vault{m}/" }} }}',
    'path "tool{n}" {{ exec {{ argv[0] =~ "(^|/)miner{n}[a-z]*$" uid != {m} }} }}',
)


def policy_text(number: int, version: int) -> str:
    """Returns a file of two policies."""
    return (
        _KINDS[number % len(_KINDS)].format(n=number, m=version + 1)
        + f' path "also{number}" {{ exec {{ uid = {4242 + version} }} }}'
    )


class _Events:
    """Feeds the engine a batch each millisecond, and notes how long each had to wait."""

    def __init__(self, machine: Machine, batches: Sequence[Batch]) -> None:
        self.waits: list[float] = []
        self._machine = machine
        self._batches = itertools.cycle(batches)

    async def run(self) -> None:
        due = time.perf_counter() + TICK_S
        while True:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._machine.feed(next(self._batches))
            now = time.perf_counter()
            self.waits.append(now - due)
            due = max(due, now) + TICK_S


async def _measure(size: int) -> dict[str, Any]:
    machine = Machine()
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder:
        paths = [Path(folder) / f"{number:05}.policy" for number in range(size // 2)]
        version = itertools.count(1)
        store = PolicyStore((Path(folder),), frozenset({0, os.geteuid()}))
        reloader = Reloader(machine, store, lambda gate: None, logging.getLogger("bench"))
        for number, path in enumerate(paths):
            path.write_text(policy_text(number, 0))
            path.chmod(0o644)
        cold = (await _reload(reloader))["ms"]
        events = _Events(machine, Scene().batches(20_000))
        settle_memory()  # what is fed again and again here is gone after a moment in policyd
        feeding = asyncio.create_task(events.run())
        result: dict[str, Any] = {"policies": len(store.policies), "cold_ms": cold}
        await asyncio.sleep(0.5)
        events.waits.clear()
        await asyncio.sleep(1.0)
        result["idle_wait_ms"] = _worst(events)
        for label, changed in (("one_changed", paths[:1]), ("all_changed", paths)):
            took, waits = [], []
            for _ in range(ROUNDS):
                fresh = next(version)
                for path in changed:
                    path.write_text(policy_text(int(path.stem), fresh))
                await asyncio.sleep(0.05)
                events.waits.clear()
                took.append((await _reload(reloader))["ms"])
                await asyncio.sleep(0.05)  # the first batches of the new set find its caches empty
                waits.append(_worst(events))
            result[label] = {
                "ms": round(statistics.median(took), 1),
                "wait_ms": round(statistics.median(waits), 1),
                "worst_wait_ms": max(waits),
            }
        feeding.cancel()
        await asyncio.wait({feeding})
    return result


async def _reload(reloader: Reloader) -> dict[str, Any]:
    report = await reloader.reload()
    if not report["ok"]:
        raise RuntimeError(report["rendered"])
    return report


def _worst(events: _Events) -> float:
    return round(max(events.waits) * 1000, 1)


def run() -> dict[str, Any]:
    """Returns the figures for each size."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return {str(size): runner.run(_measure(size)) for size in SIZES}
    finally:
        sys.setswitchinterval(before)


def table(result: dict[str, Any]) -> str:
    """Returns the figures for people."""
    lines = [
        "policies   cold ms   one changed: ms  wait  worst wait   all changed: ms  wait  worst wait   idle: worst wait"
    ]
    for size, found in result.items():
        one, every = found["one_changed"], found["all_changed"]
        lines.append(
            f"{size:>8} {found['cold_ms']:>9}   {one['ms']:>15} {one['wait_ms']:>5} {one['worst_wait_ms']:>11}"
            f"   {every['ms']:>15} {every['wait_ms']:>5} {every['worst_wait_ms']:>11}   {found['idle_wait_ms']:>16}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
