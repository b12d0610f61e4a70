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
from policyd.engine.table import PolicyTable, Way
from policyd.engine.tally import Counted, Gaps
from policyd.program import Exemption, Times

#: Partials in one place, with the steps of each that the event may meet, in the order in which they are tried: it takes one.
Candidates: TypeAlias = "list[tuple[Partial, int]]"

#: Who counted the event: the key, and the place in which it waited then.
CountedAt: TypeAlias = "list[tuple[Key, int]]"


class Move:
    """What an event does to a partial. exemption: it would complete a match, but for this. doubtful: that one can't be judged."""

    __slots__ = ("doubtful", "exemption", "partial", "way")

    def __init__(self, partial: Partial, way: Way, exemption: Exemption | None = None, doubtful: bool = False) -> None:
        self.partial = partial
        self.way = way
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
                took, way = self._offer(partial, steps, moment, counted)
                if way is not None:
                    moves.append(_move(partial, way, moment.event))
                    if partial.is_counting:
                        decided.add(way.step)
                if took:
                    break
            else:
                repeats += _repeat(candidates, table.repeats[state], moment)
        if moves:
            self._apply(moves, moment, outputs)
        for partial, step in repeats:
            if self._store.holds(partial):  # not replaced or evicted by what has just arrived
                self._store.add_repeat(partial, step, moment.event, moment.weight)
        if fired & table.opens:
            self._start(run, fired, moment, Taken(counted, decided, {partial for partial, _ in repeats}), outputs)

    def begin(self, openings: Sequence[Opened], sighting: Sighting, now_ns: int, losses: int, doubtful: bool) -> None:
        """Begins sequences of policies that begin alike, by one event. doubtful: whether it met their first steps isn't sure."""
        for opened in openings:
            self.started += opened[1].bit_count()
        self._store.begin(openings, Begun(sighting, now_ns, losses, self.started, doubtful))

    def begin_if(self, cohort: Cohort, first: int, moment: Moment) -> None:
        """The same for one cohort, where more than the rows decides. first: the bits of its first steps."""
        table = cohort.table
        assert table.plain is not None
        step = table.plain.step
        if table.holds(step, moment.event, {}):
            opened = (cohort, cohort.members_of(first), moment.start_key(table, step))
            doubtful = table.in_doubt(step, moment.missing) and table.doubtful(step, moment.event, {})
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

    def _offer(self, partial: Partial, fired: int, moment: Moment, counted: CountedAt) -> tuple[bool, Way | None]:
        """Offers the event to the steps that a partial waits for, in text order.

        Returns whether one takes it, and the one that is met by it. A count takes each of its events but is met by the last
        of them only: until then the event may meet a step behind it.
        """
        table, took = partial.run.table, False
        for way in _accepting(table, table.ways[partial.state], fired, moment, partial):
            took = True
            if way.times is None or self._count(partial, way, way.times, moment, counted):
                return True, way
        return took, None

    def _count(self, partial: Partial, way: Way, times: Times, moment: Moment, counted: CountedAt) -> bool:
        """Counts the event towards a step. Returns whether that is met now."""
        table, event = partial.run.table, moment.event
        counted.append((partial.key, partial.state))
        bindings: Bindings = partial.bindings if way.refers else {}
        value = read(times.distinct, event, bindings) if times.distinct is not None else None
        doubtful = table.in_doubt(way.step, moment.missing) and table.doubtful(way.step, event, bindings)
        gaps = Gaps(moment.losses, partial.run.evicted)
        counts = Counted(event, moment.weight, moment.now_ns, value, doubtful, gaps)
        return self._store.count(partial, way.step, counts)

    def _apply(self, moves: list[Move], moment: Moment, outputs: list[Output]) -> None:
        # All of them leave before the first arrives: what arrives then replaces only what stays.
        arriving = [self._leave(move) for move in moves]
        for at, move in enumerate(moves):
            partial, origin, way = arriving[at], move.partial, move.way
            partial.doubtful |= move.doubtful
            if move.exemption is not None:
                self._except(partial, way, move.exemption, moment, outputs)
                continue
            self.advanced += 1
            self._meet(partial, way, moment, outputs)
            if origin is not partial and way.distinct is not None and self._store.holds(origin):
                self._store.forget_count(origin, way.step)

    def _leave(self, move: Move) -> Partial:
        """Returns the partial that goes on: the one in the place, or a copy where that one stays."""
        partial = move.partial
        table = partial.run.table
        way = move.way
        if move.exemption is not None or table.goes_on or (table.copies and (way.goes_on or way.accepting)):
            return partial.copy()
        if self._store.holds(partial):  # it may have been evicted for what another one has counted
            self._store.remove(partial)
        return partial

    def _start(self, run: PolicyRun, fired: int, moment: Moment, taken: Taken, outputs: list[Output]) -> None:
        # In text order. A count that begins leaves the event to the steps behind it; one that it completes does not.
        table = run.table
        for way in table.ways[0]:
            if not fired >> way.step & 1:
                continue
            if way.times is None:
                if _accepts(table, way, moment, {}):
                    self._begin(run, way, moment, taken, outputs)
                    return
                continue
            # What is counted already has been accepted.
            key = moment.start_key(table, way.step)
            if (key, table.counting[way.step]) not in taken.counted:
                if not _accepts(table, way, moment, {}):
                    continue
                self._begin_count(run, way, way.times, key, moment, taken)
            if way.step in taken.decided:
                return

    def _begin(self, run: PolicyRun, way: Way, moment: Moment, taken: Taken, outputs: list[Output]) -> None:
        key = moment.start_key(run.table, way.step)
        if not self._may_begin(run, key, way, taken):
            return
        partial = self._fresh(run, key, moment)
        move = _move(partial, way, moment.event)
        partial.doubtful |= move.doubtful
        if move.exemption is not None:
            self._except(partial, way, move.exemption, moment, outputs)
        else:
            self._meet(partial, way, moment, outputs)

    def _begin_count(self, run: PolicyRun, way: Way, times: Times, key: Key, moment: Moment, taken: Taken) -> None:
        # Where none counts yet: while one does, in any mode, its events are that one's.
        if not self._may_begin(run, key, way, taken):
            return
        partial = self._fresh(run, key, moment)
        partial.state = run.table.counting[way.step]
        self._count(partial, way, times, moment, taken.counted)
        self._store.add(partial)

    def _may_begin(self, run: PolicyRun, key: Key, way: Way, taken: Taken) -> bool:
        # What a later count took would replace the partial that counts, which could never be met.
        places = run.table.places
        if not run.table.copies and any(other == key and place < places for other, place in taken.counted):
            return False
        # `X ..` takes a further X as evidence: it must not begin anew in the same place, and so restart the window.
        repeated = taken.repeated
        return not repeated or repeated.isdisjoint(self._store.at(run, key, way.target))

    def _fresh(self, run: PolicyRun, key: Key, moment: Moment) -> Partial:
        self.started += 1
        return Partial(run, key, moment.owner, moment.now_ns, self.started, moment.losses)

    def _meet(self, partial: Partial, way: Way, moment: Moment, outputs: list[Output]) -> None:
        # The partial is not in the store here.
        _advance(partial, way, moment)
        if way.goes_on and not self._store.add(partial):
            return
        if way.reports:
            outputs.append(step_done(partial, moment))
        if way.accepting:
            self.completed += 1
            outputs.append(match(partial, moment))
        elif not way.goes_on:
            self.ended += 1

    def _except(self, partial: Partial, way: Way, exemption: Exemption, moment: Moment, outputs: list[Output]) -> None:
        # A copy, which shows what the match would have been.
        self.excepted += 1
        _advance(partial, way, moment)
        outputs.append(excepted(partial, moment, exemption))


def _advance(partial: Partial, way: Way, moment: Moment) -> None:
    table, event, step = partial.run.table, moment.event, way.step
    if way.times is None and not partial.doubtful and table.in_doubt(step, moment.missing):
        partial.doubtful = table.doubtful(step, event, partial.bindings if way.refers else {})
    partial.meet(step, way.target, event, moment.weight, moment.now_ns)


def _waiting(run: PolicyRun, reach: list[tuple[Scope, int]]) -> list[tuple[int, Candidates]]:
    # The partials that the event may reach, from the last place to the first. Of those in one place of several trees it
    # takes the latest begun, and only that; but every copy.
    table = run.table
    if len(reach) == 1:
        scope, fired = reach[0]
        held_there = scope.held(run)
        if len(held_there) == 1:
            state, partials = held_there[0]
            if len(partials) == 1:
                return [(state, [(partials[0], fired)])]
    found: dict[int, Candidates] = {}
    for scope, fired in reach:
        for state, held in scope.held(run):
            candidates = found.get(state)
            if candidates is None:
                candidates = found[state] = []
            for partial in held:
                candidates.append((partial, fired))
    states = sorted(found, key=table.rank) if len(found) > 1 else list(found)
    if table.by_tree and not table.copies:
        return [(state, sorted(found[state], key=lambda candidate: -candidate[0].number)) for state in states]
    return [(state, [candidate]) for state in states for candidate in found[state]]


def _accepting(
    table: PolicyTable, ways: tuple[Way, ...], fired: int, moment: Moment, partial: Partial | None
) -> list[Way]:
    # Those whose step the event is one of, in text order. partial: who waits there; None: it would begin.
    found: list[Way] = []
    bindings: Bindings = {}
    for way in ways:
        step = way.step
        if not fired >> step & 1:
            continue
        if partial is not None:
            within_ns = way.within_ns
            if within_ns is not None and moment.now_ns - partial.last_ns > within_ns:
                continue
            if not bindings and way.refers:
                bindings = partial.bindings
        if _accepts(table, way, moment, bindings):
            found.append(way)
    return found


def _accepts(table: PolicyTable, way: Way, moment: Moment, bindings: Bindings) -> bool:
    # Whether an event whose bit fired is one of the step's.
    if not table.holds(way.step, moment.event, bindings):
        return False
    return way.distinct is None or read(way.distinct, moment.event, bindings) is not None


def _is_taken_before(table: PolicyTable, state: int, fired: int, moment: Moment, decided: set[int]) -> bool:
    # Whether an alternative that stands before a count at the start takes the event: a step that begins, or a count met by it.
    accepting = _accepting(table, table.before[state], fired, moment, None)
    return any(way.times is None or way.step in decided for way in accepting)


def _move(partial: Partial, way: Way, event: Event) -> Move:
    table = partial.run.table
    if not way.accepting or not table.exempts:
        return Move(partial, way)
    bindings = partial.bindings
    alias = table.policy.steps[way.step].alias
    if alias is not None:
        bindings[alias] = event
    return Move(partial, way, *table.exempted(event, bindings))


def _repeat(candidates: Candidates, repeats: tuple[int, ...], moment: Moment) -> list[tuple[Partial, int]]:
    # The first partial, if any, whose place takes the event as a repeat, with the repeated step.
    for partial, fired in candidates:
        for step in repeats:
            if fired >> step & 1 and _holds(partial, step, moment):
                return [(partial, step)]
    return []


def _ends(partial: Partial, step: int, moment: Moment) -> bool:
    """Whether an `until` step's event ends the partial. What isn't sure ends nothing: padding must not buy an exclusion."""
    if not _holds(partial, step, moment):
        return False
    table = partial.run.table
    if table.in_doubt(step, moment.missing) and table.doubtful(step, moment.event, partial.bindings):
        partial.doubtful = True
        return False
    return True


def _holds(partial: Partial, step: int, moment: Moment) -> bool:
    table = partial.run.table
    return table.holds(step, moment.event, partial.bindings if table.refers[step] else {})
