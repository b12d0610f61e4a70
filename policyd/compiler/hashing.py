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
    )
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _step(step: Step) -> object:
    return step.codes, _expr(step.condition), step.alias, step.labels, step.within_ns


def _handler(handler: Handler) -> object:
    condition = _expr(handler.condition) if handler.condition is not None else None
    # Actions are flat dataclasses of numbers and enum members: their repr says all.
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
            operand = _field(value) if isinstance(value, FieldRef) else repr(value)
            return expr.op.value, _field(expr.field), operand, expr.all, expr.ignore_case


def _field(field: FieldRef) -> object:
    return field.name, field.kind.value, field.alias, field.index
