"""The engine makes no cycles: what it lets go of is freed at once, and Python's collector has nothing to do."""

from __future__ import annotations

import gc

from execray.wire.frames import Batch, Decoder, encode
from policyd.engine.machine import Machine
from policyd.engine.partials import Limits
from tests.bench.engine.policies import policies
from tests.bench.engine.stream import Scene


def test_the_engine_leaves_nothing_to_collect() -> None:
    engine, decoder = Machine(Limits(max_partials=500)), Decoder()
    engine.load(policies(200, 40), 1)
    gc.collect()
    gc.disable()
    try:
        for batch in Scene().batches(20_000):
            for frame in decoder.feed(encode(batch)):
                assert isinstance(frame, Batch)
                engine.feed(frame)
        engine.advance_clock(engine.now_ns + 40_000_000_000)
        stats = engine.stats()
        assert min(stats[name] for name in ("advanced", "completed", "expired", "evicted", "replaced")) > 0
        engine.load([], 2)
        del batch, frame
        assert gc.collect() == 0
    finally:
        gc.enable()
