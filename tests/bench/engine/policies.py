"""The fixed set of policies that the engine is measured with: ten shapes, five kinds of key, three steps each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from policyd.program import CompiledPolicy, Expr, KeyKind, Not, Op, Or, Step
from tests.support.programs import eq, policy, ref, step, test, times

#: How many policies the whole set has; and how many of them, at most, can be made busy.
WHOLE = 1000
BUSY = 200

_KEYS = ("process", "parent", "path", "session", "tree")
_LONG = 1 << 20


def policies(count: int = WHOLE, busy: int = 0) -> list[CompiledPolicy]:
    """Returns the first `count` policies; `busy` of them are given a first step that one event in five meets."""
    chosen = set(random.Random(7).sample(range(count), min(count, BUSY))[:busy])
    return [_policy(number, number in chosen) for number in range(count)]


def story(number: int) -> tuple[str, str]:
    """Returns the shape and the key of a policy, by their names."""
    return _SHAPES[number % len(_SHAPES)].__name__.strip("_"), _KEYS[number // len(_SHAPES) % len(_KEYS)]


def _policy(n: int, busy: bool) -> CompiledPolicy:
    steps = _SHAPES[n % len(_SHAPES)](n)
    if busy:
        steps = (step("open", test("path", Op.STARTSWITH, ("/srv/www/",)), alias=steps[0].alias), *steps[1:])
    kind = _KEYS[n // len(_SHAPES) % len(_KEYS)]
    key = {"process": KeyKind.PROCESS, "tree": KeyKind.TREE}.get(kind, KeyKind.FIELDS)
    if key is KeyKind.FIELDS:
        steps = tuple(replace(one, key=(ref(_key_field(kind, one, index)),)) for index, one in enumerate(steps))
    return policy(f"{_SHAPES[n % len(_SHAPES)].__name__}{n}", *steps, key=key, within_s=(15, 60, 300)[n % 3])


def _key_field(kind: str, one: Step, index: int) -> str:
    match kind:
        case "parent":
            return "proc.id" if index == 0 else "parent.proc.id"
        case "session":
            return "session.id"
        case _:
            return "path" if one.text in ("open", "write") else "exe"


def _port(low: int, high: int) -> tuple[Expr, ...]:
    return (test("dst.port", Op.GE, low), test("dst.port", Op.LE, high))


def _exact(n: int) -> tuple[Step, ...]:
    return (
        step("open", eq("path", f"/etc/app{n}.conf"), test("access", Op.HAS, 1), alias="o"),
        step("write", test("path", Op.IN, (f"/var/spool/app{n}", f"/var/cache/app{n}"))),
        step("connect", eq("dst.port", 20_000 + n)),
    )


def _prefix(n: int) -> tuple[Step, ...]:
    where = (f"/tmp/.stage{n}/", f"/dev/shm/stage{n}/")
    return (
        step("open", eq("created", True), test("path", Op.STARTSWITH, where), alias="o"),
        step("write", test("path", Op.STARTSWITH, where)),
        step("exec", test("exe", Op.STARTSWITH, where), test("ret", Op.GE, 0)),
    )


def _suffix(n: int) -> tuple[Step, ...]:
    return (
        step("open", test("path", Op.ENDSWITH, (f".key{n}", f".pem{n}")), alias="o"),
        step("write", test("path", Op.ENDSWITH, (f".out{n}",))),
        step("exec", test("exe", Op.ENDSWITH, (f"/send{n}",))),
    )


def _regex(n: int) -> tuple[Step, ...]:
    return (
        step("open", test("path", Op.MATCH, (f"^/home/[^/]+/\\.cred{n}/(id|token)[0-9]*$",)), alias="o"),
        step("write", test("path", Op.MATCH, (f"/drop{n}[a-z]*\\.(zip|gz)$",))),
        step("connect", test("dst.ip", Op.NE, b"\x7f\x00\x00\x01"), *_port(30_000 + n, 30_001 + n)),
    )


def _range(n: int) -> tuple[Step, ...]:
    return (
        step(
            "open",
            test("uid", Op.GE, 1000),
            test("uid", Op.LT, 60_000),
            test("ret", Op.GE, 0),
            test("path", Op.STARTSWITH, (f"/mnt/share{n}/",)),
            alias="o",
        ),
        step("write", test("len", Op.GE, _LONG + 64 * n), test("len", Op.LT, _LONG + 64 * n + 64)),
        step("connect", *_port(40_000 + 2 * n, 40_001 + 2 * n)),
    )


def _either(n: int) -> tuple[Step, ...]:
    return (
        step("open", Or((test("path", Op.ENDSWITH, (f"/vault{n}.db",)), eq("exe", f"/opt/vault{n}"))), alias="o"),
        step("connect", Or((eq("dst.port", 50_000 + n), eq("exe", f"/opt/relay{n}")))),
        step("write", Or((eq("path", f"/out{n}"), test("path", Op.CONTAINS, (f"/exfil{n}/",))))),
    )


def _reference(n: int) -> tuple[Step, ...]:
    return (
        step("open", test("path", Op.STARTSWITH, (f"/data/set{n}/",)), alias="o"),
        step("write", test("path", Op.EQ, "$o:path"), test("len", Op.GT, _LONG), alias="w"),
        step("connect", eq("dst.port", 10_000 + n), test("uid", Op.EQ, "$w:uid")),
    )


def _count(n: int) -> tuple[Step, ...]:
    return (
        times(step("open", test("path", Op.STARTSWITH, (f"/scan{n}/",)), alias="o"), 5, 10, distinct="path"),
        times(step("write", test("path", Op.STARTSWITH, (f"/scan{n}/",))), 3, 10),
        step("connect", eq("dst.port", 15_000 + n)),
    )


def _arguments(n: int) -> tuple[Step, ...]:
    return (
        step("exec", test("cmdline", Op.CONTAINS, (f"--agent={n} ",)), Not(eq("uid", 0)), alias="o"),
        step(
            "open",
            test("path", Op.IN, (f"/etc/agent{n}", "/etc/agents")),
            Not(test("exe", Op.IN, ("/usr/bin/agentd",))),
        ),
        step("connect", test("argv", Op.CONTAINS, (f"--agent={n}",)), eq("dst.port", 443)),
    )


def _child(n: int) -> tuple[Step, ...]:
    return (
        step("exec", test("name", Op.IN, ("sh", "bash", "dash")), eq("parent.exe", f"/opt/server{n}"), alias="o"),
        step(
            "open", test("path", Op.STARTSWITH, ("/root/", f"/opt/server{n}/conf")), test("name", Op.IN, ("sh", "cat"))
        ),
        step("connect", Not(test("dst.port", Op.IN, (53, 80, 443))), eq("parent.exe", f"/opt/server{n}")),
    )


_SHAPES: tuple[Callable[[int], tuple[Step, ...]], ...] = (
    _exact,
    _prefix,
    _suffix,
    _regex,
    _range,
    _either,
    _reference,
    _count,
    _arguments,
    _child,
)
