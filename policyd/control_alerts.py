"""The alerts on file, and those that come, over policyd's control socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from execray.config import Config
from execray.control import Handler, argument
from execray.errors import OperatorError
from execray.service import Peer
from execray.wire.control import Request
from policyd.sinks.base import Alert
from policyd.sinks.jsonl import id_of, read_newest_first
from policyd.writer import Followers

MAX_LISTED: Final = 1000
MAX_LAST: Final = 100
_ID: Final = re.compile(r"[0-9a-f]{4,64}")


class AlertOps:
    """`alerts.*`."""

    def __init__(self, config: Config, followers: Followers) -> None:
        self._config = config
        self._followers = followers

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the table for the control server."""
        return {"alerts.list": self._alerts_list, "alerts.show": self._alerts_show, "alerts.tail": self._alerts_tail}

    async def _alerts_list(self, request: Request, _peer: Peer) -> object:
        limit = argument(request, "limit", int, 50)
        since = argument(request, "since", str, "")
        if not 1 <= limit <= MAX_LISTED:
            raise OperatorError(f"`limit` is {limit}", f"it must be from 1 to {MAX_LISTED}")
        oldest = _instant(since) if since else None
        found = await asyncio.to_thread(self._newest, limit, oldest)
        return {"alerts": [_short(alert) for alert in reversed(found)]}

    async def _alerts_show(self, request: Request, _peer: Peer) -> object:
        prefix = argument(request, "id", str)
        if not _ID.fullmatch(prefix):
            raise OperatorError(
                "an alert's id is written in hex digits, at least four", "see `execray-ctl alerts list`"
            )
        found = await asyncio.to_thread(self._with_prefix, prefix)
        if not found:
            raise OperatorError(f"no alert {prefix} on file", "see `execray-ctl alerts list`")
        if len(found) > 1:
            raise OperatorError(f"more than one alert begins with {prefix}", f"such as {', '.join(found)}")
        return next(iter(found.values()))

    async def _alerts_tail(self, request: Request, _peer: Peer) -> AsyncGenerator[object, None]:
        last = argument(request, "last", int, 0)
        if not 0 <= last <= MAX_LAST:
            raise OperatorError(f"`last` is {last}", f"it must be from 0 to {MAX_LAST}")
        first = await asyncio.to_thread(self._newest, last, None) if last else []
        async with contextlib.aclosing(self._followers.follow(first[::-1])) as alerts:
            async for alert in alerts:
                yield alert

    def _newest(self, limit: int, oldest: datetime | None) -> list[dict[str, Any]]:
        found = []
        for alert in self._read(limit):
            if oldest is not None and _instant(str(alert.get("@timestamp"))) < oldest:
                break
            found.append(alert)
        return found

    def _with_prefix(self, prefix: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for alert in self._read(MAX_LISTED, f'"{prefix}'.encode("ascii")):
            if id_of(alert).startswith(prefix):
                found.setdefault(id_of(alert), alert)
            if len(found) > 4:
                break
        return found

    def _read(self, limit: int, containing: bytes = b"") -> Iterator[dict[str, Any]]:
        keep = self._config.policyd.alerts_keep
        try:
            yield from read_newest_first(self._config.alerts_file, keep, limit, containing)
        except OSError as error:
            raise OperatorError(f"can't read the alert file: {error}", "see the daemon's log") from error


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise OperatorError(f"{text[:64]!r} is no time", "write it as 2026-01-31T12:00:00+00:00") from error


def _short(alert: Alert) -> dict[str, Any]:
    """Returns an alert without its evidence: a thousand of them fit into one reply."""
    own = alert.get("execray", {})
    process = alert.get("process", {})
    keep = ("alert_id", "kind", "severity", "policy", "suppressed", "action", "lost")
    short: dict[str, Any] = {name: alert[name] for name in ("@timestamp", "message", "rule") if name in alert}
    if process:
        short["process"] = {name: process[name] for name in ("name", "pid", "executable") if name in process}
    return short | {"execray": {name: own[name] for name in keep if name in own}}
