"""Exact paths match by file as well: `path = X` becomes `path = X or file.names = X`, wherever it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeVar

from execray.schema.catalog import EVENT_BY_CODE
from execray.schema.kinds import Kind
from execray.schema.row import FILE_NAMES_NAME
from policyd.program import And, CompiledPolicy, Exemption, Expr, FieldRef, Handler, Not, Op, Or, Quantified, Step, Test

#: A longer list stays one of names: no set of policies may have more paths resolved.
MAX_LISTED: Final = 1024
_MAX_PATH: Final = 4095

_Conditional = TypeVar("_Conditional", Step, Handler, Exemption)


def by_file(policy: CompiledPolicy) -> CompiledPolicy:
    """Returns the policy with its tests of `path` rewritten; the very same one where it has none."""
    telling = [step for step in policy.steps if _tells(step)]
    if not telling:
        return policy
    aliases = frozenset(step.alias for step in telling if step.alias is not None)
    here = aliases | {None}
    steps = tuple(_changed(step, here if step in telling else aliases) for step in policy.steps)
    handlers = tuple(_changed(handler, here) for handler in policy.handlers)
    exemptions = tuple(_changed(exemption, here) for exemption in policy.exemptions)
    if (*steps, *handlers, *exemptions) == (*policy.steps, *policy.handlers, *policy.exemptions):
        return policy
    return replace(policy, steps=steps, handlers=handlers, exemptions=exemptions)


def _tells(step: Step) -> bool:
    """Whether it may be met by an event that says which policies' paths its file stands for."""
    return any(FILE_NAMES_NAME in EVENT_BY_CODE[code].slot_of for code in step.codes)


def _changed(part: _Conditional, known: frozenset[str | None]) -> _Conditional:
    if part.condition is None:
        return part
    condition = _expr(part.condition, known)
    return part if condition is part.condition else replace(part, condition=condition)


def _expr(expr: Expr, known: frozenset[str | None]) -> Expr:
    """Returns the expression rewritten, the very same one where nothing is. known: whose `path` is of an event that tells."""
    match expr:
        case Test(field=field) if field.name == "path" and field.alias in known:
            return _test(expr)
        case Not(item):
            inner = _expr(item, known)
            return expr if inner is item else Not(inner)
        case And(items) | Or(items):
            parts = tuple(_expr(item, known) for item in items)
            if all(part is item for part, item in zip(parts, items, strict=True)):
                return expr
            return And(parts) if isinstance(expr, And) else Or(parts)
        case Quantified(item=item):
            inner = _expr(item, known)
            return expr if inner is item else replace(expr, item=inner)
    return expr


def _test(test: Test) -> Expr:
    if test.ignore_case or test.op not in (Op.EQ, Op.NE, Op.IN):
        return test
    values = test.value if isinstance(test.value, tuple) else (test.value,)
    if len(values) > MAX_LISTED:
        return test
    paths = tuple(path for path in values if isinstance(path, bytes) and _is_exact(path))
    if not paths:
        return test
    names = FieldRef(FILE_NAMES_NAME, Kind.TEXTS, test.field.alias)
    shown = f"{test.field.alias}.{FILE_NAMES_NAME}" if test.field.alias else FILE_NAMES_NAME
    if len(paths) == 1:
        text = f'{shown} = "{paths[0].decode("utf-8", "backslashreplace")}"'
        same = Test(names, Op.EQ, paths[0], text=text)
    else:
        same = Test(names, Op.IN, paths, text=f"{shown} in [{len(paths)} paths]")
    return And((test, Not(same))) if test.op is Op.NE else Or((test, same))


def _is_exact(value: bytes) -> bool:
    """Whether it is a path that an event may have: absolute, with nothing in it that the kernel resolves."""
    if not value.startswith(b"/") or len(value) > _MAX_PATH or b"\0" in value:
        return False
    return value == b"/" or not {b"", b".", b".."} & set(value[1:].split(b"/"))
