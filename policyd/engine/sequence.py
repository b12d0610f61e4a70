"""What one event does to the partials of one policy: cancel, advance, count, repeat, start, complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from execray.schema.event import Event
from policyd.engine.conditions import Bindings, read
from policyd.engine.evidence import Sighting
from policyd.engine.findings import excepted, match, step_done
from policyd.engine.keys import Key
from policyd.engine.moment import Moment
from policyd.engine.outputs import Output
from policyd.engine.partials import Partial, PolicyRun
from policyd.engine.scopes import Scope
from policyd.engine.starts import Begun, Cohort, Opened
from policyd.engine.store import Store
from policyd.engine.table import PolicyTable
from policyd.engine.tally import Counted, Gaps
from policyd.program import Exemption, KeyKind, State, Transition

#: Partials in one place, with the steps of each that the event may meet, in the order in which they are tried: it takes one.
Candidates: TypeAlias = "list[tuple[Partial, int]]"

#: Who counted the event: the key, and the place in which it waited then.
CountedAt: TypeAlias = "list[tuple[Key, int]]"


class Move:
    """What an event does to a partial. exemption: it would complete a match, but for this. doubtful: that one can't be judged."""

    __slots__ = ("doubtful", "exemption", "partial", "transition")

    def __init__(
        self, partial: Partial, transition: Transition, exemption: Exemption | None = None, doubtful: bool = False
    ) -> None:
        self.partial = partial
        self.transition = transition
        self.exemption = exemption
        self.doubtful = doubtful


class Taken:
    """What the event was to partials that were there.

    decided: the first steps whose counts it completed. repeated: those to which it was one more of a repeated step.
    """

    __slots__ = ("counted", "decided", "repeated")

    def __init__(self, counted: CountedAt, decided: set[int], repeated: set[Partial]) -> None:
        self.counted = counted
        self.decided = decided
        self.repeated = repeated


class Sequencer:
    """Moves partials. Keeps no state but the order in which they began, and counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.started = 0
        self.advanced = 0
        self.completed = 0
        self.excepted = 0
        self.cancelled = 0
        self.ended = 0

    def take(self, run: PolicyRun, fired: int, moment: Moment, outputs: list[Output]) -> None:
        """Does what the event means for one policy.

        fired: bit s set where the event meets the rows of step s, and something in reach awaits it. Advances and repeats
        are decided on the state before the event, from the last place to the first; a start comes after them.
        """
        table = run.table
        reach = moment.reach(table, fired)
        if fired & table.until_steps:
            self._cancel(run, reach, moment)
        moves: list[Move] = []
        counted: CountedAt = []
        repeats: list[tuple[Partial, int]] = []
        decided: set[int] = set()  # first steps whose counts the event completes
        for state, candidates in _waiting(run, reach):
            if table.before[state] and _is_taken_before(table, state, fired, moment, decided):
                continue
            for partial, steps in candidates:
                took, transition = self._offer(partial, steps, moment, counted)
                if transition is not None:
                    moves.append(_move(partial, transition, moment.event))
                    if partial.is_counting:
                        decided.add(transition.step)
                if took:
                    break
            else:
                repeats += _repeat(candidates, table.states[state], moment)
        self._apply(moves, moment, outputs)
        for partial, step in repeats:
            if self._store.holds(partial):  # not replaced or evicted by what has just arrived
                self._store.add_repeat(partial, step, moment.event, moment.weight)
        self._start(run, fired, moment, Taken(counted, decided, {partial for partial, _ in repeats}), outputs)

    def begin(self, openings: Sequence[Opened], sighting: Sighting, now_ns: int, losses: int, doubtful: bool) -> None:
        """Begins sequences of policies that begin alike, by one event. doubtful: whether it met their first steps isn't sure."""
        for _, members, _ in openings:
            self.started += members.bit_count()
        self._store.begin(openings, Begun(sighting, now_ns, losses, self.started, doubtful))

    def begin_if(self, cohort: Cohort, first: int, moment: Moment) -> None:
        """The same for one cohort, where more than the rows decides. first: the bits of its first steps."""
        table = cohort.table
        assert table.plain is not None
        step = table.plain.step
        if table.holds(step, moment.event, {}):
            opened = (cohort, cohort.members_of(first), moment.start_key(table, step))
            doubtful = table.doubtful(step, moment.event, {})
            self.begin([opened], moment.sighting, moment.now_ns, moment.losses, doubtful)

    def _cancel(self, run: PolicyRun, reach: list[tuple[Scope, int]], moment: Moment) -> None:
        untils = run.table.untils
        for scope, fired in reach:
            for state, partial in [(state, partial) for state, held in scope.held(run) for partial in held]:
                doubtful = partial.doubtful
                if any(fired >> step & 1 and _ends(partial, step, moment) for step in untils[state]):
                    self._store.remove(partial)
                    self.cancelled += 1
                elif partial.doubtful is not doubtful:
                    self._store.settle(partial)

    def _offer(
        self, partial: Partial, fired: int, moment: Moment, counted: CountedAt
    ) -> tuple[bool, Transition | None]:
        """Offers the event to the steps that a partial waits for, in text order.

        Returns whether one takes it, and the one that is met by it. A count takes each of its events but is met by the last
        of them only: until then the event may meet a step behind it.
        """
        table, took = partial.run.table, False
        for transition in _accepting(table, table.states[partial.state], fired, moment, partial):
            took = True
            if self._count(partial, transition.step, moment, counted):
                return True, transition
        return took, None

    def _count(self, partial: Partial, step: int, moment: Moment, counted: CountedAt) -> bool:
        """Counts the event where the step is a count. Returns whether the step is met now."""
        table = partial.run.table
        times = table.policy.steps[step].times
        if times is None:
            return True
        counted.append((partial.key, partial.state))
        bindings = partial.bindings
        value = read(times.distinct, moment.event, bindings) if times.distinct is not None else None
        doubtful = table.doubtful(step, moment.event, bindings)
        gaps = Gaps(moment.losses, partial.run.evicted)
        return self._store.count(
            partial, step, Counted(moment.event, moment.weight, moment.now_ns, value, doubtful, gaps)
        )

    def _apply(self, moves: list[Move], moment: Moment, outputs: list[Output]) -> None:
        # All of them leave before the first arrives: what arrives then replaces only what stays.
        arriving = [self._leave(move) for move in moves]
        for partial, move in zip(arriving, moves, strict=True):
            origin, transition = move.partial, move.transition
            partial.doubtful |= move.doubtful
            if move.exemption is not None:
                self._except(partial, transition, move.exemption, moment, outputs)
                continue
            self.advanced += 1
            self._meet(partial, transition, moment, outputs)
            times = partial.run.table.policy.steps[transition.step].times
            if times is not None and times.distinct is not None and self._store.holds(origin) and origin is not partial:
                self._store.forget_count(origin, transition.step)

    def _leave(self, move: Move) -> Partial:
        """Returns the partial that goes on: the one in the place, or a copy where that one stays."""
        partial = move.partial
        table = partial.run.table
        if move.exemption is not None or table.goes_on or (table.copies and not table.is_end(move.transition.target)):
            return partial.copy()
        if self._store.holds(partial):  # it may have been evicted for what another one has counted
            self._store.remove(partial)
        return partial

    def _start(self, run: PolicyRun, fired: int, moment: Moment, taken: Taken, outputs: list[Output]) -> None:
        # In text order. A count that begins leaves the event to the steps behind it; one that it completes does not.
        table = run.table
        for transition in _accepting(table, table.policy.states[0], fired, moment, None):
            place = table.counting.get(transition.step)
            if place is None:
                self._begin(run, transition, moment, taken, outputs)
                return
            self._begin_count(run, transition, place, moment, taken)
            if transition.step in taken.decided:
                return

    def _begin(
        self, run: PolicyRun, transition: Transition, moment: Moment, taken: Taken, outputs: list[Output]
    ) -> None:
        key = moment.start_key(run.table, transition.step)
        if not self._may_begin(run, key, transition, taken):
            return
        partial = self._fresh(run, key, moment)
        move = _move(partial, transition, moment.event)
        partial.doubtful |= move.doubtful
        if move.exemption is not None:
            self._except(partial, transition, move.exemption, moment, outputs)
        else:
            self._meet(partial, transition, moment, outputs)

    def _begin_count(self, run: PolicyRun, transition: Transition, place: int, moment: Moment, taken: Taken) -> None:
        # While one counts, in any mode, its events are that one's.
        key = moment.start_key(run.table, transition.step)
        if (key, place) in taken.counted or not self._may_begin(run, key, transition, taken):
            return
        partial = self._fresh(run, key, moment)
        partial.state = place
        self._count(partial, transition.step, moment, taken.counted)
        self._store.add(partial)

    def _may_begin(self, run: PolicyRun, key: Key, transition: Transition, taken: Taken) -> bool:
        # What a later count took would replace the partial that counts, which could never be met.
        places = len(run.table.policy.states)
        if not run.table.copies and any(other == key and place < places for other, place in taken.counted):
            return False
        # `X ..` takes a further X as evidence: it must not begin anew in the same place, and so restart the window.
        repeated = taken.repeated
        return not repeated or repeated.isdisjoint(self._store.at(run, key, transition.target))

    def _fresh(self, run: PolicyRun, key: Key, moment: Moment) -> Partial:
        self.started += 1
        return Partial(run, key, moment.owner, moment.now_ns, self.started, moment.losses)

    def _meet(self, partial: Partial, transition: Transition, moment: Moment, outputs: list[Output]) -> None:
        # The partial is not in the store here.
        table = partial.run.table
        _advance(partial, transition, moment)
        target = table.policy.states[transition.target]
        if target.transitions and not self._store.add(partial):
            return
        if table.reports_step[transition.step]:
            outputs.append(step_done(partial, moment))
        if target.accepting:
            self.completed += 1
            outputs.append(match(partial, moment))
        elif not target.transitions:
            self.ended += 1

    def _except(
        self, partial: Partial, transition: Transition, exemption: Exemption, moment: Moment, outputs: list[Output]
    ) -> None:
        # A copy, which shows what the match would have been.
        self.excepted += 1
        _advance(partial, transition, moment)
        outputs.append(excepted(partial, moment, exemption))


def _advance(partial: Partial, transition: Transition, moment: Moment) -> None:
    table, event = partial.run.table, moment.event
    step = transition.step
    if table.policy.steps[step].times is None and not partial.doubtful:
        partial.doubtful = table.doubtful(step, event, partial.bindings if table.refers[step] else {})
    partial.meet(step, transition.target, event, moment.weight, moment.now_ns)


def _waiting(run: PolicyRun, reach: list[tuple[Scope, int]]) -> list[tuple[int, Candidates]]:
    # The partials that the event may reach, from the last place to the first. Of those in one place of several trees it
    # takes the latest begun, and only that; but every copy.
    table = run.table
    found: dict[int, Candidates] = {}
    for scope, fired in reach:
        for state, held in scope.held(run):
            candidates = found.get(state)
            if candidates is None:
                candidates = found[state] = []
            for partial in held:
                candidates.append((partial, fired))
    states = sorted(found, key=table.rank) if len(found) > 1 else list(found)
    if table.policy.key is KeyKind.TREE and not table.copies:
        return [(state, sorted(found[state], key=lambda candidate: -candidate[0].number)) for state in states]
    return [(state, [candidate]) for state in states for candidate in found[state]]


def _accepting(
    table: PolicyTable, state: State, fired: int, moment: Moment, partial: Partial | None
) -> list[Transition]:
    # Those whose step the event is one of, in text order. partial: who waits there; None: it would begin.
    found: list[Transition] = []
    bindings: Bindings = {}
    for transition in state.transitions:
        step = transition.step
        if not fired >> step & 1:
            continue
        if partial is not None:
            within_ns = table.policy.steps[step].within_ns
            if within_ns is not None and moment.now_ns - partial.last_ns > within_ns:
                continue
            if not bindings and table.refers[step]:
                bindings = partial.bindings
        if not table.holds(step, moment.event, bindings):
            continue
        times = table.policy.steps[step].times
        if times is None or times.distinct is None or read(times.distinct, moment.event, bindings) is not None:
            found.append(transition)
    return found


def _is_taken_before(table: PolicyTable, state: int, fired: int, moment: Moment, decided: set[int]) -> bool:
    # Whether an alternative that stands before a count at the start takes the event: a step that begins, or a count met by it.
    accepting = _accepting(table, State(table.before[state]), fired, moment, None)
    return any(way.step not in table.counting or way.step in decided for way in accepting)


def _move(partial: Partial, transition: Transition, event: Event) -> Move:
    table = partial.run.table
    if not table.policy.exemptions or not table.policy.states[transition.target].accepting:
        return Move(partial, transition)
    bindings = partial.bindings
    alias = table.policy.steps[transition.step].alias
    if alias is not None:
        bindings[alias] = event
    return Move(partial, transition, *table.exempted(event, bindings))


def _repeat(candidates: Candidates, state: State, moment: Moment) -> list[tuple[Partial, int]]:
    # The first partial, if any, whose place takes the event as a repeat, with the repeated step.
    for partial, fired in candidates:
        for step in state.repeats:
            if fired >> step & 1 and _holds(partial, step, moment):
                return [(partial, step)]
    return []


def _ends(partial: Partial, step: int, moment: Moment) -> bool:
    """Whether an `until` step's event ends the partial. What isn't sure ends nothing: padding must not buy an exclusion."""
    if not _holds(partial, step, moment):
        return False
    if partial.run.table.doubtful(step, moment.event, partial.bindings):
        partial.doubtful = True
        return False
    return True


def _holds(partial: Partial, step: int, moment: Moment) -> bool:
    table = partial.run.table
    return table.holds(step, moment.event, partial.bindings if table.refers[step] else {})
