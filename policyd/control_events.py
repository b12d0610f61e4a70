"""Live events over policyd's control socket."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Final, TypeVar

from execray.control import Handler, argument, require_root
from execray.errors import OperatorError
from execray.service import Peer
from execray.wire.control import Request
from policyd.tap_filter import Spec, codes_of, usual
from policyd.taps import Taps

T = TypeVar("T")

_KEYS: Final = frozenset({"types", "pid", "uid", "exe", "name", "path", "content", "ancestors"})


class EventOps:
    """`events`."""

    def __init__(self, taps: Taps, log: logging.Logger) -> None:
        self._taps = taps
        self._log = log

    def handlers(self) -> Mapping[str, Handler]:
        """Returns the table for the control server."""
        return {"events": self._events}

    async def _events(self, request: Request, peer: Peer) -> AsyncGenerator[object, None]:
        spec = _spec(request)
        content = argument(request, "content", bool, False)
        if content:
            require_root(peer, "events with content")  # what all processes write is more than the group is trusted with
        ancestors = argument(request, "ancestors", bool, True)
        kv = {"uid": peer.uid, "peer": peer.pid, "content": content}
        self._log.info("events followed", extra={"kv": kv})
        try:
            async with contextlib.aclosing(self._taps.follow(spec, content=content, ancestors=ancestors)) as lines:
                async for line in lines:
                    yield line
        finally:
            self._log.info("events no longer followed", extra={"kv": {"uid": peer.uid, "peer": peer.pid}})


def _spec(request: Request) -> Spec:
    """Raises OperatorError for arguments that mean nothing: a filter that is overlooked shows too much."""
    unknown = sorted(request.args.keys() - _KEYS)
    if unknown:
        raise OperatorError(f"`events` has no argument `{unknown[0][:64]}`", f"it has {', '.join(sorted(_KEYS))}")
    types = argument(request, "types", list, [])
    if not all(isinstance(name, str) for name in types):
        raise OperatorError("`types` holds something that is no name", "see docs/wire.md")
    return Spec(
        codes=codes_of(types) if types else usual(),
        pid=_given(request, "pid", int),
        uid=_given(request, "uid", int),
        exe=_given(request, "exe", str),
        name=_given(request, "name", str),
        path=_given(request, "path", str),
    )


def _given(request: Request, name: str, kind: type[T]) -> T | None:
    return argument(request, name, kind) if request.args.get(name) is not None else None
