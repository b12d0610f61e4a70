"""The policies, over policyd's control socket: what runs, and what it would do."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from execray.control import Handler, argument, require_root
from execray.errors import OperatorError
from execray.service import Peer
from execray.wire.control import Request
from policyd.alerts import place_text
from policyd.confirmation import Confirmed
from policyd.effective import Host, effective
from policyd.program import CompiledPolicy, State, span_text
from policyd.reloading import Reloader
from policyd.store import PolicyStore


class PolicyOps:
    """`policies`, `policy`, `reload` and `disabled`."""

    def __init__(
        self,
        store: PolicyStore,
        reloader: Reloader,
        host: Callable[[], Awaitable[Host]],
        confirmed: Callable[[], Awaitable[Confirmed]],
        log: logging.Logger,
    ) -> None:
        """host: what decides beside the policies, as it is now. confirmed: whether the sensor has taken them, as it is soon."""
        self._store = store
        self._reloader = reloader
        self._host = host
        self._confirmed = confirmed
        self._log = log

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the table for the control server."""
        return {
            "policies": self._policies,
            "policy": self._policy,
            "reload": self._reload,
            "disabled": self._disabled,
        }

    async def _policies(self, _request: Request, _peer: Peer) -> object:
        host = await self._host()
        found = [self._one(policy, host) for policy in self._store.loaded]
        return {"generation": self._store.generation, "mode": host.mode, "policies": found}

    def _one(self, policy: CompiledPolicy, host: Host) -> dict[str, Any]:
        enabled = policy.name not in self._store.disabled
        answer = effective(policy, host, enabled=enabled)
        return _summary(policy) | {"enabled": enabled, "effective": answer.to_json()}

    async def _policy(self, request: Request, _peer: Peer) -> object:
        name = argument(request, "name", str)
        policy = next((policy for policy in self._store.loaded if policy.name == name), None)
        if policy is None:
            raise OperatorError(f"no policy `{name}` is loaded", "see `execray-ctl policy list`")
        return self._one(policy, await self._host()) | {
            "source": self._store.source_of(policy),
            "meta": _meta(policy),
            "steps": [_step(policy, index) for index in range(len(policy.steps))],
            "states": [_state(policy, state) for state in policy.states],
        }

    async def _reload(self, request: Request, peer: Peer) -> object:
        if argument(request, "dry_run", bool, False):
            return await self._reloader.preview()
        self._log.info("reload asked for", extra={"kv": {"uid": peer.uid, "peer": peer.pid}})
        report = await self._reloader.reload()
        return report | {"sensor": (await self._confirmed()).value} if report["ok"] else report

    async def _disabled(self, request: Request, peer: Peer) -> object:
        """Runs all policies but these. A policy that is switched off detects nothing: that is root's to decide."""
        names = argument(request, "names", list)
        if not all(isinstance(name, str) for name in names):
            raise OperatorError("`names` holds something that is no name", "see docs/wire.md")
        require_root(peer, request.op)
        kv = {"names": ",".join(names), "uid": peer.uid, "peer": peer.pid}
        self._log.warning("policies disabled", extra={"kv": kv})
        report = await self._reloader.disable(frozenset(names))
        return report | {"sensor": (await self._confirmed()).value}


def _summary(policy: CompiledPolicy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "id": policy.meta.id,
        "severity": policy.meta.severity.name.lower(),
        "attack": list(policy.meta.attack),
        "response": policy.response.value,
        "key": policy.key.value,
        "within": None if policy.within_ns is None else span_text(policy.within_ns),
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
