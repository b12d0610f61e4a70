"""One policy in the bits of one generation: which bits its places await, and what of its steps no row decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

from execray.schema.catalog import EVENT_BY_CODE, EVENTS, NO_CONTENT, Content
from execray.schema.event import Event
from policyd.engine.conditions import Bindings, Condition, fields_of
from policyd.engine.doubt import Judged, is_unsure, slots_behind
from policyd.engine.numbers import numbers_of
from policyd.engine.planning import UNCACHED, StepPlan, asks_of, plan_step
from policyd.program import (
    CompiledPolicy,
    Exemption,
    Expr,
    FieldRef,
    KeyKind,
    Notify,
    Overlap,
    State,
    Step,
    Times,
    Transition,
)

_ASKED: Final = frozenset(name for event in EVENTS for name in event.asked)


class Opening(NamedTuple):
    """What policies have in common that begin alike and have the same bound."""

    kind: KeyKind
    codes: tuple[int, ...]
    condition: Expr
    key: tuple[FieldRef, ...]
    limit: int


class Plain(NamedTuple):
    """How a policy begins whose starts can be shared: always, whenever an event meets one step, in one place, and silently."""

    step: int
    target: int
    opening: Opening


class Way:
    """A transition, with all that deciding on it and taking it asks of its step and of the place it leads to.

    within_ns: how long after the step before. refers: whether the step reads earlier ones. reports: whether a handler wants to
    know. goes_on: whether something is awaited in that place; accepting: whether to enter it completes a match.
    """

    __slots__ = ("accepting", "distinct", "goes_on", "refers", "reports", "step", "target", "times", "within_ns")

    def __init__(self, transition: Transition, policy: CompiledPolicy, refers: bool, reports: bool) -> None:
        step, target = policy.steps[transition.step], policy.states[transition.target]
        self.step = transition.step
        self.target = transition.target
        self.within_ns = step.within_ns
        self.times: Times | None = step.times
        self.distinct: FieldRef | None = None if step.times is None else step.times.distinct
        self.refers = refers
        self.reports = reports
        self.goes_on = bool(target.transitions)
        self.accepting = target.accepting


#: Of a table: one that lies elsewhere takes them over.
_ATTRIBUTES: Final = (
    "_doubts_of_start",
    "_exemptions",
    "_handlers",
    "_judged",
    "_keys",
    "_residuals",
    "_sure",
    "aliases",
    "asks",
    "awaits",
    "base",
    "before",
    "bits",
    "by_fields",
    "by_tree",
    "codes",
    "content",
    "copies",
    "count_windows",
    "counting",
    "exempts",
    "first",
    "goes_on",
    "latest",
    "numbers",
    "opens",
    "paths_by_file",
    "places",
    "plain",
    "plans",
    "policy",
    "refers",
    "repeats",
    "states",
    "step_windows",
    "until_steps",
    "untils",
    "urgent",
    "ways",
    "width",
    "within_ns",
)


class PolicyTable:
    """A policy with its bits in one generation. Immutable."""

    __slots__ = _ATTRIBUTES

    policy: CompiledPolicy
    base: int
    bits: int
    first: int
    awaits: tuple[int, ...]

    def __init__(self, policy: CompiledPolicy, base: int, other: PolicyTable | None = None) -> None:
        """base: the number of the policy's first bit; its steps have the bits from there on.

        other: a table of the same policy, of which all is taken over that doesn't depend on that.
        """
        if other is None:
            self._read(policy)
        else:
            for name in _ATTRIBUTES:
                setattr(self, name, getattr(other, name))
        shift = base - self.base
        self.base = base
        self.bits, self.first = _moved(self.bits, shift), _moved(self.first, shift)
        self.awaits = tuple([_moved(mask, shift) for mask in self.awaits])

    def at(self, base: int) -> PolicyTable:
        """Returns the same table with its bits elsewhere. Most of a table is costly to make, and doesn't depend on that."""
        return self if base == self.base else PolicyTable(self.policy, base, self)

    def _read(self, policy: CompiledPolicy) -> None:
        # All of a policy, with its bits from 0 on.
        self.policy = policy
        self.base = 0
        self.width = len(policy.steps)
        self.bits = (1 << self.width) - 1
        self.first = self.opens = _mask(t.step for t in policy.states[0].transitions)
        self.by_fields, self.by_tree = policy.key is KeyKind.FIELDS, policy.key is KeyKind.TREE
        self.within_ns = policy.within_ns
        self.aliases = tuple(step.alias for step in policy.steps)
        self.places = len(policy.states)
        #: The places, and behind them one for each count that the policy may begin with: before it is reached, no step is met.
        self.states, self.counting = _with_counting(policy)
        #: By place: the `until` steps that end what waits there.
        self.untils = tuple(_untils(policy, state) for state in range(len(self.states)))
        self.until_steps = _mask(until.step for until in policy.untils)
        self.awaits = tuple(self._awaits(state) for state in range(len(self.states)))
        self.step_windows = tuple(_step_window(policy, state) for state in self.states)
        self.count_windows = tuple(_count_window(policy, step) for step in range(len(policy.steps)))
        self.plans = {
            (index, code): plan_step(step.condition, code)
            for index, step in enumerate(policy.steps)
            for code in step.codes
        }
        self.asks = tuple(
            asks_of({code: plan for (at, code), plan in self.plans.items() if at == index})
            for index in range(len(policy.steps))
        )
        #: By step, what is to be tested besides its rows, by kind of event; None where nothing is.
        self._residuals = tuple(_residuals(self.plans, step) for step in range(len(policy.steps)))
        self.latest = policy.mode.overlap is Overlap.LATEST
        self.copies = policy.mode.copies if policy.mode.overlap is Overlap.ALL else 0
        #: It is one counted step and nothing else, so its partials outlive their matches.
        self.goes_on = _goes_on(policy)
        reported = {handler.step for handler in policy.handlers if handler.step is not None}
        self._judged = tuple(Judged(step.condition) for step in policy.steps)
        self._keys = tuple(key_fields(step) for step in policy.steps)
        #: Steps that read earlier ones.
        self.refers = tuple(
            any(ref.alias is not None for ref in (*fields_of(step.condition), *key_fields(step)))
            for step in policy.steps
        )
        ways = [
            tuple(
                Way(t, policy, self.refers[t.step], policy.steps[t.step].alias in reported) for t in state.transitions
            )
            for state in self.states
        ]
        #: By place: the transitions, and the steps whose further matches are evidence.
        self.ways, self.repeats = tuple(ways), tuple(state.repeats for state in self.states)
        #: By place: of a count at the start, the alternatives that stand before it in the text.
        self.before = tuple(_before(self.ways, at, self.places) for at in range(len(self.states)))
        self._sure = tuple(
            slots_behind((*judged.reads, *keys)) for judged, keys in zip(self._judged, self._keys, strict=True)
        )
        #: None where more than the event decides whether, or where, a sequence begins.
        self.plain = _plain(policy, self)
        self._doubts_of_start: tuple[bool, int] | None = None
        self.exempts = bool(policy.exemptions)
        self._exemptions = tuple((exemption, Judged(exemption.condition)) for exemption in policy.exemptions)
        self._handlers = tuple(Judged(h.condition) for h in policy.handlers if h.condition is not None)
        #: What the policy needs of the sensor: kinds of event, calls that are `syscall`, paths of files, and content.
        self.codes = policy.codes
        self.urgent = policy.urgent
        self.numbers = numbers_of(policy)
        self.paths_by_file = policy.paths_by_file
        self.content = content_of(policy)

    def rank(self, state: int) -> int:
        """Orders the places from the last to the first; counts towards a first step stand at the start, in text order."""
        return -state if state < self.places else state

    @property
    def doubts_of_start(self) -> tuple[bool, int]:
        """Returns what `Cohort.plain` and `Cohort.reads` say of the plain start, which there must be."""
        if self._doubts_of_start is None:
            self._doubts_of_start = self._find_doubts()
        return self._doubts_of_start

    def _find_doubts(self) -> tuple[bool, int]:
        assert self.plain is not None
        step = self.plain.step
        refs = (*self._judged[step].reads, *self._keys[step])
        whole = self._residuals[step] is None and not any(ref.name in UNCACHED for ref in refs)
        reads = self._sure[step]
        return whole and reads >= 0, max(0, reads)

    def window_after(self, state: int) -> int | None:
        """How long a sequence that reaches a place at its first step may wait there, in ns."""
        windows = [window for window in (self.policy.within_ns, self.step_windows[state]) if window is not None]
        return min(windows, default=None)

    def holds(self, step: int, event: Event, bindings: Bindings) -> bool:
        """Whether what the rows left undecided of a step holds, given that its bit fired."""
        residuals = self._residuals[step]
        if residuals is None:
            return True
        residual = residuals.get(event.type.code)
        return residual is None or residual(event, bindings)

    def in_doubt(self, step: int, missing: int) -> bool:
        """Whether it has to be asked if an event is `doubtful` for a step. missing: of its actor; -1: it has flags."""
        sure = self._sure[step]
        return missing < 0 or sure < 0 or sure & missing != 0

    def doubtful(self, step: int, event: Event, bindings: Bindings) -> bool:
        """Whether the event met the step, or under this key, on a value that is known in part only."""
        if self._judged[step].is_doubtful(event, bindings):
            return True
        return any(is_unsure(ref, event, bindings) for ref in self._keys[step])

    def handlers_doubtful(self, event: Event, bindings: Bindings) -> bool:
        """Whether the `if` of some handler reads a value that is known in part only."""
        return any(handler.is_doubtful(event, bindings) for handler in self._handlers)

    def exempted(self, event: Event, bindings: Bindings) -> tuple[Exemption | None, bool]:
        """Returns the exemption that holds for a match, if any; and whether one can't be judged.

        event: the one that would complete it, which is among the bindings where its step has an alias.
        """
        doubtful = False
        for exemption, condition_ in self._exemptions:
            found = condition_.truth(event, bindings)
            if found:
                return exemption, False
            doubtful |= found is None
        return None, doubtful

    def _awaits(self, state: int) -> int:
        place = self.states[state]
        return _mask([*(t.step for t in place.transitions), *place.repeats, *self.untils[state]])


def _plain(policy: CompiledPolicy, table: PolicyTable) -> Plain | None:
    start, others = policy.states[0], policy.states[1:]
    if len(start.transitions) != 1 or start.repeats or policy.mode.overlap is not Overlap.LATEST:
        return None
    ((step, target),) = ((way.step, way.target) for way in start.transitions)
    opening = policy.steps[step]
    again = {way.step for state in others for way in state.transitions} | {
        at for state in others for at in state.repeats
    }
    if opening.times is not None or table.refers[step] or table.ways[0][0].reports:
        return None
    if step in again or table.until_steps >> step & 1 or not policy.states[target].transitions or target == 0:
        return None
    return Plain(step, target, Opening(policy.key, opening.codes, opening.condition, opening.key, policy.max_partials))


def _residuals(plans: dict[tuple[int, int], StepPlan], step: int) -> dict[int, Condition] | None:
    found = {code: plan.residual for (at, code), plan in plans.items() if at == step and plan.residual is not None}
    return found or None


def _with_counting(policy: CompiledPolicy) -> tuple[tuple[State, ...], dict[int, int]]:
    states, counting = list(policy.states), {}
    for transition in policy.states[0].transitions:
        if policy.steps[transition.step].times is not None and transition.step not in counting:
            counting[transition.step] = len(states)
            states.append(State((transition,)))
    return tuple(states), counting


def _before(ways: tuple[tuple[Way, ...], ...], place: int, places: int) -> tuple[Way, ...]:
    if place < places:
        return ()
    counted = ways[place][0].step
    return tuple(itertools.takewhile(lambda way: way.step != counted, ways[0]))


def _untils(policy: CompiledPolicy, state: int) -> tuple[int, ...]:
    place = state if state < len(policy.states) else 0
    return tuple(until.step for until in policy.untils if place in until.states)


def _goes_on(policy: CompiledPolicy) -> bool:
    transitions = policy.states[0].transitions
    if len(transitions) != 1 or not policy.states[transitions[0].target].accepting:
        return False
    return policy.steps[transitions[0].step].times is not None


def _moved(bits: int, shift: int) -> int:
    return bits << shift if shift >= 0 else bits >> -shift


def _mask(steps: Iterable[int]) -> int:
    mask = 0
    for step in steps:
        mask |= 1 << step
    return mask


def key_fields(step: Step) -> tuple[FieldRef, ...]:
    """Returns the fields whose values say where an event that meets the step belongs, and towards what it counts."""
    distinct = step.times.distinct if step.times is not None else None
    return step.key if distinct is None else (*step.key, distinct)


def content_of(policy: CompiledPolicy) -> Content:
    """Returns which bytes a policy reads: of its steps' events, where a field stands without an alias."""
    aliased: dict[str | None, tuple[int, ...]] = {}
    for step in policy.steps:
        aliased[step.alias] = (*aliased.get(step.alias, ()), *step.codes)
    conditions = [handler.condition for handler in policy.handlers if handler.condition is not None]
    conditions += [exemption.condition for exemption in policy.exemptions]
    refs = [ref for expr in conditions for ref in fields_of(expr)]
    refs += policy.throttle_by or ()
    notices = [action for handler in policy.handlers for action in handler.actions if isinstance(action, Notify)]
    refs += [value for notice in notices for _, value in notice.arguments if isinstance(value, FieldRef)]
    found = [(tuple(policy.codes), ref) for ref in refs]
    found += [(step.codes, ref) for step in policy.steps for ref in (*fields_of(step.condition), *key_fields(step))]
    taken = NO_CONTENT
    for codes, ref in found:
        if ref.name in _ASKED:
            for code in codes if ref.alias is None else aliased.get(ref.alias, ()):
                taken |= EVENT_BY_CODE[code].asked.get(ref.name, NO_CONTENT)
    return taken


def _step_window(policy: CompiledPolicy, state: State) -> int | None:
    # The longest that an event may still move a partial waiting here, by the steps' own windows.
    windows = [policy.steps[t.step].within_ns for t in state.transitions]
    known = [window for window in windows if window is not None]
    return max(known) if known and len(known) == len(windows) else None


def _count_window(policy: CompiledPolicy, step: int) -> int | None:
    times = policy.steps[step].times
    own = times.within_ns if times is not None else None
    windows = [window for window in (own, policy.within_ns) if window is not None]
    return min(windows, default=None)
