"""The language's sequence semantics written plainly: one list of partials, every test evaluated for every one of them.

What the engine is compared with. Events are looked at one by one, in the order of the language reference, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from execray.schema.catalog import LOST
from execray.schema.event import Event, ProcessId
from execray.wire.frames import Batch
from policyd.engine.conditions import condition
from policyd.program import CompiledPolicy, KeyKind

GRACE_NS = 2_000_000_000

#: What is compared: name of the policy, key, ids of the events of each step, count of each, tainted.
Found = tuple[str, ProcessId, tuple[tuple[int, ...], ...], tuple[int, ...], bool]


@dataclass(eq=False)
class Run:
    """A partial."""

    policy: CompiledPolicy
    key: ProcessId
    state: int
    begun: int
    first_ns: int
    last_ns: int
    losses: int
    ends_ns: int | None = None
    steps: list[int] = field(default_factory=list)
    events: list[list[Event]] = field(default_factory=list)
    bindings: dict[str, Event] = field(default_factory=dict)

    def add(self, step: int, event: Event) -> None:
        self.steps.append(step)
        self.events.append([event])
        alias = self.policy.steps[step].alias
        if alias is not None:
            self.bindings[alias] = event


class Reference:
    """Feeds batches to a set of policies, without bounds."""

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        self.policies = list(policies)
        self.runs: list[Run] = []
        self.now = 0
        self.losses = 0
        self.begun = 0

    def feed(self, batch: Batch) -> list[Found]:
        out: list[Found] = []
        for position, row in enumerate(batch.events):
            self.now = max(self.now, row[1])
            self.runs = [run for run in self.runs if not self._expired(run)]
            if row[0] == LOST:
                self.losses += 1
                continue
            event = batch.event(position)
            if event.type.name == "exit":
                for run in self.runs:
                    if run.policy.key is KeyKind.PROCESS and run.key == event.actor.id:
                        run.ends_ns = min(run.ends_ns or 1 << 63, self.now + GRACE_NS)
            for policy in self.policies:
                self._take(policy, event, out)
        return out

    def _expired(self, run: Run) -> bool:
        if run.policy.within_ns is not None and self.now - run.first_ns > run.policy.within_ns:
            return True
        if run.ends_ns is not None and self.now > run.ends_ns:
            return True
        windows = [run.policy.steps[t.step].within_ns for t in run.policy.states[run.state].transitions]
        return all(w is not None and self.now - run.last_ns > w for w in windows)

    def _take(self, policy: CompiledPolicy, event: Event, out: list[Found]) -> None:
        moved: list[tuple[Run, int, int]] = []
        repeated: list[Run] = []
        for state in range(len(policy.states) - 1, -1, -1):
            here = [r for r in self.runs if r.policy is policy and r.state == state and self._reaches(r, event)]
            here.sort(key=lambda run: -run.begun)
            for run in here:
                way = next((t for t in policy.states[state].transitions if self._passes(run, t.step, event)), None)
                if way is not None:
                    moved.append((run, way.step, way.target))
                    break
            else:
                for run in here:
                    step = next((s for s in policy.states[state].repeats if self._meets(run, s, event)), None)
                    if step is not None:
                        repeated.append(run)
                        self._repeat(run, step, event)
                        break
        for run, _, _ in moved:
            self.runs.remove(run)
        for run, step, target in moved:
            run.state, run.last_ns = target, self.now
            run.add(step, event)
            self._arrive(run, out)
        for way in policy.states[0].transitions:
            fresh = Run(policy, event.actor.id, way.target, self.begun, self.now, self.now, self.losses)
            if self._meets(fresh, way.step, event):
                occupied = [r for r in repeated if (r.key, r.state) == (fresh.key, fresh.state) and r in self.runs]
                if not occupied:
                    self.begun += 1
                    fresh.add(way.step, event)
                    self._arrive(fresh, out)
                break

    def _arrive(self, run: Run, out: list[Found]) -> None:
        if run.policy.states[run.state].accepting:
            ids = tuple(tuple(e.id for e in events) for events in run.events)
            counts = tuple(len(events) for events in run.events)
            out.append((run.policy.name, run.key, ids, counts, run.losses != self.losses))
            return
        place = (id(run.policy), run.key, run.state)
        self.runs = [r for r in self.runs if (id(r.policy), r.key, r.state) != place]
        self.runs.append(run)

    def _repeat(self, run: Run, step: int, event: Event) -> None:
        if step in run.steps:
            at = len(run.steps) - 1 - run.steps[::-1].index(step)
            run.events[at].append(event)
        else:
            run.add(step, event)

    def _reaches(self, run: Run, event: Event) -> bool:
        if run.policy.key is KeyKind.PROCESS:
            return run.key == event.actor.id
        actor = event.actor
        while actor.id != run.key:
            if actor.parent is None:
                return False
            actor = actor.parent
        return True

    def _passes(self, run: Run, step: int, event: Event) -> bool:
        window = run.policy.steps[step].within_ns
        return (window is None or self.now - run.last_ns <= window) and self._meets(run, step, event)

    def _meets(self, run: Run, step: int, event: Event) -> bool:
        wanted = run.policy.steps[step]
        return event.type.code in wanted.codes and condition(wanted.condition)(event, run.bindings)
