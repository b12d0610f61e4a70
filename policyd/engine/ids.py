"""What findings and losses are called: the same in every run that is fed the same events."""

from __future__ import annotations

import hashlib
from typing import Final

from execray.schema.event import Event, Value, text
from policyd.engine.keys import Key
from policyd.program import CompiledPolicy, KeyKind

_DIGITS: Final = 20


def finding_id(kind: str, policy: CompiledPolicy, key: Key, events: list[Event]) -> str:
    """Returns 20 hex digits from what a finding is about: the policy, the key, and the events that met its steps."""
    parts = [kind, policy.name, policy.hash]
    shown = [_shown(value) for value in key]
    if policy.key is KeyKind.FIELDS:
        parts.append(str(len(shown)))
        parts += shown
    else:
        parts.append("-".join(shown))
    parts += [f"{event.id}@{event.time_ns}" for event in events]
    return _digest(parts)


def loss_id(where: str, count: int, since_ns: int, row_id: int) -> str:
    """Returns 20 hex digits from what a loss is about."""
    return _digest(["loss", where, str(count), str(since_ns), str(row_id)])


def _shown(value: Value) -> str:
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, tuple):
        return "-".join([_shown(item) for item in value])
    return str(value)


def _digest(parts: list[str]) -> str:
    # A name, and no secret; saying so spares a kill that waits for it a tenth of what its match takes.
    found = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape"), usedforsecurity=False)
    return found.hexdigest()[:_DIGITS]
