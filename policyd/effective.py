"""What a policy will really do on this host, and why: what it says, as far as the host and its state allow."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from execray.schema.catalog import EVENT_BY_CODE, FIRST_ADDED
from policyd.program import Alert, CompiledPolicy, Handler, Kill, Log, Notify, Response

#: Of an event of ours, and of one that a package adds.
_WORDS: Final = ("refused by the kernel", "not seen")


class Effect(enum.Enum):
    """The most that comes of a match, from nothing to a kill."""

    OFF = "off"  # disabled
    BLIND = "blind"  # the kernel refuses what it would have to see
    NONE = "none"  # no handler does anything
    LOG = "log"
    NOTIFY = "notify"
    ALERT = "alert"
    AUDIT = "audit"  # an alert that says what would have been killed
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Host:
    """What decides beside the policy."""

    mode: str = "audit"
    enforcer: bool = False  # is connected
    enforcer_mode: str = ""  # empty where it didn't say
    may_kill: bool = False  # policyd itself, in the enforcer's stead
    kills_per_minute: int = 30  # the smaller of both budgets
    refused: Mapping[int, str] = field(default_factory=dict)  # by event code, why the kernel refuses its hook


@dataclass(frozen=True, slots=True)
class Effective:
    """The answer. why: in words, the most important reason first."""

    effect: Effect
    why: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Returns what the control operations answer."""
        return {"response": self.effect.value, "why": list(self.why)}


def effective(policy: CompiledPolicy, host: Host, *, enabled: bool = True) -> Effective:
    """Returns what a match of the policy leads to as things are now."""
    if not enabled:
        return Effective(Effect.OFF, ("it is disabled",))
    if unseen := _unseen(policy, host.refused):
        return Effective(Effect.BLIND, tuple(unseen))
    kills = [handler for handler in policy.handlers if any(isinstance(action, Kill) for action in handler.actions)]
    return _kill(policy, host, kills) if kills else Effective(_mildest(policy), ("no handler kills",))


def _kill(policy: CompiledPolicy, host: Host, kills: Sequence[Handler]) -> Effective:
    if reasons := tuple(_audits(policy, host)):
        return Effective(Effect.AUDIT, reasons)
    if host.kills_per_minute == 0:
        return Effective(Effect.ALERT, ("the budget of kills is 0",))
    if not host.enforcer and not host.may_kill:
        return Effective(Effect.ALERT, ("no enforcer is connected, and policyd has no CAP_KILL",))
    by = "by the enforcer" if host.enforcer else "by policyd itself: no enforcer is connected"
    return Effective(Effect.KILL, (by, *_limits(kills)))


def _audits(policy: CompiledPolicy, host: Host) -> Iterator[str]:
    """Yields each reason for which nobody is killed by rights: all must go before one is."""
    if policy.response is not Response.ENFORCE:
        yield "the policy says `response audit`"
    if host.mode != "enforce":
        yield "the host's mode is audit"
    if host.enforcer and host.enforcer_mode == "audit":
        yield "the enforcer's mode is audit"


def _limits(kills: Sequence[Handler]) -> Iterator[str]:
    if all(handler.condition is not None for handler in kills):
        yield "only where the handler's `if` holds"
    if all(handler.labels for handler in kills):
        yield "only by way of the blocks that its handlers stand in"


def _mildest(policy: CompiledPolicy) -> Effect:
    actions = [action for handler in policy.handlers for action in handler.actions]
    # Without `on match`, a match alerts.
    if all(handler.step is not None for handler in policy.handlers) or any(isinstance(a, Alert) for a in actions):
        return Effect.ALERT
    for kind, effect in ((Notify, Effect.NOTIFY), (Log, Effect.LOG)):
        if any(isinstance(action, kind) for action in actions):
            return effect
    return Effect.NONE


def _unseen(policy: CompiledPolicy, refused: Mapping[int, str]) -> list[str]:
    """Returns why no match can come about; empty where some way through the policy needs nothing that is refused."""
    if not refused.keys() & policy.codes:
        return []
    lost = {index for index, step in enumerate(policy.steps) if refused.keys() >= set(step.codes)}
    reached, todo = {0}, [0]
    while todo:
        for move in policy.states[todo.pop()].transitions:
            if move.step not in lost and move.target not in reached:
                reached.add(move.target)
                todo.append(move.target)
    if any(policy.states[state].accepting for state in reached):
        return []
    codes = sorted({code for step in lost for code in policy.steps[step].codes})
    return [f"`{EVENT_BY_CODE[code].name}` is {_WORDS[code >= FIRST_ADDED]}: {refused[code]}" for code in codes]
