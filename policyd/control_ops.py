"""What policyd answers on its control socket: its status here, the rest in a module for each subject."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from execray.config import Config
from execray.control import Handler, ask, asked_mode
from execray.errors import PeerError
from execray.schema.catalog import EVENT_BY_CODE, EVENT_BY_NAME
from execray.service import Peer
from execray.version import VERSION
from execray.wire.control import Request
from policyd.confirmation import Confirmed
from policyd.control_alerts import AlertOps
from policyd.control_events import EventOps
from policyd.control_policies import PolicyOps
from policyd.effective import Host
from policyd.engine.machine import Machine, is_compiled
from policyd.plugins import Plugins
from policyd.privileges import may_kill
from policyd.reloading import Reloader
from policyd.respond import Responder
from policyd.sinks.fanout import Fanout
from policyd.store import PolicyStore
from policyd.stream_client import StreamClient
from policyd.taps import Taps
from policyd.writer import Followers

ENFORCER_TIMEOUT_S: Final = 0.5  # for its mode
CONFIRM_S: Final = 3.0  # until tracerd has taken what it was asked for; usually some milliseconds


@dataclass(frozen=True, slots=True)
class Parts:
    """What the operations are about."""

    machine: Machine
    store: PolicyStore
    stream: StreamClient
    responder: Responder
    fanout: Fanout
    followers: Followers
    plugins: Plugins
    taps: Taps
    gate: Callable[[], Mapping[str, object]]  # what status tells of the gate's plan
    inline: Callable[[], Mapping[str, object]]  # and of the rules by which the kernel kills


class ControlOps:
    """The operations, over the parts of a running daemon."""

    def __init__(
        self,
        parts: Parts,
        config: Config,
        *,
        reloader: Reloader,
        log: logging.Logger,
        rate: Callable[[], float],
    ) -> None:
        """rate: events in a second, lately."""
        self._parts = parts
        self._config = config
        self._policies = PolicyOps(parts.store, reloader, self._host, self._confirmed, log)
        self._alerts = AlertOps(config, parts.followers)
        self._events = EventOps(parts.taps, log)
        self._rate = rate
        self._log = log
        self._started = time.monotonic()

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the table for the control server."""
        return {
            "status": self._status,
            "mode": self._mode,
            **self._policies.handlers(),
            **self._alerts.handlers(),
            **self._events.handlers(),
        }

    async def _mode(self, request: Request, peer: Peer) -> object:
        mode = asked_mode(request, peer, self._log)
        self._parts.responder.host_mode = mode
        self._parts.stream.resubscribe()  # by which rules the kernel kills depends on it
        return {"mode": mode, "sensor": (await self._confirmed()).value}

    async def _confirmed(self) -> Confirmed:
        return await self._parts.stream.confirmation.wait(CONFIRM_S)

    async def _status(self, _request: Request, _peer: Peer) -> object:
        parts = self._parts
        stats, throttle, losses = parts.responder.stats, parts.responder.admission.throttle, parts.responder.losses
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "mode": parts.responder.host_mode,
            "policies": len(parts.store.policies),
            "disabled": len(parts.store.loaded) - len(parts.store.policies),
            "generation": parts.store.generation,
            "rate": round(self._rate(), 1),
            "events": parts.stream.stats.events,
            "lost": dict(losses.total),
            "stream": parts.stream.status(),
            "engine": parts.machine.stats() | {"compiled": is_compiled()},
            "alerts": {
                "matches": stats.matches,
                "excepted": stats.excepted,
                "raised": stats.raised,
                "suppressed": throttle.suppressed,
                "duplicates": stats.duplicates,
                "sensor_loss": stats.sensor_loss,
                "lag_ms": parts.responder.lag.to_json(),
            },
            "kills": dict(stats.kills),
            "captures": dict(stats.captures),
            "notices": dict(parts.responder.notices.counts),
            "enforcer": dataclasses.asdict(parts.responder.enforcer.stats),
            "sinks": parts.fanout.status(),
            "plugins": parts.plugins.status(),
            "followers": len(parts.followers),
            "tails": parts.taps.status(),
            "gate": parts.gate(),
            "inline": parts.inline(),
            "left_out": self._left_out(),
            "sensor": parts.stream.link.stats,
        }

    def _left_out(self) -> dict[str, object]:
        """What policies need and tracerd isn't asked for: exact paths past the bound, and events that it doesn't have."""
        needs, missing = self._parts.machine.needs(), self._parts.stream.missing
        events = {EVENT_BY_CODE[code].name: why for code, why in missing.items() if code in needs.codes}
        return {"paths": needs.left_out, "events": events}

    async def _host(self) -> Host:
        """Looks at what decides beside the policies what they do."""
        parts, limits = self._parts, self._config.enforcer
        hooks = parts.stream.link.stats.get("hooks")
        known = hooks.items() if isinstance(hooks, dict) else ()
        connected = parts.responder.enforcer.stats.connected
        return Host(
            mode=parts.responder.host_mode,
            enforcer=connected,
            enforcer_mode=await self._enforcer_mode() if connected else "",
            may_kill=may_kill(),
            kills_per_minute=min(limits.kills_per_minute, limits.kills_per_minute_per_policy),
            refused={
                EVENT_BY_NAME[name].code: str(hook["refused"])
                for name, hook in known
                if name in EVENT_BY_NAME and isinstance(hook, dict) and hook.get("refused")
            }
            | parts.stream.missing,
        )

    async def _enforcer_mode(self) -> str:
        """Asks the enforcer, whose mode has the last word. "" where it may not be asked, or has no time."""
        try:
            reply = await ask(self._config.control_socket("enforcer"), "status", ENFORCER_TIMEOUT_S)
        except (OSError, TimeoutError, PeerError):
            return ""
        found = reply.get("result")
        return str(found.get("mode", "")) if isinstance(found, dict) else ""
