"""What each relation means, in rows and in residual conditions alike, with values and without."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.catalog import ACTOR_SLOT_OF
from execray.schema.event import DERIVE, Actor, Event, Value
from execray.schema.kinds import Kind
from policyd.engine.conditions import condition, conjuncts, predicate, without
from policyd.engine.evidence import ActorCache, Resolver
from policyd.engine.rows import SlotRows, demand_of
from policyd.program import IT, And, Expr, FieldRef, Not, Op, Or, Quantified
from policyd.program import Test as FieldTest  # under its own name pytest would collect it
from tests.support.playbook import Play
from tests.support.programs import eq, ref, test

V4 = ipaddress.ip_address("10.1.2.3").packed
V6 = ipaddress.ip_address("2001:db8::1").packed
MAPPED = ipaddress.ip_address("::ffff:10.1.2.3").packed
TEN = ipaddress.ip_network("10.0.0.0/8")
DOC6 = ipaddress.ip_network("2001:db8::/32")


def in_row(one: FieldTest, value: Value) -> bool:
    """Whether the test holds by the row of its slot."""
    rows = SlotRows(one.field.kind, lambda name: name in DERIVE)
    rows.add(1, demand_of([one]))
    rows.build(1)
    return rows.row(value) == 1


def evaluate(one: FieldTest, value: Value) -> bool:
    """Whether the test holds, by both ways; they must agree."""
    alone = predicate(one)(value)
    assert in_row(one, value) is alone
    assert in_row(one, value) is not _negated(one, value)
    return alone


def _negated(one: FieldTest, value: Value) -> bool:
    rows = SlotRows(one.field.kind, lambda name: name in DERIVE)
    rows.add(1, demand_of([Not(one)]))
    rows.build(1)
    return rows.row(value) == 1


ARGV = (b"sh", b"-c", b"id")

CASES: list[tuple[FieldTest, Value, bool]] = [
    (test("uid", Op.EQ, 0), 0, True),
    (test("uid", Op.EQ, 0), 1, False),
    (test("uid", Op.NE, 0), 1, True),
    (test("uid", Op.NE, 0), 0, False),
    (test("uid", Op.LT, 5), 4, True),
    (test("uid", Op.LT, 5), 5, False),
    (test("uid", Op.LE, 5), 5, True),
    (test("uid", Op.GT, 5), 5, False),
    (test("uid", Op.GE, 5), 5, True),
    (test("uid", Op.IN, (1, 2)), 2, True),
    (test("uid", Op.IN, (1, 2)), 3, False),
    (test("uid", Op.NE, (1, 2)), 3, True),
    (test("uid", Op.NE, (1, 2)), 2, False),
    (test("path", Op.MATCH, ("a.c",)), b"xxa\ncxx", True),
    (test("path", Op.MATCH, ("^a$",)), b"a\n", False),
    (test("path", Op.MATCH, ("x", "b")), b"abc", True),
    (test("path", Op.MATCH, ("x", "b"), all=True), b"abc", False),
    (test("path", Op.MATCH, ("a", "b"), all=True), b"abc", True),
    (test("path", Op.MATCH, ("\xff",)), b"a\xff", True),
    (test("path", Op.MATCH, ("ABC",), ignore_case=True), b"xabc", True),
    (test("path", Op.CONTAINS, ("b.",)), b"ab.c", True),
    (test("path", Op.CONTAINS, ("b.",)), b"abxc", False),
    (test("path", Op.CONTAINS, ("\x00\xff",)), b"a\x00\xff", True),
    (test("path", Op.CONTAINS, ("x", "c")), b"abc", True),
    (test("path", Op.CONTAINS, ("x", "c"), all=True), b"abc", False),
    (test("path", Op.CONTAINS, ("a", "c"), all=True), b"abc", True),
    (test("path", Op.CONTAINS, ("BC",), ignore_case=True), b"abc", True),
    (test("path", Op.STARTSWITH, ("/etc/", "/usr")), b"/usr/bin", True),
    (test("path", Op.STARTSWITH, ("/etc/",)), b"/etc", False),
    (test("path", Op.STARTSWITH, ("/ETC/",), ignore_case=True), b"/etc/passwd", True),
    (test("path", Op.STARTSWITH, ("/", "/e"), all=True), b"/etc", True),
    (test("path", Op.STARTSWITH, ("",)), b"", True),
    (test("path", Op.ENDSWITH, (".so", ".conf")), b"a.conf", True),
    (test("path", Op.ENDSWITH, (".conf",)), b"conf", False),
    (test("path", Op.ENDSWITH, ("",)), b"", True),
    (test("path", Op.ENDSWITH, (".CONF",), ignore_case=True), b"a.conf", True),
    (test("path", Op.EQ, "/A", ignore_case=True), b"/a", True),
    (test("path", Op.EQ, "\xc4", ignore_case=True), b"\xe4", False),
    (test("path", Op.NE, "/A", ignore_case=True), b"/a", False),
    (test("path", Op.IN, ("/a", "/b")), b"/b", True),
    (test("name", Op.EQ, "sh"), b"/bin/sh", True),
    (test("name", Op.EQ, "/bin/sh"), b"/bin/sh", False),
    (test("flags", Op.HAS, 3), 7, True),
    (test("flags", Op.HAS, 3), 1, False),
    (test("flags", Op.HASANY, 3), 1, True),
    (test("flags", Op.HASANY, 3), 4, False),
    (test("access", Op.HAS, 1), 0, True),
    (test("access", Op.HAS, 2), 0, False),
    (test("flags", Op.TRUE), 1, True),
    (test("flags", Op.TRUE), 0, False),
    (test("created", Op.TRUE), True, True),
    (test("created", Op.TRUE), False, False),
    (test("created", Op.EQ, False), False, True),
    (test("path", Op.EXISTS), b"", True),
    (test("argv", Op.EQ, "-c"), ARGV, True),
    (test("argv", Op.EQ, "-d"), ARGV, False),
    (test("argv", Op.NE, "-d"), ARGV, True),
    (test("argv", Op.NE, "-c"), ARGV, False),
    (test("argv", Op.NE, "-c"), (), False),
    (test("argv", Op.EQ, "-c"), (), False),
    (test("argv", Op.EXISTS), (), False),
    (test("argv", Op.MATCH, ("^i",)), ARGV, True),
    (test("argv", Op.CONTAINS, ("h", "d"), all=True), ARGV, True),
    (test("argv", Op.CONTAINS, ("h", "x"), all=True), ARGV, False),
    (test("argv", Op.IN, ("-C",), ignore_case=True), ARGV, True),
    (test("argv[1]", Op.EQ, "-c"), ARGV, True),
    (test("argv[1]", Op.EQ, "sh"), ARGV, False),
    (test("argv[3]", Op.EXISTS), ARGV, False),
    (test("argc", Op.EQ, 3), ARGV, True),
    (test("cmdline", Op.CONTAINS, ("sh -c",)), ARGV, True),
    (FieldTest(ref("dst.ip"), Op.EQ, V4), V4, True),
    (FieldTest(ref("dst.ip"), Op.EQ, V4), MAPPED, True),
    (FieldTest(ref("dst.ip"), Op.NE, V4), MAPPED, False),
    (FieldTest(ref("dst.ip"), Op.IN, (TEN,)), V4, True),
    (FieldTest(ref("dst.ip"), Op.IN, (TEN,)), MAPPED, True),
    (FieldTest(ref("dst.ip"), Op.IN, (TEN,)), V6, False),
    (FieldTest(ref("dst.ip"), Op.IN, (TEN, DOC6)), V6, True),
    (FieldTest(ref("dst.ip"), Op.IN, (V6, DOC6)), V4, False),
    (test("pid", Op.EQ, 7), (7, 99), True),
]


@pytest.mark.parametrize(("one", "value", "holds"), CASES, ids=[f"{c[0].text}-{c[1]!r}" for c in CASES])
def test_relation_holds_as_the_language_says(one: FieldTest, value: Value, holds: bool) -> None:
    slot = one.field.name in DERIVE
    rows = SlotRows(Kind.PATH if one.field.name == "name" else _slot_kind(one), lambda name: slot)
    rows.add(1, demand_of([one]))
    rows.build(1)
    assert rows.row(value) == int(holds)
    derived = DERIVE[one.field.name](value) if slot else value
    picked = _pick(one, derived)
    assert predicate(one)(picked) is holds


@pytest.mark.parametrize("op", [op for op in Op if op is not Op.TRUNCATED])  # which reads no value, but its flag
def test_relation_with_a_missing_field_is_false_and_its_negation_true(op: Op) -> None:
    values: dict[Op, tuple[str, Any]] = {
        Op.MATCH: ("path", ("a",)),
        Op.CONTAINS: ("path", ("",)),
        Op.STARTSWITH: ("path", ("",)),
        Op.ENDSWITH: ("path", ("",)),
        Op.IN: ("uid", (0,)),
        Op.TRUE: ("uid", None),
        Op.EXISTS: ("uid", None),
    }
    field, value = values.get(op, ("uid", 0))
    assert evaluate(test(field, op, value), None) is False
    for name in ("argv", "argv[0]", "cmdline", "argc"):
        operand: Any = 0 if name == "argc" else "" if op not in (Op.TRUE, Op.EXISTS) else None
        if op in (Op.LT, Op.HAS, Op.HASANY, Op.LE, Op.GT, Op.GE) and name != "argc":
            continue
        if op in (Op.MATCH, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH) and name == "argc":
            continue
        assert in_row(test(name, op, operand), None) is False


def test_network_and_address_may_stand_in_one_list() -> None:
    mixed = FieldTest(ref("dst.ip"), Op.IN, (ipaddress.ip_address("192.0.2.9").packed, TEN))
    assert evaluate(mixed, V4)
    assert evaluate(mixed, ipaddress.ip_address("192.0.2.9").packed)
    assert not evaluate(mixed, ipaddress.ip_address("192.0.2.8").packed)


def _slot_kind(one: FieldTest) -> Kind:
    slots = {"argc": Kind.TEXTS, "cmdline": Kind.TEXTS, "pid": Kind.PROCESS, "access": Kind.BITS}
    return slots.get(one.field.name, one.field.kind)


def _pick(one: FieldTest, value: Value) -> Value:
    if one.field.index is None:
        return value
    return value[one.field.index] if isinstance(value, tuple) and one.field.index < len(value) else None


def _event(**slots: Any) -> Event:
    play = Play()
    parent = play.process(uid=0, exe="/sbin/init")
    play.event("open", play.process(parent, uid=5, euid=5, argv=["cat", "/x"], exe="/bin/cat"), **slots)
    return Resolver(play.batch(), ActorCache()).event(0)


REFERENCES: list[tuple[Expr, bool]] = [
    (test("uid", Op.EQ, "$euid"), True),
    (test("uid", Op.NE, "$euid"), False),
    (test("uid", Op.GT, "$parent.uid"), True),
    (test("uid", Op.EQ, "$parent.uid"), False),
    (test("path", Op.EQ, "$earlier:path"), True),
    (test("path", Op.NE, "$earlier:path"), False),
    (test("path", Op.EQ, "$absent:path"), False),
    (Not(test("path", Op.EQ, "$absent:path")), True),
    (test("path", Op.NE, "$absent:path"), False),
    (test("path", Op.EQ, "$earlier:fd"), False),
    (test("path", Op.IN, "$argv"), True),
    (test("argv", Op.EQ, "$path"), True),
    (test("argv", Op.NE, "$path"), False),
    (test("argv", Op.NE, "$exe"), True),
    (test("argv[0]", Op.EQ, "$name"), True),
    (test("argv[7]", Op.EQ, "$name"), False),
    (test("exe", Op.ENDSWITH, "$argv[0]"), True),
    (test("tid", Op.EQ, "$pid"), True),
    (test("earlier:path", Op.EQ, "/x"), True),
    (test("fd", Op.NE, 1), False),
    (Not(test("fd", Op.EQ, 1)), True),
    (Or((test("fd", Op.EQ, 1), eq("uid", 5))), True),
    (And((eq("uid", 5), eq("path", "/y"))), False),
    (And(()), True),
    (Or(()), False),
    (test("parent.exe", Op.STARTSWITH, ("/sbin",)), True),
]


@pytest.mark.parametrize(("expr", "holds"), REFERENCES, ids=[repr(i) for i in range(len(REFERENCES))])
def test_condition_over_fields_and_earlier_steps(expr: Expr, holds: bool) -> None:
    event = _event(path="/x")
    assert condition(expr)(event, {"earlier": event}) is holds


def test_conjuncts_flattens_nested_and() -> None:
    a, b, c = eq("uid", 1), eq("euid", 2), eq("gid", 3)
    assert conjuncts(And((a, And((b, Or((c,))))))) == [a, b, Or((c,))]


def test_missing_fields_fold_to_constants() -> None:
    a, b = eq("uid", 1), eq("fd", 2)
    gone = {"fd"}
    assert without(Or((a, b)), lambda r: r.name in gone) == a
    assert without(And((a, b)), lambda r: r.name in gone) == Or(())
    assert without(Not(b), lambda r: r.name in gone) == And(())
    assert without(And((a, Not(b))), lambda r: r.name in gone) == a


_TEXT = st.binary(max_size=4) | st.text("ab/.A", max_size=5).map(lambda s: s.encode())
_WORDS = st.lists(st.text("ab/.A", min_size=0, max_size=3).map(lambda s: s.encode()), min_size=1, max_size=3).map(tuple)
_OPS = st.sampled_from([Op.EQ, Op.NE, Op.IN, Op.CONTAINS, Op.STARTSWITH, Op.ENDSWITH])
_TESTS = st.builds(
    lambda field, op, words, every, fold: FieldTest(ref(field), op, words, every and op is not Op.IN, fold),
    st.sampled_from(["exe", "name"]),
    _OPS,
    _WORDS,
    st.booleans(),
    st.booleans(),
).map(lambda t: FieldTest(t.field, t.op, t.value, t.all and t.op not in (Op.EQ, Op.NE), t.ignore_case))
_EXPRS: st.SearchStrategy[Expr] = st.recursive(
    _TESTS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(_EXPRS, min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(_TEXT | st.none(), max_size=6),
    st.lists(st.integers(0, 31), min_size=2, max_size=4),
)
def test_rows_equal_conditions_evaluated_one_by_one(
    steps: list[list[Expr]], values: list[bytes | None], asked: list[int]
) -> None:
    rows = SlotRows(Kind.PATH, lambda name: name == "name", entries=2)
    for index, conditions in enumerate(steps):
        rows.add(1 << index, demand_of(conditions))
    rows.build((1 << len(steps)) - 1)
    for value in values:
        play = Play()
        proc = play.process()
        proc.values["exe"] = value
        play.event("open", proc)
        event = Resolver(play.batch(), ActorCache()).event(0)
        wanted = sum(
            1 << index
            for index, conditions in enumerate(steps)
            if all(condition(expr)(event, {}) for expr in conditions)
        )
        assert rows.miss(value).bits == wanted
        assert len(rows.cache) <= 2
        # also where only some steps are asked about, and then others
        for some in (bits & (1 << len(steps)) - 1 for bits in asked):
            assert rows.among(value, some) == some & wanted


def _by_actor(**slots: Value) -> Event:
    event = _event()
    values = list(event.actor.slots)
    for name, value in slots.items():
        values[ACTOR_SLOT_OF[name]] = value
    return dataclasses.replace(event, actor=Actor(tuple(values), event.actor.parent))


@pytest.mark.parametrize(
    ("args", "some", "each"),
    [((b"sh", b"-c"), True, False), ((b"-a", b"-b"), True, True), ((b"sh",), False, False), ((), False, False)],
)
def test_quantifier_over_arguments(args: tuple[bytes, ...], some: bool, each: bool) -> None:
    dash = FieldTest(FieldRef(IT, Kind.BYTES), Op.STARTSWITH, (b"-",))
    event = _by_actor(argv=args)
    assert condition(Quantified(ref("argv"), dash))(event, {}) is some
    assert condition(Quantified(ref("argv"), dash, every=True))(event, {}) is each


def test_quantifier_over_creators() -> None:
    event = dataclasses.replace(root_event := _by_actor(uid=0), actor=Actor(root_event.actor.slots, None))
    child = dataclasses.replace(event.actor, parent=event.actor)
    root = Quantified(FieldRef("ancestor", Kind.TEXTS), FieldTest(FieldRef("it.uid", Kind.INT), Op.EQ, 0))
    assert condition(root)(event, {}) is False
    assert condition(root)(dataclasses.replace(event, actor=child), {}) is True
