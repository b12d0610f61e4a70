"""What the engine returns: matches, steps met on the way, and gaps in what it was shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from execray.schema.event import Actor, Event
from execray.schema.records import compared
from policyd.engine.conditions import condition
from policyd.engine.keys import Key
from policyd.program import CompiledPolicy, Exemption, Handler, Step


@compared(frozen=True, slots=True)
class StepEvidence:
    """The events behind one step of a finding.

    events: the one that met the step first, then those repeats of it that were kept. count: all of them, kept or not.
    Of a step that counts: the first and the last of the events that were counted, as far as kept, and how many that were, or
    how many distinct values.
    """

    step: Step
    step_index: int
    events: tuple[Event, ...]
    count: int


@compared(frozen=True, slots=True)
class Finding:
    """What Match, Excepted and StepDone have in common.

    key: what its events share: (pid, start_ns) of the process, or of the root of the tree; or the values of the last step's
    key fields. trail: the evidence in the order in which the steps were met. bindings: the events by their steps' aliases.
    started_ns and time_ns: on the engine's clock (CLOCK_BOOTTIME). tainted: the sensor lost events since it began. degraded:
    partials of this policy were evicted meanwhile. partial_evidence: a value that decided was cut off or unreadable; never to
    be acted on. id: the same in every run that is fed the same events.
    """

    policy: CompiledPolicy
    generation: int
    key: Key
    actor: Actor
    event: Event
    trail: tuple[StepEvidence, ...]
    bindings: Mapping[str, Event]
    started_ns: int
    time_ns: int
    tainted: bool
    degraded: bool
    partial_evidence: bool
    id: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The blocks that the sequence went through, in order."""
        return tuple(dict.fromkeys(label for evidence in self.trail for label in evidence.step.labels))


@compared(frozen=True, slots=True)
class Match(Finding):
    """A policy's sequence is complete."""


@compared(frozen=True, slots=True)
class Excepted(Finding):
    """A match that an exception of the policy held back; the sequence waits on for another event to complete it."""

    exemption: Exemption


@compared(frozen=True, slots=True)
class StepDone(Finding):
    """A step was met that the policy has an `on step` handler for: the last of the trail."""

    @property
    def step(self) -> Step:
        """The step."""
        return self.trail[-1].step


@compared(frozen=True, slots=True)
class SensorLoss:
    """Events that never came: count of them, dropped at `where` between since_ns and time_ns."""

    where: str
    count: int
    since_ns: int
    time_ns: int
    id: str


Output: TypeAlias = Match | Excepted | StepDone | SensorLoss


def handler_applies(handler: Handler, output: Output) -> bool:
    """Whether a handler of the finding's policy is to run for it: its step, its block, and its `if`.

    In the `if`, a field without an alias is one of the event that completed the match or met the step.
    """
    match output:
        case Match():
            if handler.step is not None:
                return False
        case StepDone():
            if handler.step is None or handler.step != output.step.alias:
                return False
        case SensorLoss() | Excepted():
            return False
    depth = len(handler.labels)
    if depth and all(evidence.step.labels[:depth] != handler.labels for evidence in output.trail):
        return False
    return handler.condition is None or condition(handler.condition)(output.event, output.bindings)
