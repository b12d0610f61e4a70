"""What the gate's plan is worth and what it costs: how much of ordinary work the shipped policies drop, and the plan's size.

    python -m tests.bench.bench_gate --json gate.json

By the plan and its twin in Python, on the recording of ordinary work; what the kernel takes for a decision is in `overhead`.
`sent` counts the events that pass; `could` those that could meet some step, whatever has begun; `begun` those that meet a step
which is awaited from the start; `needed` those that the engine, fed with all, met an awaited step with: a gate may send no fewer.
Exec, fork and exit are left out: they always pass.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from execray.eventfile import EventReader, open_events
from execray.gate.verdict import candidates
from execray.schema.catalog import LOST
from execray.wire.frames import Batch
from policyd.compiler import compile_set
from policyd.engine.machine import Machine
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from policyd.gate.twin import Gate, facts_of
from policyd.gate.ways import ALWAYS
from policyd.program import CompiledPolicy
from tests.bench import command
from tests.bench.engine.policies import policies

RECORDING: Final = Path("tests/data/ordinary/work.jsonl.zst")
SIZES: Final = (1, 100, 1000)
COUNTED: Final = ("all", "sent", "could", "begun", "needed")


def run() -> dict[str, Any]:
    """Returns the figures."""
    shipped = compile_set([(file.name, file.read_bytes()) for file in sorted(Path("policies").glob("*.policy"))])
    return {"ordinary": _worth(shipped.policies), "plans": {str(size): _cost(policies(size)) for size in SIZES}}


def table(result: dict[str, Any]) -> str:
    """Returns the figures for people."""
    lines = [f"{'event':>12} {'events':>8} {'sent':>8} {'could':>8} {'begun':>8} {'needed':>8}"]
    lines += [
        f"{name:>12} {row['all']:>8,} {row['sent']:>8,} {row['could']:>8,} {row['begun']:>8,} {row['needed']:>8,}"
        for name, row in result["ordinary"].items()
    ]
    lines.append(f"\n{'policies':>12} {'ms':>8} {'bytes':>8} {'rows':>8} {'keys':>8}")
    for size, row in result["plans"].items():
        lines.append(f"{size:>12} {row['ms']:>8,} {row['bytes']:>8,} {row['rows']:>8,} {row['keys']:>8,}")
    return "\n".join(lines)


def _worth(loaded: tuple[CompiledPolicy, ...]) -> dict[str, dict[str, int]]:
    plan = build_plan([PolicyTable(policy, 0) for policy in loaded]).plan
    first, counts = plan.rows[plan.first], Counter[tuple[str, str]]()
    gate, engine = Gate(plan), Machine()
    gate.memory.settle({})
    engine.load(loaded, 1)
    for batch in _events():
        event, before = batch.event(0), engine.stats()["fired"]
        engine.feed(batch)
        if event.type.code in ALWAYS:
            continue
        found, sent = candidates(plan, facts_of(event)), gate.passes(event)
        for name in (event.type.name, "together"):
            counts[name, "all"] += 1
            counts[name, "sent"] += sent
            counts[name, "could"] += found is None or found != 0
            counts[name, "begun"] += found is None or found & first != 0
            counts[name, "needed"] += engine.stats()["fired"] - before
    names = dict.fromkeys(name for name, _ in counts if name != "together")
    return {name: {what: counts[name, what] for what in COUNTED} for name in (*names, "together")}


def _events() -> Iterator[Batch]:
    """Yields the events of the recording, each in a batch of its own."""
    with open_events(RECORDING) as lines:
        for batch in EventReader(lines, RECORDING.name).batches():
            for at, row in enumerate(batch.events):
                if row[0] != LOST:
                    yield Batch(batch.seq, batch.first_id + at, batch.strings, batch.actors, (row,))


def _cost(loaded: list[CompiledPolicy]) -> dict[str, int]:
    tables, base = [], 0
    for policy in loaded:
        tables.append(PolicyTable(policy, base))
        base += len(policy.steps)
    began = time.process_time()
    built = build_plan(tables)
    took = time.process_time() - began
    return {
        "ms": round(took * 1000),
        "bytes": len(built.raw),
        "rows": len(built.plan.rows),
        "keys": len(built.plan.keys),
    }


if __name__ == "__main__":
    command.main(__doc__, run, table)
