"""A policy's hash: equal for policies that behave alike, whatever their layout, comments and place."""

from __future__ import annotations

import hashlib

from policyd.program import (
    And,
    CompiledPolicy,
    Expr,
    FieldRef,
    Handler,
    Not,
    Or,
    Quantified,
    Step,
    Test,
)

# Raised when the same source begins to mean something else, so that running sequences are not carried over.
_MEANING = 1


def policy_hash(policy: CompiledPolicy) -> str:
    """Returns sha256, in hex, of everything that decides what the policy does; its own `hash` is not read."""
    facts = (
        _MEANING,
        policy.name,
        policy.meta.severity.name,
        policy.key.value,
        policy.within_ns,
        policy.response.value,
        policy.max_partials,
        policy.throttle,
        tuple(_step(step) for step in policy.steps),
        tuple((tuple((t.step, t.target) for t in s.transitions), s.repeats, s.accepting) for s in policy.states),
        tuple(_handler(handler) for handler in policy.handlers),
        None if policy.throttle_by is None else tuple(map(_field, policy.throttle_by)),
        (policy.mode.overlap.value, policy.mode.copies),
        tuple((until.step, until.states) for until in policy.untils),
        tuple((_expr(exempt.condition), exempt.reason) for exempt in policy.exemptions),
    )
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _step(step: Step) -> object:
    counted = step.times
    distinct = None if counted is None or counted.distinct is None else _field(counted.distinct)
    times = None if counted is None else (counted.count, counted.within_ns, distinct)
    key = tuple(_field(field) for field in step.key)
    return step.codes, _expr(step.condition), step.alias, step.labels, step.within_ns, key, times


def _handler(handler: Handler) -> object:
    condition = _expr(handler.condition) if handler.condition is not None else None
    # Actions are dataclasses of numbers, texts, enum members and references to fields: their repr says all.
    return handler.step, condition, handler.labels, tuple(repr(action) for action in handler.actions)


def _expr(expr: Expr) -> object:
    match expr:
        case And(items=items):
            return "and", tuple(_expr(item) for item in items)
        case Or(items=items):
            return "or", tuple(_expr(item) for item in items)
        case Not(item=item):
            return "not", _expr(item)
        case Test():
            value = expr.value
            operand = _field(value) if isinstance(value, FieldRef) else _constants(value)
            return expr.op.value, _field(expr.field), operand, expr.all, expr.ignore_case
        case Quantified(field=field, item=item, every=every):
            return "all" if every else "any", _field(field), _expr(item)


_LONG = 32
_MOST_LISTS = 1024
_lists: dict[int, tuple[object, str]] = {}


def _constants(value: object) -> str:
    """Constants as text. That of a long list is its digest, and is kept: thousands of policies may share the list."""
    if not isinstance(value, tuple) or len(value) < _LONG:
        return repr(value)
    known = _lists.get(id(value))
    if known is None or known[0] is not value:
        if len(_lists) >= _MOST_LISTS:
            _lists.clear()
        known = _lists[id(value)] = (value, hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest())
    return known[1]


def _field(field: FieldRef) -> object:
    return field.name, field.kind.value, field.alias, field.index
