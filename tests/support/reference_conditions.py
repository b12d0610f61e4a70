"""Conditions written plainly from the language reference, section 4: what a test says of an event, and whether that is sure.

Shares nothing with the engine. Regular expressions run on Python's `re`; the generators keep to what it and RE2 agree about.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from execray.schema.catalog import HEAD_FIELD_BY_NAME, NO_FLAG, Flag
from execray.schema.event import Actor, Event, actor_get
from policyd.program import IT, And, Expr, FieldRef, Not, Op, Or, Quantified, Test

#: With one of these, what an event lacks is not known to be absent.
UNKNOWN = Flag.UNREADABLE | Flag.OLD_CREDS_UNKNOWN
#: The kernel's idle task, init and kthreadd: nobody in the system made them.
FIRST_PIDS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the captured bytes say, and whether the whole value could not have said otherwise."""

    holds: bool
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """A field's value, None when missing; cut: it was captured in part only; sure: it is known to be this."""

    value: Any
    sure: bool = True
    cut: bool = False


MISSING = Known(None)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a condition looks at: an event, the events of earlier steps, and inside of a quantifier the element in hand."""

    event: Event
    bindings: Mapping[str, Event]
    it: Any = None


def judge(expr: Expr, scope: Scope) -> Verdict:
    """Evaluates a condition."""
    match expr:
        case Test():
            return _test(expr, scope)
        case Not(item):
            inner = judge(item, scope)
            return Verdict(not inner.holds, inner.sure)
        case And(items):
            return every([judge(item, scope) for item in items])
        case Or(items):
            return some([judge(item, scope) for item in items])
        case Quantified(field, item, each):
            return _quantified(_elements(field, scope), item, each, scope)


def _quantified(elements: Known, item: Expr, each: bool, scope: Scope) -> Verdict:
    # `any` over a missing or an empty list is false, and so is `all`; `none` is not-any.
    if not elements.value:
        return Verdict(False, elements.sure)
    verdicts = [judge(item, Scope(scope.event, scope.bindings, it)) for it in elements.value]
    if elements.cut:  # every element is a value that was captured in part
        verdicts = [Verdict(verdict.holds, False) for verdict in verdicts]
    elif not elements.sure:  # a creator further up could say otherwise
        verdicts.append(Verdict(each, False))
    return every(verdicts) if each else some(verdicts)


def every(verdicts: list[Verdict]) -> Verdict:
    """And: one that surely fails decides; otherwise all count."""
    if all(v.holds for v in verdicts):
        return Verdict(True, all(v.sure for v in verdicts))
    return Verdict(False, any(v.sure and not v.holds for v in verdicts))


def some(verdicts: list[Verdict]) -> Verdict:
    """Or: one that surely holds decides; otherwise all count."""
    if any(v.holds for v in verdicts):
        return Verdict(True, any(v.sure and v.holds for v in verdicts))
    return Verdict(False, all(v.sure for v in verdicts))


def read(ref: FieldRef, scope: Scope) -> Known:
    """Returns a field's value as the language names it."""
    head, _, rest = ref.name.partition(".")
    if head == IT:
        value = actor_get(scope.it, rest) if rest else scope.it
        return Known(_indexed(value, ref.index))
    event = scope.bindings.get(ref.alias) if ref.alias is not None else scope.event
    if event is None:  # the branch of this alias was not taken: read there, it is missing
        return MISSING
    if head == "parent" or head.startswith("ancestor["):
        steps = 1 if head == "parent" else 1 + int(head[9:-1])
        creator = _creators(event)[steps - 1 : steps]
        if not creator:
            return Known(None, _is_whole_line(event))
        value = max(0, event.time_ns - creator[0].id[1]) if rest == "proc.age" else actor_get(creator[0], rest)
        return Known(_indexed(value, ref.index))
    field = event.type.by_name.get(ref.name)
    if field is None and ref.name not in HEAD_FIELD_BY_NAME:  # another event of the same step has it
        return MISSING
    whole = event.get(ref.name)
    cut = bool(event.flags & (field.cut_by if field else NO_FLAG))
    optional = field is not None and field.optional  # a missing one says that there is none
    unknown = whole is None and not optional and bool(event.flags & UNKNOWN)
    value = _indexed(whole, ref.index)
    return Known(value, not cut and not unknown, cut and value is not None)


def _indexed(value: Any, index: int | None) -> Any:
    if index is None or value is None:
        return value
    return value[index] if index < len(value) else None


def _creators(event: Event) -> list[Actor]:
    """All creators of the actor, nearest first."""
    out, at = [], event.actor.parent
    while at is not None:
        out.append(at)
        at = at.parent
    return out


def _is_whole_line(event: Event) -> bool:
    """Whether the creators' line reaches the first processes of the kernel or of user space; a long one is cut."""
    return [event.actor, *_creators(event)][-1].id[0] <= FIRST_PIDS


def _elements(field: FieldRef, scope: Scope) -> Known:
    if field.name != "ancestor":
        return read(field, scope)
    event = scope.bindings.get(field.alias) if field.alias is not None else scope.event
    return Known(_creators(event), _is_whole_line(event)) if event else MISSING


def _test(test: Test, scope: Scope) -> Verdict:
    left = read(test.field, scope)
    if test.op is Op.EXISTS:
        return Verdict(left.value is not None, left.value is not None or left.sure)
    if test.op is Op.TRUNCATED:
        return Verdict(left.cut)
    right = read(test.value, scope) if isinstance(test.value, FieldRef) else Known(test.value)
    sure = left.sure and right.sure
    # Missing = false, whichever side it is on, and for `!=` too.
    if left.value is None or (isinstance(test.value, FieldRef) and right.value is None):
        return Verdict(False, sure)
    return Verdict(_compare(test, left.value, right.value), sure)


def _compare(test: Test, left: Any, right: Any) -> bool:
    if test.ignore_case:
        left, right = _folded(left), right if test.op is Op.MATCH else _folded(right)
    if not _is_list(left):
        return _one(test, left, right)
    if test.op is Op.NE:  # non-empty, and no element equal
        return bool(left) and all(element != right for element in left)
    if test.all:  # each literal in some element, not all in one
        return all(any(_one(test, element, (literal,)) for element in left) for literal in right)
    return any(_one(test, element, right) for element in left)


def _is_list(value: Any) -> bool:
    # A process id is a pair of numbers, a list is one of texts.
    return isinstance(value, tuple) and not any(isinstance(item, int) for item in value)


def _folded(value: Any) -> Any:
    """ASCII only, which is what bytes.lower() does."""
    if isinstance(value, tuple):
        return tuple(_folded(item) for item in value)
    return value.lower() if isinstance(value, bytes) else value


_TEXT: dict[Op, Callable[[bytes, bytes], bool]] = {
    Op.CONTAINS: lambda text, needle: needle in text,
    Op.STARTSWITH: lambda text, needle: text.startswith(needle),
    Op.ENDSWITH: lambda text, needle: text.endswith(needle),
}
_VALUES: dict[Op, Callable[[Any, Any], bool]] = {
    Op.EQ: lambda left, right: bool(left == right),
    Op.NE: lambda left, right: bool(left != right),
    Op.LT: lambda left, right: bool(left < right),
    Op.LE: lambda left, right: bool(left <= right),
    Op.GT: lambda left, right: bool(left > right),
    Op.GE: lambda left, right: bool(left >= right),
    Op.IN: lambda left, right: any(_is_in(left, item) for item in right),
    Op.HAS: lambda left, right: left & right == right,
    Op.HASANY: lambda left, right: bool(left & right),
    Op.TRUE: lambda left, _: bool(left),
}


def _one(test: Test, left: Any, right: Any) -> bool:
    """A test of one value that is there."""
    if test.op is Op.MATCH:
        return any(_pattern(item, test.ignore_case).search(left) for item in right)
    if test.op in _TEXT:
        literals = right if isinstance(right, tuple) else (right,)
        found = [_TEXT[test.op](left, literal) for literal in literals]
        return all(found) if test.all else any(found)
    return _VALUES[test.op](left, right)


def _is_in(value: Any, item: Any) -> bool:
    if isinstance(item, ipaddress.IPv4Network | ipaddress.IPv6Network):
        address = ipaddress.ip_address(value)
        return address.version == item.version and address in item
    return bool(value == item)


@lru_cache
def _pattern(pattern: bytes, ignore_case: bool) -> re.Pattern[bytes]:
    # Dot matches newline, and `$` and RE2's \z only the very end; in Python's dialect that is \Z.
    pattern = pattern.replace(rb"\z", rb"\Z")
    if pattern.endswith(b"$"):
        pattern = pattern[:-1] + rb"\Z"
    return re.compile(pattern, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
