"""Every alert to every sink: the file first and surely, the others each at their own pace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Final, Protocol

from policyd.sinks.base import Alert, Sink, SinkStats
from policyd.sinks.jsonl import AlertFile

MAX_WAITING: Final = 256  # alerts one slow sink may be behind


class Outlet(Protocol):
    """A way to a sink that may be slow or stuck, and holds up nobody."""

    @property
    def name(self) -> str:
        """What `status` and the configuration call it."""
        ...

    def put(self, alert: Alert) -> bool:
        """Queues an alert; returns False for one that doesn't fit, which is counted as dropped."""
        ...

    def close(self, timeout_s: float) -> None:
        """Delivers what is queued, for as long as that; what is left then counts as dropped."""
        ...

    def counts(self) -> dict[str, object]:
        """Returns alerts written, failed and dropped, and the last error."""
        ...


class Lane:
    """A sink with its own thread and bounded queue, so that a reader who stops reading stops nobody else."""

    def __init__(self, sink: Sink, log: logging.Logger, max_waiting: int = MAX_WAITING) -> None:
        self.sink = sink
        self.stats = SinkStats()
        self._log = log
        self._queue: queue.Queue[Alert | None] = queue.Queue(max_waiting)
        # A daemon thread: one that is stuck in write(2) must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The sink's."""
        return self.sink.name

    def put(self, alert: Alert) -> bool:
        """Queues an alert, as Outlet says."""
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self.stats.dropped += 1
            return False
        return True

    def counts(self) -> dict[str, object]:
        """Returns the sink's counts."""
        return self.stats.to_json()

    def close(self, timeout_s: float) -> None:
        """Delivers what is queued and closes the sink, as Outlet says; one that is stuck stays open."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):  # stuck: the join below gives up, and the count says how much was left
            self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.stats.dropped += self._queue.qsize()
        else:
            self.sink.close()

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            try:
                self.sink.write(alert)
            except OSError as error:
                if not self.stats.failed:
                    self._log.error("alert sink failed", extra={"kv": {"sink": self.sink.name, "reason": error}})
                self.stats.failed += 1
                self.stats.last_error = str(error)
            else:
                self.stats.written += 1


class Fanout:
    """All configured sinks; none before open()."""

    def __init__(self, log: logging.Logger) -> None:
        self.file: AlertFile | None = None
        self._lanes: list[Outlet] = []
        self._log = log

    def open(self, file: AlertFile | None, others: Sequence[Sink], plugins: Sequence[Outlet] = ()) -> None:
        """Takes the sinks, and starts a thread for each but the file. plugins: sinks that have their own."""
        self.file = file
        self._lanes = [*(Lane(sink, self._log) for sink in others), *plugins]

    async def write(self, alerts: Sequence[Alert]) -> None:
        """Queues alerts for every other sink, and returns when the file has them on disk or refused them.

        A refusal is counted and logged, not raised: holding events back for a full disk would blind the sensor.
        """
        for lane in self._lanes:
            for alert in alerts:
                lane.put(alert)
        if self.file is not None:
            try:
                await asyncio.to_thread(self.file.write_all, alerts)
            except OSError as error:
                waiting = self.file.unwritten
                self._log.error("alert file refused", extra={"kv": {"reason": error, "waiting": waiting}})

    def holds(self, alert_id: str) -> bool:
        """Whether the file has an alert of that id."""
        return self.file is not None and self.file.holds(alert_id)

    def status(self) -> dict[str, object]:
        """Returns the counts of each sink by name."""
        out: dict[str, object] = {lane.name: lane.counts() for lane in self._lanes}
        if self.file is not None:
            rotations, unwritten = self.file.rotations, self.file.unwritten
            out[self.file.name] = {**self.file.stats.to_json(), "rotations": rotations, "unwritten": unwritten}
        return out

    async def close(self, timeout_s: float = 2.0) -> None:
        """Delivers what is queued, within that time for each sink, and closes all."""
        await asyncio.gather(*(asyncio.to_thread(lane.close, timeout_s) for lane in self._lanes))
        if self.file is not None:
            self.file.close()
