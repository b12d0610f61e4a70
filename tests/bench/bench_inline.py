"""From the handler of a process's last call to its end, where the kernel itself kills.

    python -m tests.bench inline --json inline.json

Both ends are kernel times (CLOCK_BOOTTIME) in records of one sensor: that of the last call, taken before its rules are looked
at, and that of sched_process_exit. The call is an open of a file of the bench's own. The process is one of real time (chrt -f 1),
as in the overhead's bench, so that what is measured isn't who else wants the processor. `itself` is the same process sending
SIGKILL to itself, from the end of that call: what the kernel takes whoever kills, and nobody can be faster. Needs root.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from execray.gate.hashes import exact_key
from execray.gate.inline import InlinePlan, InlinePolicy, Part, Rule, TextTest
from execray.gate.plan import ALL_BITS, ROW_ALL, CodeTest, GatePlan
from execray.schema.catalog import EVENT_BY_NAME, Flag
from tests.bench import command
from tests.support.live import Live
from tracerd.inline import Limits

ROUNDS = 12
KILLS = 60  # in each round: a sensor may do 64 a minute
HOUR_NS = 3_600_000_000_000
_REAL_TIME = ("chrt", "-f", "1")
_OPEN, _KILL = (EVENT_BY_NAME[name].code for name in ("open", "kill"))
_TOUCH = "import os, sys; held = bytearray(16 << 20); held[::4096] = b'x' * 4096; "
_LAST = {"killed": "os.open(sys.argv[1], 0)", "itself": "os.kill(os.getpid(), 9)"}


def run() -> dict[str, Any]:
    """Returns for each kind of process p50, p99 and maximum in microseconds, and how many weren't killed."""
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder:
        decoy = Path(folder) / "decoy"
        decoy.write_text("x")
        python = [*_REAL_TIME, sys.executable, "-I", "-S", "-c"]
        kinds = {
            "small": [*_REAL_TIME, "/bin/cat", str(decoy)],
            "small, itself": [*_REAL_TIME, "/bin/sh", "-c", "kill -9 $$"],
            "16 MiB": [*python, _TOUCH + _LAST["killed"], str(decoy)],
            "16 MiB, itself": [*python, _TOUCH + _LAST["itself"]],
        }
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        missed = dict.fromkeys(kinds, 0)
        for turn in range(ROUNDS):
            kind = list(kinds)[turn % len(kinds)]
            with Live([], kills=Limits(64, 64, frozenset(), frozenset())) as live:
                if kind.endswith("itself"):
                    live.want(["kill"])
                else:
                    _load(live, decoy)
                for _ in range(KILLS):
                    took = _one(live, kinds[kind])
                    if took is None:
                        missed[kind] += 1
                    else:
                        found[kind].append(took)
    return {kind: {**_spread(values), "missed": missed[kind]} for kind, values in found.items()}


def _load(live: Live, decoy: Path) -> None:
    path = os.fsencode(decoy)
    gate = GatePlan((CodeTest(_OPEN, 0, 1, 2, 0, 0, 0, ROW_ALL),), frozenset(), (0, ALL_BITS, 1), {exact_key(path): 2})
    rule = Rule(0, 0, _OPEN, (), (TextTest(Part.EXACT, path),))
    live.sensor.want([_OPEN], False, plan=gate, inline=InlinePlan((InlinePolicy(1, 1),), (rule,)))
    live.sensor.inline.renew(HOUR_NS)


def _one(live: Live, argv: list[str]) -> float | None:
    live.drain()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as child:
        # as tracerd does, the reader waits for records: what waking it takes is part of the time
        events = [event for event in live.collect(child.pid) if event.actor.id[0] == child.pid]
        if child.wait(20) != -signal.SIGKILL:
            return None
    (last,) = [event.time_ns for event in events if event.flags & Flag.KILLED or event.type.code == _KILL]
    return (events[-1].time_ns - last) / 1000


def _spread(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {"n": len(values)}
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cut[49], 1), "p99": round(cut[98], 1), "max": round(max(values), 1), "n": len(values)}


def table(found: dict[str, Any]) -> str:
    """Returns the figures as text."""
    lines = [f"{'last call to exit, us':<22}{'p50':>9}{'p99':>9}{'max':>9}{'n':>6}{'lived':>7}"]
    for kind, figures in found.items():
        cells = "".join(f"{figures.get(name, '-'):>9}" for name in ("p50", "p99", "max"))
        lines.append(f"{kind:<22}{cells}{figures['n']:>6}{figures['missed']:>7}")
    lines.append("asked for: p99 under 100 us, of a single thread with up to 16 MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
