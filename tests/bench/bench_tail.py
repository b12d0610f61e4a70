"""What detection pays for those who follow events: the engine's throughput with and without tails.

    python -m tests.bench.bench_tail --json tail.json

policyd's engine with 100 policies and its taps, on uvloop, fed as fast as it takes batches, which is when a tail could do harm.
The cases take turns of two seconds; medians are compared, by the processor's time, so that other work doesn't count. `told` is
what each tail got a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import uvloop

from execray.memory import settle_memory
from execray.wire.frames import Batch
from policyd.engine.machine import Machine
from policyd.tap_filter import Spec, codes_of
from policyd.taps import Taps
from tests.bench import command
from tests.bench.engine.policies import policies
from tests.bench.engine.stream import Scene

EVENTS: Final = 60_000
ROUNDS: Final = 5
TURN_S: Final = 2.0
EVERYTHING: Final = Spec(
    codes=codes_of(["exec", "fork", "exit", "open", "write", "chmod", "connect", "ptrace", "setuid"])
)
NARROW: Final = Spec(codes=codes_of(["open"]), path="/etc/*", name="cat*", uid=0)
CASES: Final[dict[str, tuple[Spec, ...]]] = {
    "no tail": (),
    "one, narrow": (NARROW,),
    "one, everything": (EVERYTHING,),
    "four, everything": (EVERYTHING,) * 4,
}


@contextlib.asynccontextmanager
async def _followed(taps: Taps, specs: Sequence[Spec]) -> AsyncIterator[None]:
    async def read(spec: Spec) -> None:
        async for _ in taps.follow(spec, content=False, ancestors=True):
            pass

    readers = [asyncio.create_task(read(spec)) for spec in specs]
    if readers:
        await asyncio.wait(readers, timeout=0)
    try:
        yield
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _once(machine: Machine, batches: Sequence[Batch], specs: Sequence[Spec]) -> tuple[float, float]:
    """Returns events for each second of the processor through the engine, and records a second to each tail."""
    taps, needs = Taps(lambda: None, logging.getLogger("policyd")), machine.needs()
    async with _followed(taps, specs):
        start, cpu_start, fed = time.perf_counter(), time.thread_time(), 0
        while (seconds := time.perf_counter() - start) < TURN_S:
            for batch in batches:
                machine.feed(batch)
                taps.offer(batch, needs, losses=False)
                fed += len(batch.events)
                await asyncio.sleep(0)
        used_s = time.thread_time() - cpu_start
    return fed / used_s, taps.delivered / seconds / max(1, len(specs))


async def _measure() -> dict[str, Any]:
    machine, batches = Machine(), Scene().batches(EVENTS)
    machine.load(policies(100), 1)
    await _once(machine, batches, ())  # fills the caches
    settle_memory()
    rates: dict[str, list[tuple[float, float]]] = {case: [] for case in CASES}
    for _ in range(ROUNDS):
        for case, specs in CASES.items():
            rates[case].append(await _once(machine, batches, specs))
    base = statistics.median(rate for rate, _ in rates["no tail"])
    return {
        case: {
            "events_per_s": round(statistics.median(rate for rate, _ in found)),
            "ratio": round(statistics.median(rate for rate, _ in found) / base, 3),
            "told_per_s": round(statistics.median(told for _, told in found)),
        }
        for case, found in rates.items()
    }


def run() -> dict[str, Any]:
    """Returns the figures for each case."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure())


def table(result: dict[str, Any]) -> str:
    """Returns the figures for people."""
    lines = [f"{'tails':>18} {'events/s':>10} {'of no tail':>11} {'told':>6}"]
    for case, found in result.items():
        lines.append(f"{case:>18} {found['events_per_s']:>10,} {found['ratio']:>11.1%} {found['told_per_s']:>6,}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
