"""One policy in the bits of one generation: which bits its places await, and what of its steps no row decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from execray.schema.catalog import ACTOR_FIELD_BY_NAME, EVENT_BY_CODE, EventType
from execray.schema.event import Event, creator_field
from policyd.engine.conditions import (
    ANCESTOR,
    FALSE,
    TRUE,
    Bindings,
    Condition,
    condition,
    conjuncts,
    fields_of,
    without,
)
from policyd.engine.doubt import Judged, is_unsure
from policyd.program import (
    And,
    CompiledPolicy,
    Exemption,
    Expr,
    FieldRef,
    Not,
    Op,
    Or,
    Overlap,
    Quantified,
    State,
    Step,
    Test,
)

PARENT: Final = "parent."

#: Slots whose values hardly ever come twice: tested only on bits that fire, and never cached.
UNCACHED: Final = frozenset({"content"})


@dataclass(frozen=True, slots=True)
class SlotKey:
    """A slot that rows are kept for: of an event (its code), of the actor (0) or of the actor's parent (-1)."""

    code: int
    slot: str


ACTOR, PARENT_ACTOR = 0, -1


def slot_of(ref: FieldRef, kind: EventType) -> SlotKey | None:
    """Returns the slot that a field of the event at hand is computed from; None for a field of no slot of ours."""
    if ref.alias is not None:
        return None
    if ref.name.startswith(PARENT):
        field = ACTOR_FIELD_BY_NAME.get(ref.name.removeprefix(PARENT))
        return SlotKey(PARENT_ACTOR, field.derived or field.name) if field else None
    field = kind.by_name.get(ref.name)
    if field is None:
        return None
    slot = field.derived or field.name
    return SlotKey(kind.code, slot) if slot in kind.slot_of else SlotKey(ACTOR, slot)


def is_missing(ref: FieldRef, kind: EventType) -> bool:
    """Whether no event of this kind has the field."""
    if ref.alias is not None or ref.name in ("tid", ANCESTOR) or slot_of(ref, kind) is not None:
        return False
    of_creator = creator_field(ref.name)
    return of_creator is None or of_creator[1] not in ACTOR_FIELD_BY_NAME


@dataclass(frozen=True, slots=True)
class StepPlan:
    """How one step is tested on one kind of event: what goes into each slot's row, and what is left."""

    possible: bool
    slots: dict[SlotKey, list[Expr]]
    residual: Condition | None


def plan_step(expr: Expr, code: int) -> StepPlan:
    """Sorts a step's conjuncts: those of one slot go into its row, the others are tested when the bit fires."""
    kind = EVENT_BY_CODE[code]
    slots: dict[SlotKey, list[Expr]] = {}
    rest: list[Expr] = []
    for whole in conjuncts(expr):
        part = without(whole, lambda ref: is_missing(ref, kind))
        if part == TRUE:
            continue
        if part == FALSE:
            return StepPlan(False, {}, None)
        keys = {slot_of(ref, kind) for ref in fields_of(part)}
        key = next(iter(keys)) if len(keys) == 1 else None
        # An actor's row is one for all kinds of event, so only a conjunct that means the same for all of them may go there.
        if key is None or _needs_event(part) or (key.code <= 0 and part != without(whole, lambda ref: False)):
            rest.append(part)
        else:
            slots.setdefault(key, []).append(part)
    return StepPlan(True, slots, condition(And(tuple(rest))) if rest else None)


def _needs_event(expr: Expr) -> bool:
    """Whether one slot's value alone doesn't decide: fields are compared with each other, or a quantifier looks at elements."""
    match expr:
        case Test():
            return isinstance(expr.value, FieldRef) or expr.op is Op.TRUNCATED
        case Not(item):
            return _needs_event(item)
        case And(items) | Or(items):
            return any(map(_needs_event, items))
        case Quantified():
            return True


class PolicyTable:
    """A policy with its bits in one generation. Immutable."""

    def __init__(self, policy: CompiledPolicy, base: int) -> None:
        """base: the number of the policy's first bit; its steps have the bits from there on."""
        self.policy = policy
        self.base = base
        self.width = len(policy.steps)
        self.bits = ((1 << self.width) - 1) << base
        self.first = _mask(t.step for t in policy.states[0].transitions) << base
        #: The places, and behind them one for each count that the policy may begin with: before it is reached, no step is met.
        self.states, self.counting = _with_counting(policy)
        #: By place: the `until` steps that end what waits there.
        self.untils = tuple(_untils(policy, state) for state in range(len(self.states)))
        self.until_steps = _mask(until.step for until in policy.untils)
        self.awaits = tuple(self._awaits(state) << base for state in range(len(self.states)))
        self.step_windows = tuple(_step_window(policy, state) for state in self.states)
        self.count_windows = tuple(_count_window(policy, step) for step in range(len(policy.steps)))
        self.plans = {
            (index, code): plan_step(step.condition, code)
            for index, step in enumerate(policy.steps)
            for code in step.codes
        }
        self.copies = policy.mode.copies if policy.mode.overlap is Overlap.ALL else 0
        #: It is one counted step and nothing else, so its partials outlive their matches.
        self.goes_on = _goes_on(policy)
        reported = {handler.step for handler in policy.handlers if handler.step is not None}
        self.reports_step = tuple(step.alias in reported for step in policy.steps)
        self._judged = tuple(Judged(step.condition) for step in policy.steps)
        self._keys = tuple(key_fields(step) for step in policy.steps)
        #: Steps that read earlier ones.
        self.refers = tuple(
            any(ref.alias is not None for ref in (*fields_of(step.condition), *key_fields(step)))
            for step in policy.steps
        )
        self._exemptions = tuple((exemption, Judged(exemption.condition)) for exemption in policy.exemptions)
        self._handlers = tuple(Judged(h.condition) for h in policy.handlers if h.condition is not None)

    def rank(self, state: int) -> int:
        """Orders the places as the text has them: whoever counts towards a first step stands in the start place."""
        return state if state < len(self.policy.states) else 0

    def holds(self, step: int, event: Event, bindings: Bindings) -> bool:
        """Whether what the rows left undecided of a step holds, given that its bit fired."""
        residual = self.plans[step, event.type.code].residual
        return residual is None or residual(event, bindings)

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


def _with_counting(policy: CompiledPolicy) -> tuple[tuple[State, ...], dict[int, int]]:
    states, counting = list(policy.states), {}
    for transition in policy.states[0].transitions:
        if policy.steps[transition.step].times is not None:
            counting[transition.step] = len(states)
            states.append(State((transition,)))
    return tuple(states), counting


def _untils(policy: CompiledPolicy, state: int) -> tuple[int, ...]:
    place = state if state < len(policy.states) else 0
    return tuple(until.step for until in policy.untils if place in until.states)


def _goes_on(policy: CompiledPolicy) -> bool:
    transitions = policy.states[0].transitions
    if len(transitions) != 1 or not policy.states[transitions[0].target].accepting:
        return False
    return policy.steps[transitions[0].step].times is not None


def _mask(steps: Iterable[int]) -> int:
    mask = 0
    for step in steps:
        mask |= 1 << step
    return mask


def key_fields(step: Step) -> tuple[FieldRef, ...]:
    """Returns the fields whose values say where an event that meets the step belongs, and towards what it counts."""
    distinct = step.times.distinct if step.times is not None else None
    return step.key if distinct is None else (*step.key, distinct)


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
