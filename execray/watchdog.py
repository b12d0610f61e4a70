"""What a daemon tells its service manager while it runs: that its work goes on, and how it is.

The manager restarts a daemon whose signs of life stop (WatchdogSec= in its unit). So they must come from the work itself: one
that is sent by a timer says only that the timer works.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from execray.service import notify

STATUS_EVERY_S: Final = 5.0
_SIGNS: Final = 8  # within the patience of the manager: several may come late on a busy host before it restarts us


def patience_s() -> float:
    """How long the service manager waits for a sign of life, in seconds; 0 where it doesn't."""
    try:
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return 0.0
        return max(0, int(os.environ.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0


def sign_interval_s() -> float:
    """How often work has to give a sign of life to be in time; infinite where nobody waits for one."""
    return patience_s() / _SIGNS or float("inf")


class Watchdog:
    """Reports to the service manager until cancelled, where there is one."""

    def __init__(self, stuck: Callable[[], Awaitable[str]], status: Callable[[], str], log: logging.Logger) -> None:
        """stuck: returns "" when work was done since it last said so, else what there is no sign of. status: one line."""
        self.fed = 0
        self._stuck = stuck
        self._status = status
        self._log = log
        self._fed_at = time.monotonic()
        self._warned = False

    async def run(self) -> None:
        """Looks at the work several times within the manager's patience; returns at once where nobody listens."""
        if not os.environ.get("NOTIFY_SOCKET"):
            return
        every_s = min(sign_interval_s(), STATUS_EVERY_S)
        self._fed_at = time.monotonic()
        status_at = self._fed_at + every_s  # how it is shows when work was done for a moment
        while True:
            if patience_s():
                self._feed(await self._stuck())
            if time.monotonic() >= status_at:
                notify(f"STATUS={self._status()}", wait_s=0)
                status_at += STATUS_EVERY_S
            await asyncio.sleep(every_s)

    def _feed(self, why: str) -> None:
        # Never waits: a manager that is busy for a moment must not delay a kill, and the next sign comes soon.
        if not why and notify("WATCHDOG=1", wait_s=0):
            self.fed += 1
            self._fed_at = time.monotonic()
            self._warned = False
        elif not self._warned and time.monotonic() - self._fed_at > patience_s() / 2:
            self._warned = True
            self._log.error("no sign of life", extra={"kv": {"reason": why or "the service manager does not read"}})
