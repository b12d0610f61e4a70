"""What rows decide of a step and what is left: together that must be the condition, for every kind of event."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policyd.engine.conditions import condition
from policyd.engine.planning import MAX_WAYS, UNCACHED, normal, plan_step
from policyd.program import And, Expr, Not, Op, Or
from tests.support.playbook import Play
from tests.support.programs import eq, policy, step, test
from tests.support.stories import machine, matches

LEAVES: list[Expr] = [
    eq("path", "/a"),
    test("path", Op.IN, ("/a", "/b")),
    test("path", Op.STARTSWITH, ("/a", "/b/c")),
    test("path", Op.ENDSWITH, ("c",)),
    test("path", Op.MATCH, ("b.c$",)),
    test("path", Op.NE, "/a"),
    test("path", Op.EQ, "$exe"),
    test("ret", Op.GE, 0),
    test("ret", Op.LT, 3),
    test("ret", Op.GT, 3),
    test("ret", Op.LE, -1),
    test("len", Op.GT, 10),
    test("mode", Op.HASANY, 0o111),
    test("content", Op.CONTAINS, ("root",)),
    eq("uid", 0),
    test("uid", Op.GE, 1000),
    test("uid", Op.TRUE),
    eq("exe", "/a"),
    test("name", Op.IN, ("a", "b")),
    test("argv", Op.CONTAINS, ("x",)),
    test("argv[0]", Op.EXISTS),
    eq("parent.exe", "/a"),
    test("parent.uid", Op.EQ, "$uid"),
    eq("ancestor[1].uid", 0),
    eq("tid", 7),
]
EXPRESSIONS: st.SearchStrategy[Expr] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, max_size=4).map(lambda items: And(tuple(items))),
        st.lists(inner, max_size=4).map(lambda items: Or(tuple(items))),
    ),
    max_leaves=12,
)
PATHS = st.sampled_from([None, "/a", "/b", "/b/c", "/axc"])
ACTORS = st.fixed_dictionaries(
    {
        "uid": st.sampled_from([None, 0, 1000]),
        "exe": st.sampled_from([None, "/a", "/usr/b"]),
        "argv": st.sampled_from([None, [], ["x"], ["y", "xx"]]),
    }
)


def _slots(name: str, path: str | None, number: int | None) -> dict[str, Any]:
    match name:
        case "open":
            return {"path": path, "mode": number, "ret": number}
        case "write":
            return {"path": path, "len": number, "ret": number, "content": "root" if number else "x"}
        case _:
            return {"filename": path, "ret": number}


@given(
    st.lists(EXPRESSIONS, min_size=1, max_size=3),
    st.lists(
        st.tuples(
            st.sampled_from(["open", "write", "exec"]), PATHS, st.sampled_from([None, -1, 0, 3, 11]), ACTORS, ACTORS
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_step_fires_exactly_where_its_condition_holds(expressions: list[Expr], happened: list[Any]) -> None:
    steps = [step("open|write|exec", expr) for expr in expressions] + [step("open", expr) for expr in expressions]
    engine = machine(*(policy(f"p{n}", one, within_s=None) for n, one in enumerate(steps)))
    play = Play()
    for name, path, number, actor, parent in happened:
        proc = play.process(play.process(play.process(uid=0), **parent), **actor)
        play.event(name, proc, tid=7 if number else 8, **_slots(name, path, number))
    batch = play.batch()
    expected = {
        (f"p{n}", batch.first_id + position)
        for position in range(len(happened))
        for n, one in enumerate(steps)
        if batch.events[position][0] in one.codes and condition(one.condition)(batch.event(position), {})
    }
    outputs = engine.feed(batch)
    assert {(m.policy.name, m.event.id) for m in matches(outputs)} == expected
    assert len(outputs) == len(expected)


def _size(expr: Expr) -> int:
    match expr:
        case Not(item):
            return _size(item)
        case And(items) | Or(items):
            return sum(map(_size, items))
        case _:
            return 1


@given(EXPRESSIONS)
def test_normal_form_has_not_before_tests_only_and_grows_nothing(expr: Expr) -> None:
    found = normal(expr)
    assert _size(found) == _size(expr)
    todo: list[Expr] = [found]
    while todo:
        match todo.pop():
            case Not(item):
                assert not isinstance(item, Not | And | Or)
            case And(items) | Or(items):
                todo += items
            case _:
                pass


def test_or_over_several_fields_needs_no_residual() -> None:
    plan = plan_step(And((Or((eq("path", "/a"), eq("exe", "/b"), eq("path", "/c"))), eq("uid", 0))), 4)
    assert plan.residual is None
    assert [{key.slot for key in way} for way in plan.ways] == [{"path", "uid"}, {"exe", "uid"}]


def test_ways_are_bounded_and_the_rest_is_tested_when_a_bit_fires() -> None:
    pairs = [Or((eq("path", f"/{n}"), eq("exe", f"/{n}"))) for n in range(10)]
    plan = plan_step(And(tuple(pairs)), 4)
    assert len(plan.ways) <= MAX_WAYS and plan.residual is not None


def test_content_is_never_among_several_ways() -> None:
    plan = plan_step(And((Or((eq("path", "/a"), eq("fd", 1))), test("content", Op.CONTAINS, ("x",)))), 5)
    assert all(key.slot not in UNCACHED for way in plan.ways for key in way) and plan.residual is not None
    mixed = plan_step(Or((eq("path", "/a"), test("content", Op.CONTAINS, ("x",)))), 5)
    assert mixed.ways == ({},) and mixed.residual is not None
    alone = plan_step(test("content", Op.CONTAINS, ("x",)), 5)
    assert [key.slot for way in alone.ways for key in way] == ["content"] and alone.residual is None


def test_content_is_tested_also_where_other_events_of_the_step_ask_less_of_the_actor() -> None:
    # An exec has no `path`, so there the second part asks nothing, and the step has a way for each kind of event.
    quiet = And((Not(test("content", Op.CONTAINS, ("root",))), Or((Not(eq("path", "$exe")), eq("uid", 0)))))
    engine = machine(policy("p", step("write|exec", quiet), within_s=None))
    play = Play()
    proc = play.process()
    play.event("write", proc, path="/a", content="root")
    wanted = play.event("write", proc, path="/a", content="x")
    assert [match.event.id for match in matches(engine.feed(play.batch()))] == [wanted]
