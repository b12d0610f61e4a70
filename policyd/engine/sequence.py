"""What one event does to the partials of one policy: advance, repeat, start, complete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from execray.schema.catalog import ACTOR_SLOT_OF
from execray.schema.event import Event
from policyd.engine.evidence import weight_of
from policyd.engine.outputs import Match, Output, StepDone, StepEvidence, finding_id
from policyd.engine.partials import Partial, PolicyRun, Scope, Store
from policyd.program import KeyKind, State, Transition

F = TypeVar("F", Match, StepDone)

_UID: Final = ACTOR_SLOT_OF["uid"]


@dataclass(slots=True)
class Moment:
    """An event in its surroundings.

    now_ns: the clock. scope: what waits in the actor's process. trees: what waits in the trees that the actor is in, its own
    first. losses: how many gaps there have been so far.
    """

    event: Event
    now_ns: int
    generation: int
    losses: int
    scope: Scope | None
    trees: list[Scope] = field(default_factory=list)
    weight: int = field(init=False)  # of the event as evidence: one event may begin many partials

    def __post_init__(self) -> None:
        self.weight = weight_of(self.event)


class Sequencer:
    """Moves partials. Keeps no state but the order in which they began."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.started = 0
        self.advanced = 0
        self.completed = 0

    def take(self, run: PolicyRun, fired: int, moment: Moment, outputs: list[Output]) -> None:
        """Does what the event means for one policy.

        fired: bit s set where the event meets the rows of step s, and something in reach awaits it. Advances and repeats
        are decided on the state before the event, from the last place to the first; a start comes after them.
        """
        moves: list[tuple[Partial, Transition]] = []
        repeats: list[tuple[Partial, int]] = []
        states = run.table.policy.states
        for state, partials in _waiting(run, moment):
            for partial in partials:
                transition = _transition(partial, states[state], fired, moment)
                if transition is not None:
                    moves.append((partial, transition))
                    break
            else:
                repeats += _repeat(partials, states[state], fired, moment)
        # All of them leave before the first arrives: what arrives then replaces only what stays.
        for partial, _ in moves:
            self._store.remove(partial)
        for partial, transition in moves:
            self.advanced += 1
            self._meet(partial, transition, moment, outputs)
        for partial, step in repeats:
            if partial.heap_index >= 0:  # not replaced or evicted by what has just arrived
                self._store.add_repeat(partial, step, moment.event)
        self._start(run, fired, moment, {partial for partial, _ in repeats}, outputs)

    def _start(self, run: PolicyRun, fired: int, moment: Moment, repeated: set[Partial], outputs: list[Output]) -> None:
        table = run.table
        event = moment.event
        for transition in table.policy.states[0].transitions:
            if fired >> transition.step & 1 and table.holds(transition.step, event, {}):
                break
        else:
            return
        key = event.actor.id
        if repeated:
            # `X ..` takes a further X as evidence: it must not begin anew in the same place, and so restart the window.
            scope = self._store.scopes[table.policy.key].get(key)
            if scope is not None and scope.places.get(run, {}).get(transition.target) in repeated:
                return
        uid = event.actor.slots[_UID]
        self.started += 1
        partial = Partial(run, key, uid if isinstance(uid, int) else -1, moment.now_ns, self.started, moment.losses)
        self._meet(partial, transition, moment, outputs)

    def _meet(self, partial: Partial, transition: Transition, moment: Moment, outputs: list[Output]) -> None:
        # The partial is not in the store here.
        table, event = partial.run.table, moment.event
        partial.meet(transition.step, transition.target, event, moment.weight, moment.now_ns)
        if not partial.doubtful:
            bindings = partial.bindings if table.refers[transition.step] else {}
            partial.doubtful = table.doubtful(transition.step, event, bindings)
        if table.reports_step[transition.step]:
            outputs.append(_finding(StepDone, partial, moment))
        if table.policy.states[transition.target].accepting:
            self.completed += 1
            outputs.append(_finding(Match, partial, moment))
        else:
            self._store.add(partial)


def _waiting(run: PolicyRun, moment: Moment) -> Iterable[tuple[int, list[Partial]]]:
    # The partials that the event may reach, from the last place to the first; in one place the latest begun first.
    if run.table.policy.key is KeyKind.PROCESS:
        places = moment.scope.places.get(run) if moment.scope is not None else None
        return [(state, [places[state]]) for state in sorted(places, reverse=True)] if places else ()
    found: dict[int, list[Partial]] = {}
    for tree in moment.trees:
        for state, partial in tree.places.get(run, {}).items():
            found.setdefault(state, []).append(partial)
    for partials in found.values():
        partials.sort(key=lambda partial: -partial.begun)
    return sorted(found.items(), reverse=True)


def _transition(partial: Partial, state: State, fired: int, moment: Moment) -> Transition | None:
    # The first in the text that the event meets.
    table = partial.run.table
    for transition in state.transitions:
        if not fired >> transition.step & 1:
            continue
        within_ns = table.policy.steps[transition.step].within_ns
        if within_ns is not None and moment.now_ns - partial.last_ns > within_ns:
            continue
        if _holds(partial, transition.step, moment):
            return transition
    return None


def _repeat(partials: list[Partial], state: State, fired: int, moment: Moment) -> list[tuple[Partial, int]]:
    # The first partial, if any, whose place takes the event as a repeat, with the repeated step.
    steps = [step for step in state.repeats if fired >> step & 1]
    for partial in partials:
        for step in steps:
            if _holds(partial, step, moment):
                return [(partial, step)]
    return []


def _holds(partial: Partial, step: int, moment: Moment) -> bool:
    table = partial.run.table
    if table.plans[step, moment.event.type.code].residual is None:
        return True
    return table.holds(step, moment.event, partial.bindings)


def _finding(kind: type[F], partial: Partial, moment: Moment) -> F:
    run = partial.run
    policy, bindings = run.table.policy, partial.bindings
    trail = tuple(StepEvidence(policy.steps[t.step], t.step, tuple(t.events), t.count) for t in partial.trail)
    met = [t.events[0] for t in partial.trail if t.met]
    return kind(
        policy=policy,
        generation=moment.generation,
        key=partial.key,
        actor=moment.event.actor,
        event=moment.event,
        trail=trail,
        bindings=bindings,
        started_ns=partial.started_ns,
        time_ns=moment.now_ns,
        tainted=partial.losses_before != moment.losses,
        degraded=partial.evicted_before != run.evicted,
        partial_evidence=partial.doubtful or run.table.handlers_doubtful(moment.event, bindings),
        id=finding_id(kind.__name__, policy, partial.key, met),
    )
