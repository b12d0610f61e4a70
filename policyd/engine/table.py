"""One policy in the bits of one generation: which bits its places await, and what of its steps no row decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from execray.schema.catalog import ACTOR_FIELD_BY_NAME, EVENT_BY_CODE, EventType
from execray.schema.event import Event
from policyd.engine.conditions import (
    FALSE,
    TRUE,
    Bindings,
    Condition,
    condition,
    conjuncts,
    fields_of,
    without,
)
from policyd.engine.evidence import is_doubtful, is_unsure
from policyd.program import And, CompiledPolicy, Expr, FieldRef, KeyKind, Not, Op, Or, Quantified, Test

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
    return ref.alias is None and ref.name != "tid" and slot_of(ref, kind) is None


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
        self.first = _steps_mask(policy, 0, False) << base
        self.awaits = tuple(_steps_mask(policy, state, True) << base for state in range(len(policy.states)))
        self.step_windows = tuple(_step_window(policy, state) for state in range(len(policy.states)))
        self.plans = {
            (index, code): plan_step(step.condition, code)
            for index, step in enumerate(policy.steps)
            for code in step.codes
        }
        self.is_tree = policy.key is KeyKind.TREE
        reported = {handler.step for handler in policy.handlers if handler.step is not None}
        self.reports_step = tuple(step.alias in reported for step in policy.steps)
        #: Steps that read earlier ones.
        self.refers = tuple(any(r.alias is not None for r in fields_of(s.condition)) for s in policy.steps)
        self._reads = tuple(tuple(dict.fromkeys(fields_of(step.condition))) for step in policy.steps)
        self._handler_conditions = [h.condition for h in policy.handlers if h.condition is not None]

    def holds(self, step: int, event: Event, bindings: Bindings) -> bool:
        """Whether what the rows left undecided of a step holds, given that its bit fired."""
        residual = self.plans[step, event.type.code].residual
        return residual is None or residual(event, bindings)

    def doubtful(self, step: int, event: Event, bindings: Bindings) -> bool:
        """Whether the event met the step on a value that is known in part only."""
        for ref in self._reads[step]:
            if is_unsure(ref, event, bindings):
                return is_doubtful(self.policy.steps[step].condition, event, bindings)
        return False

    def handlers_doubtful(self, event: Event, bindings: Bindings) -> bool:
        """Whether the `if` of some handler reads a value that is known in part only."""
        return any(is_doubtful(expr, event, bindings) for expr in self._handler_conditions)


def _steps_mask(policy: CompiledPolicy, state: int, repeats: bool) -> int:
    place = policy.states[state]
    mask = 0
    for step in (*(t.step for t in place.transitions), *(place.repeats if repeats else ())):
        mask |= 1 << step
    return mask


def _step_window(policy: CompiledPolicy, state: int) -> int | None:
    # The longest that an event may still move a partial waiting here, by the steps' own windows.
    windows = [policy.steps[t.step].within_ns for t in policy.states[state].transitions]
    known = [window for window in windows if window is not None]
    return max(known) if known and len(known) == len(windows) else None
