"""For which numbers a condition on one field may hold: ranges, as far as the kernel compares them.

An address is a number as well (execray.gate.addresses), of which some stand for several addresses.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from execray.gate.addresses import V4_PLACES, addresses_at, as_v6, place_at
from execray.schema.kinds import Kind
from policyd.engine.conditions import constants_of
from policyd.program import And, Constant, Expr, FieldRef, Network, Not, Op, Or, Test

_LOWEST: Final = -(1 << 63)
_HIGHEST: Final = (1 << 63) - 1
#: Ranges that a condition on a number is split into, at most.
_MAX_SPANS: Final = 64

#: Ranges of numbers, ends included, in order and apart.
Spans: TypeAlias = tuple[tuple[int, int], ...]
EVERY: Final[Spans] = ((_LOWEST, _HIGHEST),)


def spans(expr: Expr, name: str) -> Spans:
    """Returns the values of a field, of those that are known, for which a condition in negation normal form may hold."""
    match expr:
        case Test():
            return _span_test(expr, name)
        case Not(Test() as test):
            return _others(test, name)
        case And(items):
            found = EVERY
            for item in items:
                found = _both(found, spans(item, name))
            return found
        case Or(items):
            return _joined([span for item in items for span in spans(item, name)])
        case _:
            return EVERY


def _span_test(test: Test, name: str) -> Spans:
    if test.field.kind is Kind.IP:
        may, must = _of_addresses(test, name)
        return outside(must) if test.op is Op.NE else may
    numbers = _numbers(test, name)
    match test.op:
        case Op.TRUE if test.field.name == name:
            return outside(((0, 0),))
        case Op.EQ | Op.IN if numbers:
            return _joined([(number, number) for number in numbers])
        case Op.NE if 0 < len(numbers) <= _MAX_SPANS:
            return outside(_joined([(number, number) for number in numbers]))
        case Op.LT | Op.LE | Op.GT | Op.GE if len(numbers) == 1:
            return _half(test.op, numbers[0])
        case _:
            return EVERY


_INVERTIBLE: Final = frozenset({Op.EQ, Op.IN, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE})


def _others(test: Test, name: str) -> Spans:
    """The values for which a test doesn't hold; of one whose own values are not exactly known, every one."""
    if test.field.name != name:
        return EVERY
    if test.op is Op.EXISTS:
        return ()  # it is known, so it is there
    if test.field.kind is Kind.IP:
        may, must = _of_addresses(test, name)
        return may if test.op is Op.NE else outside(must)
    exact = test.op is Op.TRUE or (test.op in _INVERTIBLE and 0 < len(_numbers(test, name)) <= _MAX_SPANS)
    return outside(_span_test(test, name)) if exact else EVERY


def _numbers(test: Test, name: str) -> list[int]:
    """The constants, where the test is one of this field against numbers and nothing else."""
    if test.field.name != name or isinstance(test.value, FieldRef):
        return []
    found: list[Constant] = list(constants_of(test))
    numbers = [int(value) for value in found if isinstance(value, int)]
    inside = len(numbers) == len(found) and all(_LOWEST < number < _HIGHEST for number in numbers)
    return numbers if inside else []


def _half(op: Op, number: int) -> Spans:
    match op:
        case Op.LT:
            return ((_LOWEST, number - 1),)
        case Op.LE:
            return ((_LOWEST, number),)
        case Op.GT:
            return ((number + 1, _HIGHEST),)
        case _:
            return ((number, _HIGHEST),)


def _both(one: Spans, other: Spans) -> Spans:
    found = [(max(a, c), min(b, d)) for a, b in one for c, d in other if max(a, c) <= min(b, d)]
    return _joined(found)


def outside(inside: Spans) -> Spans:
    """Returns all other numbers."""
    found, at = [], _LOWEST
    for low, high in inside:
        if low > at:
            found.append((at, low - 1))
        at = high + 1
    return (*found, (at, _HIGHEST)) if at <= _HIGHEST else tuple(found)


def _joined(found: list[tuple[int, int]]) -> Spans:
    out: list[tuple[int, int]] = []
    for low, high in sorted(found):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    # Of too many, what lies between the outermost: more than was asked for.
    return tuple(out) if len(out) <= _MAX_SPANS else ((out[0][0], out[-1][1]),)


# --- addresses --------------------------------------------------------------------------------------------------------


def places_of(constant: bytes | Network) -> tuple[Spans, Spans]:
    """Returns where addresses stand of which some are meant by an address or a network, and where they all are.

    An IPv4 address within IPv6 is meant by both, and stands where the IPv4 address does, which IPv6 networks don't mean.
    """
    if isinstance(constant, bytes):
        first = last = as_v6(constant)
        is_v4 = len(constant) == 4
    else:
        ends = constant.network_address, constant.broadcast_address
        first, last = (as_v6(address.packed) for address in ends)
        is_v4 = constant.version == 4
    low, high = may = place_at(first), place_at(last)
    if addresses_at(low)[0] < first:
        low += 1
    if addresses_at(high)[1] > last:
        high -= 1
    must: Spans = ((low, high),) if low <= high else ()
    return (may,), must if is_v4 else _both(must, outside((V4_PLACES,)))


def _of_addresses(test: Test, name: str) -> tuple[Spans, Spans]:
    """The same of all constants that a test of this field compares with. Of what isn't known, all may be, and none must."""
    constants = () if isinstance(test.value, FieldRef) or test.field.name != name else constants_of(test)
    meant = [places_of(constant) for constant in constants if not isinstance(constant, int)]
    if test.op not in (Op.EQ, Op.IN, Op.NE) or not meant or len(meant) < len(constants):
        return EVERY, ()
    may, must = ([span for each in meant for span in each[which]] for which in (0, 1))
    return _joined(may), _joined(must) if len(must) <= _MAX_SPANS else ()
