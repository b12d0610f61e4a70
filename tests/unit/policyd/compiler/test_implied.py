"""What follows from what: never a yes that some event contradicts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.kinds import Kind
from policyd.compiler.implied import implies
from policyd.program import And, Expr, FieldRef, Not, Op, Or
from policyd.program import Test as FieldTest

UID, PATH = FieldRef("uid", Kind.INT), FieldRef("path", Kind.PATH)
NUMBERS: tuple[int | None, ...] = (None, 0, 1, 2, 3)
TEXTS: tuple[bytes | None, ...] = (None, b"", b"/a", b"/a/b", b"/b", b"a/b")
EVENTS = list(itertools.product(NUMBERS, TEXTS))


def holds(expr: Expr, uid: int | None, path: bytes | None) -> bool:
    match expr:
        case And(items=items):
            return all(holds(item, uid, path) for item in items)
        case Or(items=items):
            return any(holds(item, uid, path) for item in items)
        case Not(item=item):
            return not holds(item, uid, path)
        case FieldTest(field=field, op=op, value=value):
            return meets(op, uid if field == UID else path, value)
    raise AssertionError(expr)


def meets(op: Op, have: int | bytes | None, want: object) -> bool:
    if have is None:
        return False
    wanted = want if isinstance(want, tuple) else (want,)
    match op:
        case Op.EXISTS:
            return True
        case Op.EQ | Op.IN:
            return have in wanted
        case Op.NE:
            return have not in wanted
        case Op.STARTSWITH | Op.ENDSWITH | Op.CONTAINS:
            assert isinstance(have, bytes)
            parts = [part for part in wanted if isinstance(part, bytes)]
            return any(
                {Op.STARTSWITH: have.startswith(part), Op.ENDSWITH: have.endswith(part), Op.CONTAINS: part in have}[op]
                for part in parts
            )
        case _:
            assert isinstance(have, int) and isinstance(want, int)
            return {Op.LT: have < want, Op.LE: have <= want, Op.GT: have > want, Op.GE: have >= want}[op]


numbers = st.sampled_from((0, 1, 2, 3))
texts = st.sampled_from((b"", b"/a", b"/a/b", b"/b", b"b"))
tests = st.one_of(
    st.builds(FieldTest, st.just(UID), st.sampled_from((Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE)), numbers),
    st.builds(FieldTest, st.just(UID), st.just(Op.IN), st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(FieldTest, st.just(PATH), st.sampled_from((Op.EQ, Op.NE)), texts),
    st.builds(
        FieldTest,
        st.just(PATH),
        st.sampled_from((Op.IN, Op.STARTSWITH, Op.ENDSWITH, Op.CONTAINS)),
        st.lists(texts, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(FieldTest, st.sampled_from((UID, PATH)), st.just(Op.EXISTS)),
)
exprs = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple).map(And),
        st.lists(inner, max_size=3).map(tuple).map(Or),
        inner.map(Not),
    ),
    max_leaves=6,
)


@given(exprs, exprs)
@settings(max_examples=1500, deadline=None)
def test_a_yes_is_never_wrong(given_: Expr, wanted: Expr) -> None:
    if implies(given_, wanted):
        assert all(holds(wanted, *event) for event in EVENTS if holds(given_, *event))


def test_plain_cases_are_seen() -> None:
    exact = FieldTest(PATH, Op.EQ, b"/a/b")
    among = FieldTest(PATH, Op.IN, (b"/a/b", b"/a"))
    below = FieldTest(PATH, Op.STARTSWITH, (b"/a", b"/c"))
    assert implies(exact, among) and implies(exact, below) and implies(among, below) and not implies(below, among)
    root = FieldTest(UID, Op.EQ, 0)
    assert implies(And((exact, root)), And((below, FieldTest(UID, Op.LT, 3)))) and not implies(exact, root)
    assert implies(Or((exact, among)), Or((root, below)))


@pytest.mark.parametrize("kind", [And, Or])
def test_large_conditions_end_soon(kind: type[And] | type[Or]) -> None:
    def large(offset: int) -> Expr:
        return kind(tuple(FieldTest(UID, Op.EQ, number + offset) for number in range(2_000)))

    assert not implies(large(0), large(5_000))
    text = FieldTest(PATH, Op.IN, tuple(b"/%d" % number for number in range(20_000)))
    assert not implies(text, FieldTest(PATH, Op.STARTSWITH, tuple(b"x%d" % number for number in range(20_000))))
