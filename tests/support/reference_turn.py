"""What one event does to one policy, in the order of the language reference, section 5: cancel, advance, start, accept."""

from __future__ import annotations

from typing import Any

from execray.schema.event import Event
from policyd.program import CompiledPolicy, KeyKind, Overlap, Step, Transition
from tests.support.reference_conditions import Scope, Verdict, judge, read
from tests.support.reference_partials import Counted, Found, Move, Partial, Place, Taken, World


class Turn:
    """What one event does to one policy."""

    def __init__(self, world: World, policy: CompiledPolicy, event: Event) -> None:
        self.world = world
        self.policy = policy
        self.event = event
        self.out: list[Found] = []
        self.repeated: list[Partial] = []  # partials to which the event was one more of a repeated step
        self.counted: list[Partial] = []  # partials that counted it
        self.met_first: set[int] = set()  # first steps whose count the event completed

    @property
    def overlap(self) -> Overlap:
        return self.policy.mode.overlap

    def take(self) -> list[Found]:
        self._cancel()
        moves = self._advance()
        # Decided for all before any is moved: one event moves a partial at most once, and makes its place free.
        for move in moves:
            if not self._stays(move):
                self.world.partials.remove(move.partial)
        for move in moves:
            self._met(move.moved, move.way)
        self._start()
        return self.out

    # ---- what an event is to a partial

    def _meets(self, partial: Partial, step_number: int) -> Verdict:
        """Whether the event is one of a step's for this partial: its kind, its key, the condition."""
        step = self.policy.steps[step_number]
        if self.event.type.code not in step.codes:
            return Verdict(False)
        mine, key_sure = self._has_key(partial, step)
        if not mine:
            return Verdict(False)
        verdict = judge(step.condition, Scope(self.event, partial.bindings))
        return Verdict(verdict.holds, verdict.sure and key_sure)

    def _has_key(self, partial: Partial, step: Step) -> tuple[bool, bool]:
        match self.policy.key:
            case KeyKind.PROCESS:
                return partial.key == self.event.actor.id, True
            case KeyKind.TREE:
                # The actor of step 1 or a process descending from it, by the creators' line.
                at = self.event.actor
                while at.id != partial.key:
                    if at.parent is None:
                        return False, True
                    at = at.parent
                return True, True
            case KeyKind.FIELDS:
                key, sure = self._key_of(step)
                return key is not None and key == partial.key, sure

    def _key_of(self, step: Step) -> tuple[Any, bool]:
        """The event's key for a step, None when some part is missing: then the step does not match."""
        if self.policy.key is not KeyKind.FIELDS:
            return self.event.actor.id, True
        parts = [read(ref, Scope(self.event, {})) for ref in step.key]
        if any(part.value is None for part in parts):
            return None, True
        return tuple(part.value for part in parts), all(part.sure for part in parts)

    # ---- 2: cancel

    def _cancel(self) -> None:
        """`until S` cancels all partials of that key; inside of a block while the partial is inside of it.

        Where only captured bytes say that the event meets S, the partial lives on in doubt: padding buys no exclusion.
        """
        for partial in [p for p in self.world.partials if p.policy is self.policy]:
            for until in self.policy.untils:
                if partial.place.state not in until.states:
                    continue
                verdict = self._meets(partial, until.step)
                if verdict.holds and verdict.sure:
                    self.world.partials.remove(partial)
                    break
                partial.sure = partial.sure and not verdict.holds

    # ---- 3: advance

    def _advance(self) -> list[Move]:
        """States from last to first, in each the partials in the order in which they came."""
        moves: list[Move] = []
        mine = [p for p in self.world.partials if p.policy is self.policy]
        places = [Place(state) for state in range(len(self.policy.states) - 1, -1, -1)]
        places += [Place(0, way.step) for way in self.policy.states[0].transitions]
        for place in dict.fromkeys(places):
            here = [p for p in mine if p.place == place]
            if self.policy.key is KeyKind.TREE and self.overlap is not Overlap.ALL:
                moves += self._latest_begun(here)
            else:
                for partial in here:
                    if not self._try(partial, moves):
                        self._repeat(partial)
        return moves

    def _latest_begun(self, here: list[Partial]) -> list[Move]:
        """Of the trees that an event belongs to, the one begun last takes it."""
        moves: list[Move] = []
        here = sorted(here, key=lambda partial: -partial.begun)
        if not any(self._try(partial, moves) for partial in here):
            any(self._repeat(partial) for partial in here)
        return moves

    def _try(self, partial: Partial, moves: list[Move]) -> bool:
        """Offers the event to a partial's next steps in text order; the first that it meets is taken.

        A `times` step is met when its count is reached; until then the event is counted, and may meet a later step.
        """
        counted = False
        for way in partial.ways():
            step = self.policy.steps[way.step]
            if partial.place.counting is not None and self._starts_before(way):
                continue
            if step.within_ns is not None and self.world.now - partial.last_ns > step.within_ns:
                continue
            verdict = self._meets(partial, way.step)
            if not verdict.holds:
                continue
            if step.times is None:
                moved = self._moved(partial, way, [self.event], verdict.sure)
            else:
                if not self._count(partial, way.step, verdict):
                    continue
                counted = True
                if not self._is_full(partial, way.step):
                    continue
                events = partial.counts[way.step]
                moved = self._moved(partial, way, [c.event for c in events], all(c.sure for c in events))
                if partial.place.counting is not None:
                    self.met_first.add(way.step)
            if not self._excepted(moved, way):
                moves.append(Move(partial, moved, way))
            return True
        return counted

    def _starts_before(self, way: Transition) -> bool:
        """Whether an alternative that stands before this one takes the event at the start.

        An event that several alternatives accept takes the first in the text: a step that it begins with, or a count of which
        it is the last event, whether or not the later count has begun.
        """
        for earlier in self.policy.states[0].transitions:
            if earlier == way:
                return False
            if earlier.step in self.met_first:
                return True
            if self.policy.steps[earlier.step].times is None and self._fresh(earlier) is not None:
                return True
        return False

    def _moved(self, partial: Partial, way: Transition, events: list[Event], sure: bool) -> Partial:
        moved = partial.copy()
        moved.place = Place(way.target)
        moved.counts = {}
        moved.last_ns = self.world.now
        moved.sure = moved.sure and sure
        moved.trail.append((way.step, events))
        alias = self.policy.steps[way.step].alias
        if alias is not None:  # of a count, the last one
            moved.bindings[alias] = events[-1]
        return moved

    def _stays(self, move: Move) -> bool:
        """Whether the partial is in its old place after the move, too."""
        counts = move.partial.counts.get(move.way.step)
        target = self.policy.states[move.way.target]
        if not target.accepting and not target.transitions:
            return False  # benign ends it
        if counts is not None and self._distinct(move.way.step):
            counts.clear()
        if self.overlap is not Overlap.ALL and not self._is_lone_count():
            return False
        # A count at the start that holds nothing any more has not begun.
        return move.partial.place.counting is None or bool(counts)

    def _is_lone_count(self) -> bool:
        """A policy of one `times` step and nothing else matches again on every further event."""
        start = self.policy.states[0].transitions
        return (
            len(start) == 1
            and self.policy.steps[start[0].step].times is not None
            and self.policy.states[start[0].target].accepting
        )

    def _repeat(self, partial: Partial) -> bool:
        """`..` and `...`: further matches are evidence; they neither move the partial nor restart its window."""
        for step in partial.state.repeats if partial.place.counting is None else ():
            if self._meets(partial, step).holds:
                self.repeated.append(partial)
                mine = [events for number, events in partial.trail if number == step]
                if mine:
                    mine[-1].append(self.event)
                else:
                    partial.trail.append((step, [self.event]))
                    alias = self.policy.steps[step].alias
                    if alias is not None:
                        partial.bindings[alias] = self.event
                return True
        return False

    # ---- counts

    def _distinct(self, step: int) -> bool:
        times = self.policy.steps[step].times
        return times is not None and times.distinct is not None

    def _count(self, partial: Partial, step: int, verdict: Verdict) -> bool:
        """Adds the event to a count, and says whether it counts: one without the distinct field doesn't."""
        times = self.policy.steps[step].times
        assert times is not None
        value, sure = None, verdict.sure
        if times.distinct is not None:
            known = read(times.distinct, Scope(self.event, {}))
            if known.value is None:
                return False
            value, sure = known.value, sure and known.sure
        counted = partial.counts.setdefault(step, [])
        if times.distinct is not None:  # a value counts by the latest event that has it
            counted[:] = [c for c in counted if c.value != value]
        counted.append(Counted(self.world.now, self.event, value, sure, self.world.losses))
        del counted[: -times.count]  # the last n; older ones are forgotten
        self.counted.append(partial)
        if partial.place.counting is not None:
            partial.begin_with_oldest()
        return True

    def _is_full(self, partial: Partial, step: int) -> bool:
        times = self.policy.steps[step].times
        assert times is not None
        return len(partial.counts[step]) >= times.count

    # ---- 4: start

    def _fresh(self, way: Transition) -> Partial | None:
        """A partial that begins with this event, if it meets the step."""
        key, key_sure = self._key_of(self.policy.steps[way.step])
        now = self.world.now
        fresh = Partial(self.policy, key, Place(0), self.world.begun, now, now, self.world.losses)
        verdict = self._meets(fresh, way.step) if key is not None else Verdict(False)
        fresh.sure = verdict.sure and key_sure
        return fresh if verdict.holds else None

    def _start(self) -> None:
        for way in self.policy.states[0].transitions:
            fresh = self._fresh(way)
            if fresh is None:
                continue
            if self.policy.steps[way.step].times is None:
                self._begin(fresh, way)
                return
            self._begin_count(fresh, way)
            if way.step in self.met_first:
                return

    def _begin(self, fresh: Partial, way: Transition) -> None:
        self.world.begun += 1
        moved = self._moved(fresh, way, [self.event], fresh.sure)
        if self._may_begin(fresh, way) and not self._excepted(moved, way):
            self._met(moved, way)

    def _begin_count(self, fresh: Partial, way: Transition) -> None:
        """The first event of a count begins a partial; while it counts, no other begins under that key, in no mode."""
        fresh.place = Place(0, way.step)
        goes_on = any(partial.key == fresh.key and partial.place == fresh.place for partial in self.counted)
        if not goes_on and self._may_begin(fresh, way) and self._count(fresh, way.step, Verdict(True, fresh.sure)):
            fresh.sure = True
            self.world.begun += 1
            self._arrive(fresh)

    def _may_begin(self, fresh: Partial, way: Transition) -> bool:
        # In mode latest or first, an event that a later step counted does not begin another partial of that key.
        counted = [partial for partial in self.counted if partial.place.counting is None]
        if self.overlap is not Overlap.ALL and any(partial.key == fresh.key for partial in counted):
            return False
        # Nor does one that was one more of a repeated step begin what would come to that place and restart the window.
        there = [partial for partial in self.repeated if partial in self.world.partials]
        return not any(partial.key == fresh.key and partial.place.state == way.target for partial in there)

    # ---- arriving

    def _met(self, moved: Partial, way: Transition) -> None:
        """A step was met: the partial is where that leads."""
        lives = bool(moved.state.transitions)  # without any it accepts, or has ended in silence: `benign`
        if lives and not self._arrive(moved):
            return
        alias = self.policy.steps[way.step].alias
        if alias is not None and any(handler.step == alias for handler in self.policy.handlers):
            self.out.append(self._found("step", moved))
        if moved.state.accepting:
            self.out.append(self._found("match", moved))

    def _arrive(self, partial: Partial) -> bool:
        """Puts a partial into its place, unless it is dropped because there is one."""
        there = [
            p
            for p in self.world.partials
            if p.policy is self.policy and p.place == partial.place and p.key == partial.key
        ]
        match self.overlap:
            case Overlap.LATEST:
                gone = there
            case Overlap.FIRST:
                if there:
                    return False
                gone = []
            case Overlap.ALL:
                gone = there[: max(0, len(there) + 1 - self.policy.mode.copies)]
        self.world.partials = [p for p in self.world.partials if p not in gone]
        self.world.partials.append(partial)
        return True

    # ---- 5: accept

    def _excepted(self, moved: Partial, way: Transition) -> bool:
        """Whether an exception holds for a match that would now be complete: then everything stays as it was.

        One that may hold, as far as the captured bytes tell, holds nothing back, but the match is in doubt.
        """
        if not self.policy.states[way.target].accepting:
            return False
        verdicts = [(e, judge(e.condition, Scope(self.event, moved.bindings))) for e in self.policy.exemptions]
        for exemption, verdict in verdicts:
            if verdict.holds and verdict.sure:
                self.out.append(self._found("excepted", moved, exemption.reason))
                return True
        if not all(verdict.sure for _, verdict in verdicts):
            moved.sure = False
        return False

    def _found(self, kind: str, partial: Partial, reason: str = "") -> Found:
        return Found(
            kind,
            self.policy.name,
            self.event.id,
            self.world.now,
            partial.first_ns,
            tuple(Taken(step, tuple(event.id for event in events)) for step, events in partial.trail),
            tuple(sorted((alias, event.id) for alias, event in partial.bindings.items())),
            not partial.sure,
            partial.losses != self.world.losses,
            reason,
        )
