"""Which system calls a policy's `syscall` steps can be met by: the kernel records those, and no others."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.numbers import MAX_NUMBER
from policyd.program import And, CompiledPolicy, Expr, Not, Op, Or, Test

_SYSCALL: Final = EVENT_BY_NAME["syscall"].code
_COMPARE: Final[dict[Op, Callable[[int, int], bool]]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.LT: operator.lt,
    Op.LE: operator.le,
    Op.GT: operator.gt,
    Op.GE: operator.ge,
}


def numbers_of(policy: CompiledPolicy) -> frozenset[int]:
    """Returns the numbers that some step doesn't rule out, whatever else the call is."""
    conditions = [step.condition for step in policy.steps if _SYSCALL in step.codes]
    if not conditions:
        return frozenset()
    return frozenset(n for n in range(MAX_NUMBER) if any(_holds(expr, n) is not False for expr in conditions))


def _holds(expr: Expr, number: int) -> bool | None:
    """Whether it holds for a call of this number; None where that depends on something else."""
    match expr:
        case Test(field, op, int() as value) if _is_number(field.name, field.alias) and op in _COMPARE:
            return _COMPARE[op](number, value)
        case Test(field, Op.IN, tuple() as values) if _is_number(field.name, field.alias):
            return number in values
        case Not(item):
            inner = _holds(item, number)
            return None if inner is None else not inner
        case And(items):
            found = {_holds(item, number) for item in items}
            return False if False in found else None if None in found else True
        case Or(items):
            found = {_holds(item, number) for item in items}
            return True if True in found else None if None in found else False
    return None


def _is_number(name: str, alias: str | None) -> bool:
    return name == "nr" and alias is None
