"""How a step is tested on one kind of event: what a row for each slot can decide, and what is left for when all rows allow it."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple, TypeAlias

from execray.schema.catalog import (
    ACTOR_FIELD_BY_NAME,
    CREATOR_FIELD_BY_NAME,
    EVENT_BY_CODE,
    EVENTS,
    HEAD_FIELD_BY_NAME,
    EventType,
)
from execray.schema.event import creator_field
from policyd.engine.conditions import ANCESTOR, FALSE, TRUE, Condition, condition, conjuncts, fields_of, without
from policyd.engine.rows import Demand, demand_of
from policyd.program import And, Expr, FieldRef, Not, Op, Or, Quantified, Test

PARENT: Final = "parent."

#: Slots whose values hardly ever come twice: tested only on bits that fire, and never cached.
UNCACHED: Final = frozenset(name for event in EVENTS for name in event.taken)

#: Ways to meet a step that get bits of their own; an `or` past it is tested when a bit fires.
MAX_WAYS: Final = 16


class SlotKey(NamedTuple):
    """A slot that rows are kept for: of an event (its code), of the actor (0) or of the actor's parent (-1)."""

    code: int
    slot: str


ACTOR, PARENT_ACTOR = 0, -1

#: What each slot's value must meet, all of it.
Way: TypeAlias = dict[SlotKey, list[Expr]]


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
    if (
        ref.alias is not None
        or ref.name in HEAD_FIELD_BY_NAME
        or ref.name == ANCESTOR
        or slot_of(ref, kind) is not None
    ):
        return False
    of_creator = creator_field(ref.name)
    return of_creator is None or of_creator[1] not in CREATOR_FIELD_BY_NAME


class StepPlan(NamedTuple):
    """How one step is tested on one kind of event.

    ways: it may be met in any of these; of none, it can't. residual: what is to be tested besides. narrowed: for this kind of
    event, less is asked of the actor than for another one would be.
    """

    ways: tuple[Way, ...]
    residual: Condition | None
    narrowed: bool = False


#: What is asked of each slot, as its rows take it.
Demands: TypeAlias = tuple[tuple[SlotKey, Demand], ...]


class Asks(NamedTuple):
    """What a step asks, whatever its bit, sorted once for all generations that it is in.

    whole: of all its kinds of event one and the same, `codes`; None: it may be met in several ways. ways: each with its kind of
    event, what is asked by the way's bit, and what by the step's, since it is looked at only when a step fires.
    """

    codes: tuple[int, ...]
    whole: Demands | None
    ways: tuple[tuple[int, Demands, Demands], ...]


def asks_of(plans: dict[int, StepPlan]) -> Asks:
    """Returns what a step asks, given its plan by kind of event."""
    plans = {code: plan for code, plan in plans.items() if plan.ways}
    if all(len(plan.ways) == 1 and not plan.narrowed for plan in plans.values()):
        # What a step of several kinds of event asks of the actor is one and the same.
        whole = {key: conditions for plan in plans.values() for key, conditions in plan.ways[0].items()}
        return Asks(tuple(plans), _demands(whole), ())
    ways = []
    for code, plan in plans.items():
        for way in plan.ways:
            late = {key: conditions for key, conditions in way.items() if key.slot in UNCACHED}
            early = {key: conditions for key, conditions in way.items() if key not in late}
            ways.append((code, _demands(early), _demands(late)))
    return Asks(tuple(plans), None, tuple(ways))


def _demands(way: Way) -> Demands:
    return tuple((key, demand_of(conditions)) for key, conditions in way.items())


def plan_step(expr: Expr, code: int) -> StepPlan:
    """Sorts a step's conjuncts: those of one slot go into its row, an `or` over several slots makes several ways."""
    kind = EVENT_BY_CODE[code]
    ways: list[Way] = [{}]
    rest: list[Expr] = []
    narrowed = False
    for whole in conjuncts(normal(expr)):
        part = without(whole, lambda ref: is_missing(ref, kind))
        narrowed |= part != without(whole, lambda ref: False) and _reads_actor(whole, kind)
        if part == TRUE:
            continue
        if part == FALSE:
            return StepPlan((), None)
        arms, exact = _arms(part, kind)
        if len(arms) * len(ways) > MAX_WAYS:
            rest.append(part)
            continue
        ways = [_both(way, arm) for way, arm in itertools.product(ways, arms)]
        if not exact:
            rest.append(part)
    if len(ways) > 1 or narrowed:
        # Such bits stand for the step only until it is awaited, and that is before those slots are looked at.
        late = [part for slot, parts in ways[0].items() if slot.slot in UNCACHED for part in parts]
        rest += late
        ways = [{slot: parts for slot, parts in way.items() if slot.slot not in UNCACHED} for way in ways]
    return StepPlan(tuple(ways), condition(And(tuple(rest))) if rest else None, narrowed)


def normal(expr: Expr, negate: bool = False) -> Expr:
    """Returns the same condition with every `not` at a test or quantifier. That is the same also where values are missing."""
    match expr:
        case Not(item):
            return normal(item, not negate)
        case And(items) | Or(items):
            parts = tuple(normal(item, negate) for item in items)
            return And(parts) if isinstance(expr, And) is not negate else Or(parts)
        case _:
            return Not(expr) if negate else expr


def _arms(expr: Expr, kind: EventType) -> tuple[list[Way], bool]:
    """Returns ways of which one must be open where the expression holds, and whether that is all it says."""
    slots = {slot_of(ref, kind) for ref in fields_of(expr)}
    slot = next(iter(slots)) if len(slots) == 1 else None
    if slot is not None and not _needs_event(expr):
        return [{slot: [expr]}], True
    match expr:
        case And(items):
            found, exact = [_arms(item, kind) for item in items], True
            ways: list[Way] = [{}]
            for arms, all_said in found:
                if len(arms) * len(ways) > MAX_WAYS:
                    exact = False
                else:
                    ways = [_both(way, arm) for way, arm in itertools.product(ways, arms)]
                    exact &= all_said
            return ways, exact
        case Or(items) if not any(slot is not None and slot.slot in UNCACHED for slot in slots):
            return _alternatives(items, kind)
        case _:
            return [{}], False


def _alternatives(items: tuple[Expr, ...], kind: EventType) -> tuple[list[Way], bool]:
    # Alternatives of one slot are one way.
    by_slot: dict[SlotKey, list[Expr]] = {}
    ways: list[Way] = []
    exact = True
    for item in items:
        arms, all_said = _arms(item, kind)
        exact &= all_said
        if len(arms) == 1 and len(arms[0]) == 1 and all_said:
            ((slot, conditions),) = arms[0].items()
            by_slot.setdefault(slot, []).append(And(tuple(conditions)) if len(conditions) > 1 else conditions[0])
        else:
            ways += arms
    ways += [{slot: [Or(tuple(some)) if len(some) > 1 else some[0]]} for slot, some in by_slot.items()]
    if {} in ways:
        return [{}], False
    return ways, exact


def _both(one: Way, other: Way) -> Way:
    return {
        slot: [*one.get(slot, ()), *other.get(slot, ())]
        for slot in (*one, *(slot for slot in other if slot not in one))
    }


def _reads_actor(expr: Expr, kind: EventType) -> bool:
    return any(slot is not None and slot.code <= 0 for slot in (slot_of(ref, kind) for ref in fields_of(expr)))


def _needs_event(expr: Expr) -> bool:
    """Whether a slot's value alone doesn't decide, or is not to be looked at for every event."""
    match expr:
        case Test():
            return isinstance(expr.value, FieldRef) or expr.op is Op.TRUNCATED
        case Not(item):
            return _needs_event(item)
        case And(items) | Or(items):
            return any(map(_needs_event, items))
        case Quantified():
            return True
