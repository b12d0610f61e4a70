"""What can't be said for sure: three-valued truth, where a value was cut off or could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from execray.schema.catalog import ACTOR_FIELD_BY_NAME, ACTOR_SLOT_OF, Flag
from execray.schema.event import Actor, Event, actor_get, creator_field, creator_of
from policyd.engine.conditions import (
    ANCESTOR,
    Bindings,
    condition,
    fields_of,
    is_element,
    members,
    quantifiers_of,
)
from policyd.program import IT, And, Expr, FieldRef, Not, Op, Or, Quantified, Test

_UNKNOWN: Final = Flag.UNREADABLE | Flag.OLD_CREDS_UNKNOWN
#: A line of creators that ends elsewhere than at init or kthreadd isn't known to its end.
_LAST_PIDS: Final = frozenset({0, 1, 2})


class Judged:
    """An expression that can be judged with doubt. To evaluate it is as fast as without, while its values are whole."""

    __slots__ = ("_expr", "_hesitant", "_holds", "reads")

    def __init__(self, expr: Expr) -> None:
        self._expr = expr
        self._holds = condition(expr)
        self.reads = tuple(dict.fromkeys(fields_of(expr)))  # what it asks of events
        self._hesitant = any(quantified.field.name == ANCESTOR for quantified in quantifiers_of(expr))

    def truth(self, event: Event, bindings: Bindings) -> bool | None:
        """Whether it holds; None where a value that was not wholly known leaves that open."""
        if self._may_be_unsure(event, bindings):
            return truth(self._expr, event, bindings)
        return self._holds(event, bindings)

    def is_doubtful(self, event: Event, bindings: Bindings) -> bool:
        """Whether it can't be said for sure that it holds or doesn't."""
        return self._may_be_unsure(event, bindings) and truth(self._expr, event, bindings) is None

    def _may_be_unsure(self, event: Event, bindings: Bindings) -> bool:
        return self._hesitant or any(is_unsure(ref, event, bindings) for ref in self.reads)


def slots_behind(refs: Iterable[FieldRef]) -> int:
    """Returns the slots of an actor, as bits, that must be there: nothing of an event without flags is then in doubt.

    Returns -1 where more than these decides.
    """
    slots = 0
    for ref in refs:
        if ref.alias is not None or is_element(ref) or ref.name == ANCESTOR or creator_field(ref.name) is not None:
            return -1
        field = ACTOR_FIELD_BY_NAME.get(ref.name)
        if field is not None and not field.optional:
            slots |= 1 << ACTOR_SLOT_OF[field.derived or field.name]
    return slots


def is_unsure(ref: FieldRef, event: Event, bindings: Bindings) -> bool:
    """Whether a value was cut off, or could not be read, when the event was captured.

    Every process has what most of an actor's fields say: one that is missing is unknown. So are a creator's whose end came
    before us.
    """
    if is_element(ref):
        # Of a creator; the flags speak of the event and its actor only.
        element = bindings.get(IT)
        return isinstance(element, Actor) and _is_unknown(element, ref.name.removeprefix(f"{IT}."))
    source = event if ref.alias is None else bindings.get(ref.alias)
    if not isinstance(source, Event):
        return False
    if ref.name == ANCESTOR:
        return not _reaches_the_first(source.actor)
    of_creator = creator_field(ref.name)
    if of_creator is not None:
        steps, name = of_creator
        creator = creator_of(source.actor, steps)
        # A line that begins with init or kthreadd has no further creator, and that is known.
        return not _reaches_the_first(source.actor) if creator is None else _is_unknown(creator, name)
    return _is_cut_or_unread(source, ref.name)


def _is_cut_or_unread(event: Event, name: str) -> bool:
    field = event.type.by_name.get(name)
    if field is None:
        return False
    if event.flags and event.flags & field.cut_by:
        return True
    if field.name in ACTOR_FIELD_BY_NAME:
        return _is_unknown(event.actor, field.name)
    if field.optional:
        return False
    # The flags first: most events have none, and to look at one is slow.
    return bool(event.flags and event.flags & _UNKNOWN) and event.get(field.name) is None


def _is_unknown(actor: Actor, name: str) -> bool:
    field = ACTOR_FIELD_BY_NAME.get(name)
    return field is not None and not field.optional and actor_get(actor, name) is None


def truth(expr: Expr, event: Event, bindings: Bindings) -> bool | None:
    """Whether an expression holds, or None. Of `a or b`, what is sure of `a` may be enough, whatever `b` is."""
    match expr:
        case Test():
            return _test(expr, event, bindings)
        case Quantified():
            return _quantified(expr, event, bindings)
        case Not(item):
            inner = truth(item, event, bindings)
            return None if inner is None else not inner
        case And(items):
            found = {truth(item, event, bindings) for item in items}
            return False if False in found else None if None in found else True
        case Or(items):
            found = {truth(item, event, bindings) for item in items}
            return True if True in found else None if None in found else False


def _test(expr: Test, event: Event, bindings: Bindings) -> bool | None:
    holds = condition(expr)(event, bindings)
    # What has been captured of a value exists, however much of it was left out.
    if expr.op is Op.TRUNCATED or (expr.op is Op.EXISTS and holds):
        return holds
    refs = (expr.field, expr.value) if isinstance(expr.value, FieldRef) else (expr.field,)
    return None if any(is_unsure(ref, event, bindings) for ref in refs) else holds


def _quantified(expr: Quantified, event: Event, bindings: Bindings) -> bool | None:
    elements = list(members(expr.field, event, bindings))
    unsure = is_unsure(expr.field, event, bindings)
    if unsure and expr.field.name != ANCESTOR:
        return None  # of a list that was cut, the last element may be cut too
    found = {truth(expr.item, event, {**bindings, IT: element}) for element in elements}
    if not expr.every:
        return True if True in found else None if unsure or None in found else False
    if False in found:
        return False
    return None if unsure or None in found else bool(elements)


def _reaches_the_first(actor: Actor) -> bool:
    while actor.parent is not None:
        actor = actor.parent
    return actor.id[0] in _LAST_PIDS
