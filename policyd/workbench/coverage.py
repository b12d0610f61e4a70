"""What of a policy its vectors have reached: steps, ways from place to place, and exceptions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from policyd.engine.outputs import Excepted, Match, Output, StepDone
from policyd.program import CompiledPolicy, Handler, Log

#: Begins the aliases that are given to steps without one; no author can write it.
_HIDDEN = "\x00"


@dataclass(slots=True)
class Reached:
    """What was reached of one policy: step numbers, whether it matched, and exceptions by their place."""

    policy: CompiledPolicy
    steps: set[int] = field(default_factory=set)
    exemptions: set[int] = field(default_factory=set)
    matched: bool = False

    def add(self, output: Output) -> None:
        """Takes in one output of the engine."""
        match output:
            case Match() | StepDone():
                self.steps |= {evidence.step_index for evidence in output.trail}
                self.matched |= isinstance(output, Match)
            case Excepted():
                self.steps |= {evidence.step_index for evidence in output.trail}
                self.exemptions |= {n for n, e in enumerate(self.policy.exemptions) if e == output.exemption}

    def missing(self) -> Iterator[str]:
        """Yields what no vector reached, in words."""
        steps = self.policy.steps
        untils = {until.step for until in self.policy.untils}
        for number, step in enumerate(steps):
            if number not in self.steps and number not in untils:
                where = f" in {' / '.join(step.labels)}" if step.labels else ""
                yield f"step {number + 1}{where} (line {step.place.line}): {step.text}"
        for number, exemption in enumerate(self.policy.exemptions):
            if number not in self.exemptions:
                yield f"exception {exemption.reason or number + 1} (line {exemption.place.line})"
        if not self.matched:
            yield "no match of it"

    @property
    def total(self) -> int:
        """How much there is to reach."""
        return len(self.policy.steps) - len(self.policy.untils) + len(self.policy.exemptions) + 1

    @property
    def count(self) -> int:
        """How much of it was reached."""
        return self.total - sum(1 for _ in self.missing())


def observed(policy: CompiledPolicy) -> CompiledPolicy:
    """Returns the policy with every step reported when it is met, so that one that never gets further counts as reached.

    It matches as it did: only names are given, and a handler to each that asks for nothing but to be told.
    """
    steps = [
        step if step.alias else dataclasses.replace(step, alias=f"{_HIDDEN}{number}")
        for number, step in enumerate(policy.steps)
    ]
    told = {handler.step for handler in policy.handlers}
    aliases = dict.fromkeys(step.alias for step in steps if step.alias not in told)
    handlers = (*policy.handlers, *(Handler((Log(),), step=alias) for alias in aliases))
    return dataclasses.replace(policy, steps=tuple(steps), handlers=handlers)


def merged(parts: Iterable[Reached]) -> list[Reached]:
    """Adds up what several runs reached, by policy."""
    out: dict[str, Reached] = {}
    for part in parts:
        whole = out.setdefault(part.policy.name, Reached(part.policy))
        whole.steps |= part.steps
        whole.exemptions |= part.exemptions
        whole.matched |= part.matched
    return list(out.values())
