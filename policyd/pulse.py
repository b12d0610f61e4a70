"""Whether policyd's work goes on, for the service manager: read from the stream, fed to the engine, written."""

from __future__ import annotations

import time
from typing import Final

from policyd.stream_client import MISSED_HEARTBEATS, StreamClient
from policyd.writer import Writer

_LEAST_QUIET_S: Final = 0.05


class Pulse:
    """Asked again and again; each sign of work counts once."""

    def __init__(
        self, stream: StreamClient, writer: Writer, *, heartbeat_s: float, patience_s: float, outcome_s: float
    ) -> None:
        """heartbeat_s: how often tracerd speaks. patience_s: how long the service manager waits for a sign of life.

        outcome_s: the longest that an alert may wait for the outcome of its orders.
        """
        self._stream = stream
        self._writer = writer
        self._stuck_s = patience_s / 2 + outcome_s
        # A tracerd that says nothing for so long is away, though it is connected: it may hang, which is not our fault.
        self._quiet_s = max(_LEAST_QUIET_S, min(MISSED_HEARTBEATS * heartbeat_s, patience_s / 3))
        self._frames = self._turns = self._written = 0

    def missing(self) -> str:
        """Returns "" where work was done since it last said so, else what is stuck."""
        stream, writer = self._stream, self._writer
        if writer.busy_s > self._stuck_s:
            return f"the writer is busy with one alert since {writer.busy_s:.1f} s"
        frames, turns, written = stream.taken, stream.turns, writer.written
        if frames == self._frames and stream.feeding:
            # What was read waits for room behind the writer, which must then get on.
            alive = written != self._written
        elif frames == self._frames:
            away = not stream.link.connected or time.monotonic() - stream.link.frame_at > self._quiet_s
            alive = away and turns != self._turns
        else:
            alive = True
        if not alive:
            return "nothing was taken from the event stream"
        self._frames, self._turns, self._written = frames, turns, written
        return ""
