"""When tracerd tells of what was lost while the ring had room, as where an interrupt finds its lock taken; and of a mistake."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from execray.schema.catalog import LOST
from execray.wire.frames import Batch
from tests.support.pace import patient
from tests.support.tracerds import loaded_tracerd
from tracerd import daemon as module
from tracerd.daemon import Tracerd


class Told:
    """What the subscriber would be sent, and what the kernel's counter says."""

    def __init__(self, made: Tracerd, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[tuple[str, int]] = []
        self.dropped = 0
        counters = made._sensor.counters
        monkeypatch.setattr(made._sensor, "counters", lambda: {**counters(), "DROPPED": self.dropped})
        monkeypatch.setattr(made._stream, "publish", self._batch)
        monkeypatch.setattr(made._stream, "heartbeat", self._heartbeat)

    def _batch(self, batch: Batch) -> None:
        self.frames += [("loss", row[3]) for row in batch.events if row[0] == LOST and row[2] == "ring"]

    def _heartbeat(self, _time_ns: int, stats: dict[str, Any]) -> None:
        self.frames.append(("heartbeat", stats["lost"]["ring"]))


async def test_a_loss_is_told_before_the_heartbeat_that_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded_tracerd() as made:
        told = Told(made, monkeypatch)
        monkeypatch.setattr(made, "_interval_s", 0.05)
        told.dropped = 3
        with suppress(TimeoutError):
            await asyncio.wait_for(made._beat_until(asyncio.Event()), 0.3)
        assert told.frames[:3] == [("loss", 3), ("heartbeat", 3), ("heartbeat", 3)]


def test_what_was_lost_since_the_last_heartbeat_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with loaded_tracerd() as made:
        told = Told(made, monkeypatch)
        told.dropped = 2
        made._drain_up()
        assert told.frames == [("loss", 2)]


async def test_an_error_while_reading_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop would log it, and go on with a sensor that looks alive and sends nothing."""

    def fails(_batch: Batch) -> None:
        raise ValueError("a mistake of ours")

    with loaded_tracerd() as made:
        monkeypatch.setattr(made, "_interval_s", 60.0)  # a heartbeat, which reads as well, is a task's
        ready = asyncio.Event()
        monkeypatch.setattr(module, "notify", lambda _state: ready.set())
        running = asyncio.create_task(made.run())
        try:
            async with asyncio.timeout(patient(20)):
                await ready.wait()
                monkeypatch.setattr(made._stream, "publish", fails)
                await (await asyncio.create_subprocess_exec("/bin/true")).wait()
                with pytest.raises(ExceptionGroup) as raised:
                    await running
            assert raised.group_contains(ValueError, match="a mistake of ours")
        finally:
            running.cancel()
