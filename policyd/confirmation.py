"""What tracerd has taken of what was asked of it: a subscription is in force once tracerd has said so."""

from __future__ import annotations

import asyncio
import enum

from execray.errors import PeerError


class Confirmed(enum.Enum):
    """What is known of a subscription."""

    TAKEN = "taken"  # the kernel goes by it
    LATE = "late"  # not within the bound
    AWAY = "away"  # there is no tracerd; the next one gets it first of all


class Confirmation:
    """Counts subscriptions, and those that tracerd has taken: over all connections, of which it counts one at a time."""

    def __init__(self) -> None:
        self.connected = False
        self._asked = 0
        self._taken = 0
        self._before = 0  # the connection at hand
        self._moved = asyncio.Event()

    def begin(self) -> None:
        """A connection begins. Each begins with a subscription."""
        self._before = self._asked
        self.connected = True

    def end(self) -> None:
        """The connection is gone."""
        self.connected = False
        self._moved.set()

    def asked(self) -> None:
        """A subscription was sent over the connection."""
        self._asked += 1

    def taken(self, count: int) -> None:
        """tracerd has taken so many subscriptions of the connection. Raises PeerError for more than were sent."""
        if not 0 < count <= self._asked - self._before:
            raise PeerError(f"takes {count} subscriptions of {self._asked - self._before}")
        self._taken = self._before + count
        self._moved.set()

    async def wait(self, timeout_s: float) -> Confirmed:
        """Waits until all that was asked by now is taken, while there is a connection."""
        due = self._asked
        try:
            async with asyncio.timeout(timeout_s):
                while self.connected and self._taken < due:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return Confirmed.LATE
        return Confirmed.TAKEN if self.connected else Confirmed.AWAY
