"""The engine alone, from the bytes of the socket to outputs, on one core: what policies cost, and what busy ones do.

Each engine takes the same stream in turn, A B C A B C, part by part; nothing in it comes twice, so that a tenth of the paths is
new to all of them in each part. Times are of the processor; the figures are medians over the parts.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from execray.memory import Collector
from execray.wire.frames import Batch, Decoder, encode
from policyd.engine.machine import Machine, is_compiled
from tests.bench.engine.policies import policies
from tests.bench.engine.stream import Scene

ROUNDS = 9
EVENTS = 30_000  # of a part
SMALLER_ROUNDS = 5
SMALLER_EVENTS = 10_000
_WARM_EVENTS = 100_000
_READ_BYTES = 65_536
#: name -> (policies, how many of the whole set are busy)
SETS = {"10": (10, 0), "1,000": (1000, 0), "20 of 1,000 busy": (1000, 20), "200 of 1,000 busy": (1000, 200)}


@dataclass
class _Run:
    engine: Machine
    collector: Collector = field(default_factory=Collector)
    rates: list[float] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)

    def take(self, chunks: list[bytes]) -> tuple[int, float]:
        decoder, feed, events = Decoder(), self.engine.feed, 0
        start = time.process_time()
        for chunk in chunks:
            for frame in decoder.feed(chunk):
                assert isinstance(frame, Batch)
                events += len(frame.events)
                feed(frame)
        self.collector.look(events)  # as policyd does each second
        return events, time.process_time() - start

    def share(self, name: str) -> float:
        """How many times something happened for each event, since the caches were warm."""
        after = self.engine.stats()
        return (after[name] - self.before[name]) / (after["events"] - self.before["events"])


def _part(scene: Scene, events: int) -> list[bytes]:
    whole = b"".join(encode(batch) for batch in scene.batches(events))
    return [whole[at : at + _READ_BYTES] for at in range(0, len(whole), _READ_BYTES)]


def run(rounds: int = SMALLER_ROUNDS, events: int = SMALLER_EVENTS) -> dict[str, Any]:
    """Measures every set. The defaults are for `make bench`."""
    scene = Scene()
    runs: dict[str, _Run] = {}
    warm = _part(scene, _WARM_EVENTS)
    for name, (count, busy) in SETS.items():
        runs[name] = _Run(Machine())
        runs[name].engine.load(policies(count, busy), 1)
    Collector().start()
    for one in runs.values():
        one.take(warm)
        one.before = one.engine.stats()
    for _ in range(rounds):
        chunks = _part(scene, events)
        for one in runs.values():
            count, seconds = one.take(chunks)
            one.rates.append(count / seconds)
            assert one.engine.stats()["malformed"] == 0
    return {"compiled": is_compiled(), "sets": {name: _figures(one) for name, one in runs.items()}}


def _figures(one: _Run) -> dict[str, Any]:
    return {
        "events_per_s": round(statistics.median(one.rates)),
        "ns_per_event": round(1e9 / statistics.median(one.rates)),
        "best": round(max(one.rates)),
        "worst": round(min(one.rates)),
        "new_values": round(one.share("row_cache_misses"), 4),
        "fired": round(one.share("fired"), 4),
        "started": round(one.share("started"), 4),
        "advanced": round(one.share("advanced"), 4),
        "evicted": round(one.share("evicted"), 4),
        "partials": one.engine.stats()["partials"],
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = [
        f"the engine {'is compiled' if result['compiled'] else 'runs as Python'}",
        "policies           events/s  ns/event   best/worst  each event: fired  started  advanced  evicted  partials",
    ]
    sets = result["sets"]
    for name, f in sets.items():
        lines.append(
            f"{name:17} {f['events_per_s']:>9,} {f['ns_per_event']:>9,} {f['best'] / f['worst']:>12.2f}"
            f" {f['fired']:>18.4f} {f['started']:>8.3f} {f['advanced']:>9.4f} {f['evicted']:>8.3f} {f['partials']:>9,}"
        )
    few, many, busy, busier = (f["ns_per_event"] for f in sets.values())
    lines.append(
        f"1,000 policies cost {many / few:.2f} times as much as 10; 200 busy ones {busier / busy:.2f} times as much as 20"
    )
    return "\n".join(lines)
