"""Conditions as Python functions: what each relation means, and which fields an expression reads.

Two-valued throughout: a test with a missing operand is false, and `not` flips that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from execray.schema.event import Actor, Event, Value, actor_get
from execray.schema.kinds import Kind
from policyd.patterns import compile_pattern
from policyd.program import IT, And, Constant, Expr, FieldRef, Network, Not, Op, Or, Quantified, Test

#: What a quantifier goes through: a text, or a process.
Element: TypeAlias = bytes | Actor
#: The events that met earlier steps, by alias; and under IT the element in hand of a quantifier.
Bindings: TypeAlias = Mapping[str, Event | Element]
Predicate: TypeAlias = Callable[[Value], bool]
Condition: TypeAlias = Callable[[Event, Bindings], bool]
Relation: TypeAlias = Callable[[object, object], bool]

TRUE: Final = And(())
FALSE: Final = Or(())

#: The list of a process's creators, as a quantifier names it.
ANCESTOR: Final = "ancestor"
_IT_FIELD: Final = IT + "."
_V4_IN_V6: Final = bytes(10) + b"\xff\xff"


def tests_of(expr: Expr) -> Iterator[Test]:
    """Yields every test in the expression, in text order."""
    match expr:
        case Test():
            yield expr
        case Not(item):
            yield from tests_of(item)
        case And(items) | Or(items):
            for item in items:
                yield from tests_of(item)
        case Quantified(item=item):
            yield from tests_of(item)


def fields_of(expr: Expr) -> Iterator[FieldRef]:
    """Yields every field of an event that the expression reads, those on the right of a relation too."""
    match expr:
        case Test(field, _, value):
            yield field
            if isinstance(value, FieldRef):
                yield value
        case Not(item):
            yield from fields_of(item)
        case And(items) | Or(items):
            for item in items:
                yield from fields_of(item)
        case Quantified(field, item):
            yield field
            yield from (ref for ref in fields_of(item) if not is_element(ref))


def quantifiers_of(expr: Expr) -> Iterator[Quantified]:
    """Yields every quantifier in the expression, the outer before the inner."""
    match expr:
        case Not(item):
            yield from quantifiers_of(item)
        case And(items) | Or(items):
            for item in items:
                yield from quantifiers_of(item)
        case Quantified(item=item):
            yield expr
            yield from quantifiers_of(item)


def is_element(ref: FieldRef) -> bool:
    """Whether it means the element in hand of a quantifier."""
    return ref.alias is None and (ref.name == IT or ref.name.startswith(_IT_FIELD))


def conjuncts(expr: Expr) -> list[Expr]:
    """Returns the parts that must all hold, nested `and` flattened."""
    if isinstance(expr, And):
        return [part for item in expr.items for part in conjuncts(item)]
    return [expr]


def without(expr: Expr, missing: Callable[[FieldRef], bool]) -> Expr:
    """Returns the expression with every test that reads a missing field replaced by false, and simplified."""
    match expr:
        case Test(field, _, value):
            gone = missing(field) or (isinstance(value, FieldRef) and missing(value))
            return FALSE if gone else expr
        case Not(item):
            inner = without(item, missing)
            return TRUE if inner == FALSE else FALSE if inner == TRUE else Not(inner)
        case And(items):
            parts = [part for item in items if (part := without(item, missing)) != TRUE]
            return FALSE if FALSE in parts else parts[0] if len(parts) == 1 else And(tuple(parts))
        case Or(items):
            parts = [part for item in items if (part := without(item, missing)) != FALSE]
            return TRUE if TRUE in parts else parts[0] if len(parts) == 1 else Or(tuple(parts))
        case Quantified(field):
            return FALSE if missing(field) else expr


def constants_of(test: Test) -> tuple[Constant, ...]:
    """Returns the constants on the right, one or many, as a tuple; folded to lower case where case is ignored."""
    assert not isinstance(test.value, FieldRef)
    values = test.value if isinstance(test.value, tuple) else () if test.value is None else (test.value,)
    if test.ignore_case and test.op is not Op.MATCH:
        return tuple(_fold(value) for value in values)
    return values


def pick(ref: FieldRef, value: Value) -> Value:
    """Returns the element of a list that the reference names, or the value itself where it names none."""
    if ref.index is None:
        return value
    return value[ref.index] if isinstance(value, tuple) and 0 <= ref.index < len(value) else None


def predicate(test: Test) -> Predicate:
    """Compiles a test against constants. The function takes the field's value, its element already picked."""
    one = _constant_test(test)
    if test.field.kind is not Kind.TEXTS or test.field.index is not None:
        return lambda value: value is not None and one(value)
    if test.op is Op.NE:
        return lambda value: isinstance(value, tuple) and bool(value) and all(one(item) for item in value)
    if test.all and test.op is not Op.IN:
        # Each of the constants, in whichever element.
        singles = [_constant_test(_only(test, constant)) for constant in constants_of(test)]
        return lambda value: isinstance(value, tuple) and all(any(map(single, value)) for single in singles)
    return lambda value: isinstance(value, tuple) and any(map(one, value))


def condition(expr: Expr) -> Condition:
    """Compiles an expression over one event and the events that met earlier steps, by alias."""
    match expr:
        case Test():
            return _test(expr)
        case Not(item):
            inner = condition(item)
            return lambda event, bindings: not inner(event, bindings)
        case And(items):
            parts = [condition(item) for item in items]
            return lambda event, bindings: all(part(event, bindings) for part in parts)
        case Or(items):
            some = [condition(item) for item in items]
            return lambda event, bindings: any(part(event, bindings) for part in some)
        case Quantified(field, item, every):
            return _quantified(field, condition(item), every)


def read(ref: FieldRef, event: Event, bindings: Bindings) -> Value:
    """Returns the field's value; None where it is missing, also because this kind of event has no such field."""
    alias, name = ref.alias, ref.name
    if alias is not None:
        source = bindings.get(alias)
        if not isinstance(source, Event):
            return None
    elif name.startswith(IT) and is_element(ref):
        return _element_value(ref, bindings.get(IT))
    else:
        source = event
    try:
        value = source.get(name)
    except KeyError:
        return None
    return value if ref.index is None else pick(ref, value)


def networks_hold(networks: tuple[Network, ...], address: object) -> bool:
    """Whether a packed address lies in one of the networks; an IPv4 address within IPv6 counts as either."""
    if not isinstance(address, bytes):
        return False
    forms = [address, address[12:]] if len(address) == 16 and address.startswith(_V4_IN_V6) else [address]
    for form in forms:
        number = int.from_bytes(form)
        for network in networks:
            if len(form) * 8 == network.max_prefixlen and number & int(network.netmask) == int(network.network_address):
                return True
    return False


def _fold(value: object) -> Constant:
    return value.lower() if isinstance(value, bytes) else value  # type: ignore[return-value]  # bytes.lower: ASCII only


def _only(test: Test, constant: Constant) -> Test:
    return Test(test.field, test.op, constant, ignore_case=test.ignore_case)


def _test(test: Test) -> Condition:
    left = test.field
    right = test.value
    if test.op is Op.TRUNCATED:
        return lambda event, bindings: _is_truncated(left, event, bindings)
    if isinstance(right, FieldRef):
        return _comparison(test, left, right)
    holds = predicate(test)
    return lambda event, bindings: holds(read(left, event, bindings))


#: What a relation means for one value and one constant, both there and of one type.
_RELATIONS: Final[dict[Op, Callable[..., bool]]] = {
    Op.EQ: operator.eq,
    Op.IN: operator.eq,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
    Op.CONTAINS: operator.contains,
    Op.STARTSWITH: bytes.startswith,
    Op.ENDSWITH: bytes.endswith,
    Op.HAS: lambda value, bits: value & bits == bits,
    Op.HASANY: lambda value, bits: value & bits != 0,
}


def _constant_test(test: Test) -> Predicate:
    # One scalar, known not to be missing, against the constants.
    match test.op:
        case Op.TRUE:
            return bool
        case Op.EXISTS:
            return lambda value: True
        case Op.EQ | Op.IN:
            return _membership(test)
        case Op.NE:
            member = _membership(test)
            return lambda value: not member(value)
        case _:
            return _relation(test)


def _relation(test: Test) -> Predicate:
    constants = constants_of(test)
    quantifier = all if test.all else any
    if test.op is Op.MATCH:
        searches = [compile_pattern(p, test.ignore_case).search for p in constants if isinstance(p, bytes)]
        return lambda value: quantifier(search(value) is not None for search in searches)  # type: ignore[arg-type]
    relation = _RELATIONS[test.op]
    if test.ignore_case:
        return lambda value: quantifier(relation(_fold(value), constant) for constant in constants)
    return lambda value: quantifier(relation(value, constant) for constant in constants)


def _membership(test: Test) -> Predicate:
    constants = constants_of(test)
    networks = tuple(value for value in constants if not isinstance(value, int | bytes))
    exact = frozenset(value for value in constants if isinstance(value, int | bytes))
    if test.field.kind is Kind.IP:
        return lambda value: (
            value in exact
            or (isinstance(value, bytes) and value.startswith(_V4_IN_V6) and value[12:] in exact)
            or networks_hold(networks, value)
        )
    if test.ignore_case:
        return lambda value: _fold(value) in exact
    return exact.__contains__


def _is_truncated(ref: FieldRef, event: Event, bindings: Bindings) -> bool:
    source = event if ref.alias is None else bindings.get(ref.alias)
    field = source.type.by_name.get(ref.name) if isinstance(source, Event) else None
    if field is None or not isinstance(source, Event) or not source.flags & field.cut_by:
        return False
    return source.get(field.name) is not None


def _comparison(test: Test, left: FieldRef, right: FieldRef) -> Condition:
    # Field against field. Where one side is a list, some element of it decides; NE: none is equal.
    flip = test.op is Op.NE
    relation = _RELATIONS[Op.EQ if flip else test.op]
    fold = test.ignore_case
    if left.kind is not Kind.TEXTS and right.kind is not Kind.TEXTS and not fold:

        def holds_of_one(event: Event, bindings: Bindings) -> bool:
            here = read(left, event, bindings)
            there = None if here is None else read(right, event, bindings)
            return there is not None and bool(relation(here, there)) is not flip

        return holds_of_one

    def holds(event: Event, bindings: Bindings) -> bool:
        here, there = read(left, event, bindings), read(right, event, bindings)
        if here is None or there is None:
            return False
        ours, theirs = _elements(left, here), _elements(right, there)
        if fold:
            ours, theirs = tuple(map(_fold, ours)), tuple(map(_fold, theirs))
        some = any(relation(one, other) for one in ours for other in theirs)
        return (not some and bool(ours)) if flip else some

    return holds


def _quantified(field: FieldRef, item: Condition, every: bool) -> Condition:
    def holds(event: Event, bindings: Bindings) -> bool:
        found = (item(event, {**bindings, IT: element}) for element in members(field, event, bindings))
        if not every:
            return any(found)
        first = next(found, False)
        return first and all(found)

    return holds


def members(field: FieldRef, event: Event, bindings: Bindings) -> Iterator[bytes | Actor]:
    """Yields the elements of a list: texts, or the creators of the actor, nearest first."""
    if field.name != ANCESTOR:
        value = read(field, event, bindings)
        yield from value if isinstance(value, tuple) else ()  # type: ignore[misc]  # a list of text: a tuple of bytes
        return
    source = event if field.alias is None else bindings.get(field.alias)
    actor = source.actor.parent if isinstance(source, Event) else None
    while actor is not None:
        yield actor
        actor = actor.parent


def _element_value(ref: FieldRef, element: Event | Element | None) -> Value:
    if isinstance(element, Actor):
        return pick(ref, actor_get(element, ref.name.removeprefix(_IT_FIELD)))
    return element if isinstance(element, bytes) else None


def _elements(ref: FieldRef, value: Value) -> tuple[object, ...]:
    if ref.kind is Kind.TEXTS and ref.index is None and isinstance(value, tuple):
        return value
    return (value,)
