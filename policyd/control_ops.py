"""What policyd answers on its control socket: status, policies, reload, alerts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from execray.config import Config
from execray.control import Handler, argument
from execray.errors import OperatorError
from execray.service import Peer
from execray.version import VERSION
from execray.wire.control import Request
from policyd.alerts import place_text
from policyd.engine.machine import Machine
from policyd.program import CompiledPolicy, State
from policyd.respond import Responder
from policyd.sinks.base import Alert
from policyd.sinks.fanout import Fanout
from policyd.sinks.jsonl import id_of, read_newest_first
from policyd.store import PolicyStore
from policyd.stream_client import StreamClient
from policyd.writer import Followers

MAX_LISTED: Final = 1000
MAX_LAST: Final = 100
_ID: Final = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the operations are about."""

    machine: Machine
    store: PolicyStore
    stream: StreamClient
    responder: Responder
    fanout: Fanout
    followers: Followers


class ControlOps:
    """The operations, over the parts of a running daemon."""

    def __init__(
        self,
        parts: Parts,
        config: Config,
        *,
        reload: Callable[[], Awaitable[dict[str, Any]]],
        rate: Callable[[], float],
    ) -> None:
        """reload: loads the policies again and returns what the op answers. rate: events in a second, lately."""
        self._parts = parts
        self._config = config
        self._reload = reload
        self._rate = rate
        self._started = time.monotonic()

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the table for the control server."""
        return {
            "status": self._status,
            "policies": self._policies,
            "policy": self._policy,
            "reload": self._do_reload,
            "alerts.list": self._alerts_list,
            "alerts.show": self._alerts_show,
            "alerts.tail": self._alerts_tail,
        }

    async def _status(self, _request: Request, _peer: Peer) -> object:
        parts = self._parts
        stats, throttle, losses = parts.responder.stats, parts.responder.admission.throttle, parts.responder.losses
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "mode": self._config.mode,
            "policies": len(parts.store.policies),
            "generation": parts.store.generation,
            "rate": round(self._rate(), 1),
            "events": parts.stream.stats.events,
            "lost": dict(losses.total),
            "stream": parts.stream.status(),
            "engine": parts.machine.stats(),
            "alerts": {
                "matches": stats.matches,
                "raised": stats.raised,
                "suppressed": throttle.suppressed,
                "duplicates": stats.duplicates,
                "sensor_loss": stats.sensor_loss,
            },
            "kills": dict(stats.kills),
            "captures": dict(stats.captures),
            "notices": dict(parts.responder.notices.counts),
            "enforcer": dataclasses.asdict(parts.responder.enforcer.stats),
            "sinks": parts.fanout.status(),
            "followers": len(parts.followers),
            "sensor": parts.stream.link.stats,
        }

    async def _policies(self, _request: Request, _peer: Peer) -> object:
        found = [_summary(policy) for policy in self._parts.store.policies]
        return {"generation": self._parts.store.generation, "mode": self._config.mode, "policies": found}

    async def _policy(self, request: Request, _peer: Peer) -> object:
        name = argument(request, "name", str)
        policy = next((policy for policy in self._parts.store.policies if policy.name == name), None)
        if policy is None:
            raise OperatorError(f"no policy `{name}` is running", "see `execray-ctl policy list`")
        return _summary(policy) | {
            "source": self._parts.store.source_of(policy),
            "meta": _meta(policy),
            "steps": [_step(policy, index) for index in range(len(policy.steps))],
            "states": [_state(policy, state) for state in policy.states],
        }

    async def _do_reload(self, _request: Request, _peer: Peer) -> object:
        return await self._reload()

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
        async with contextlib.aclosing(self._parts.followers.follow(first[::-1])) as alerts:
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


def _summary(policy: CompiledPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "id": policy.meta.id,
        "severity": policy.meta.severity.name.lower(),
        "attack": list(policy.meta.attack),
        "response": policy.response.value,
        "key": policy.key.value,
        "within": None if policy.within_ns is None else _span(policy.within_ns),
        "steps": len(policy.steps),
        "file": policy.place.file,
        "line": policy.place.line,
        "hash": policy.hash,
    }


def _meta(policy: CompiledPolicy) -> dict[str, Any]:
    meta = policy.meta
    names = ("title", "description", "references", "author", "status", "falsepositives", "tags")
    return {name: value for name in names if (value := getattr(meta, name))}


def _step(policy: CompiledPolicy, index: int) -> dict[str, Any]:
    step = policy.steps[index]
    return {"text": step.text, "place": place_text(step.place), "alias": step.alias, "labels": list(step.labels)}


def _state(policy: CompiledPolicy, state: State) -> dict[str, Any]:
    moves = [{"step": policy.steps[move.step].text, "target": move.target} for move in state.transitions]
    return {"accepting": state.accepting, "transitions": moves, "repeats": list(state.repeats)}


def _span(span_ns: int) -> str:
    """Returns a time span as a policy writes it."""
    for unit, size in (
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
    ):
        if span_ns >= size and span_ns % size == 0:
            return f"{span_ns // size}{unit}"
    return f"{span_ns // 1_000_000}ms" if span_ns % 1_000_000 == 0 else f"{span_ns}ns"
