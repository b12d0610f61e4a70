"""For scale: another engine on the same machine, in an environment of its own.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install eql
    python -m tests.bench.engine --peer /tmp/peer/bin/python

The PyPI package eql is under the AGPL: nothing of ours depends on it or imports it, but for `peer_eql.py`, which only that
other interpreter runs.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from execray.schema.event import text
from tests.bench.engine.stream import Scene

COUNTS = (1, 10, 100)
_EVENTS = 20_000
_TIMEOUT_S = 600


def run(python: Path) -> dict[str, int]:
    """Returns events per second by the number of two-step sequences. python: the interpreter that has eql."""
    lines = []
    for batch in Scene().batches(_EVENTS):
        for position in range(len(batch.events)):
            event = batch.event(position)
            facts: dict[str, Any] = {"event": event.type.name, "pid": event.actor.id[0], "time_ns": event.time_ns}
            for name in ("path", "dst.port"):
                if name in event.type.by_name:
                    value = event.get(name)
                    facts[name.replace(".", "_")] = text(value) if isinstance(value, bytes) else value
            lines.append(json.dumps(facts))
    done = subprocess.run(
        [python, Path(__file__).with_name("peer_eql.py"), *map(str, COUNTS)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_S,
    )
    return {count: int(rate) for count, rate in json.loads(done.stdout).items()}


def table(rates: dict[str, int]) -> str:
    """Returns the figures for people."""
    return "\n".join(["eql, two-step sequences   events/s", *(f"{n:>23} {rate:>10,}" for n, rate in rates.items())])
