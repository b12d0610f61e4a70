"""Compiled policies written by hand, so that tests of the engine don't rest on the compiler."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from execray.schema.catalog import EVENT_BY_NAME, EVENTS, HEAD_FIELD_BY_NAME
from execray.schema.event import creator_field
from policyd.program import (
    And,
    CompiledPolicy,
    Exemption,
    Expr,
    FieldRef,
    Handler,
    KeyKind,
    Mode,
    Op,
    Place,
    State,
    Step,
    Test,
    Times,
    Transition,
)

_KINDS = {field.name: field.kind for kind in EVENTS for field in kind.by_name.values()}
_KINDS |= {name: field.kind for name, field in HEAD_FIELD_BY_NAME.items()}
HERE = Place("test.policy", 1, 1)


def ref(name: str) -> FieldRef:
    """`path`, `argv[0]`, `parent.exe`; `dl:path` for the field of an earlier step."""
    alias, _, name = name.rpartition(":")
    name, _, index = name.partition("[") if not name.startswith("ancestor[") else (name, "", "")
    of_creator = creator_field(name)
    kind = _KINDS[of_creator[1] if of_creator else name]
    return FieldRef(name, kind, alias or None, int(index[:-1]) if index else None)


def test(field: str, op: Op, value: Any = None, *, all: bool = False, ignore_case: bool = False) -> Test:
    """A test; str becomes bytes, `$name` a reference to a field."""
    return Test(ref(field), op, _operand(value), all, ignore_case, f"{field} {op.value} {value}")


test.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def eq(field: str, value: Any) -> Test:
    """field = value."""
    return test(field, Op.EQ, value)


def _operand(value: Any) -> Any:
    if isinstance(value, str):
        return ref(value[1:]) if value.startswith("$") else value.encode("latin-1")
    if isinstance(value, list | tuple):
        return tuple(_operand(item) for item in value)
    return value


def step(events: str, *conditions: Expr, **options: Any) -> Step:
    """`open|write` and conditions that must all hold."""
    codes = tuple(EVENT_BY_NAME[name].code for name in events.split("|"))
    condition = conditions[0] if len(conditions) == 1 else And(conditions)
    return Step(codes, condition, events, HERE, **options)


def chain(count: int, repeats: dict[int, tuple[int, ...]] | None = None) -> tuple[State, ...]:
    """The states of `count` steps in a row; repeats: state -> steps."""
    repeats = repeats or {}
    places = [State((Transition(i, i + 1),), repeats.get(i, ())) for i in range(count)]
    return (*places, State(accepting=True))


def policy(
    name: str,
    *steps: Step,
    key: KeyKind = KeyKind.PROCESS,
    within_s: float | None = 300,
    states: tuple[State, ...] | None = None,
    handlers: tuple[Handler, ...] = (),
    max_partials: int = 1024,
    mode: Mode = Mode(),  # noqa: B008  # immutable
    version: int = 1,
    **options: Any,
) -> CompiledPolicy:
    """A policy of these steps in a row, or over the states given. version stands for what else decides its hash."""
    places = states or chain(len(steps))
    window = None if within_s is None else round(within_s * 1e9)
    facts = (steps, places, key, window, max_partials, mode, version, sorted(options.items()))
    return CompiledPolicy(
        name,
        HERE,
        hashlib.sha256(repr(facts).encode()).hexdigest(),
        steps,
        places,
        handlers,
        key=key,
        within_ns=window,
        max_partials=max_partials,
        mode=mode,
        **options,
    )


def keyed(by: str, *steps: Step) -> tuple[Step, ...]:
    """The steps with a key: `path`, or `path, uid`; for each step another, `path > exe`."""
    names = by.split(" > ")
    keys = [tuple(ref(name) for name in one.split(", ") if name) for one in names]
    return tuple(replace(step, key=keys[min(index, len(keys) - 1)]) for index, step in enumerate(steps))


def times(one: Step, count: int, within_s: float | None = None, distinct: str | None = None) -> Step:
    """`one times count distinct FIELD within SECONDS`."""
    window = None if within_s is None else round(within_s * 1e9)
    return replace(one, times=Times(count, window, ref(distinct) if distinct else None))


def exemption(condition: Expr, reason: str = "known") -> Exemption:
    """`except REASON { condition }`."""
    return Exemption(condition, reason, HERE)
