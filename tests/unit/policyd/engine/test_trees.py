"""Sequences in a tree: the process of step 1 and those that descend from it."""

from __future__ import annotations

from policyd.engine.machine import Machine
from policyd.engine.outputs import Match, Output
from policyd.program import KeyKind, Op
from tests.support.playbook import Play, Proc
from tests.support.programs import chain, eq, policy, step, test

A = step("open", eq("path", "/a"), alias="a")
B = step("open", eq("path", "/b"), alias="b")
C = step("open", eq("path", "/c"), alias="c")


class Forest:
    """A machine with one tree policy, and processes that open files."""

    def __init__(self, *steps: object, **options: object) -> None:
        self.engine = Machine()
        self.engine.load([policy("p", *(steps or (A, B)), key=KeyKind.TREE, **options)], 1)  # type: ignore[arg-type]
        self.play = Play()
        self.top = self.play.process()

    def opens(self, proc: Proc, *names: str) -> None:
        for name in names:
            path, _, at = name.partition("@")
            self.play.event("open", proc, path=f"/{path}", at=float(at) if at else None)

    def matches(self) -> list[Match]:
        outputs: list[Output] = self.engine.feed(self.play.batch())
        return [output for output in outputs if isinstance(output, Match)]


def test_process_itself_completes_its_sequence() -> None:
    f = Forest()
    f.opens(f.top, "a", "b")
    (match,) = f.matches()
    assert match.key == f.top.id


def test_child_forked_after_the_first_step_completes_it() -> None:
    f = Forest()
    f.opens(f.top, "a")
    child = f.play.fork(f.top)
    f.opens(child, "b")
    (match,) = f.matches()
    assert (match.key, match.actor.id) == (f.top.id, child.id)


def test_child_forked_before_the_first_step_completes_it() -> None:
    f = Forest()
    child = f.play.fork(f.top)
    f.opens(f.top, "a")
    f.opens(child, "b")
    assert len(f.matches()) == 1


def test_grandchild_completes_it_in_another_batch() -> None:
    f = Forest()
    grandchild = f.play.fork(f.play.fork(f.top))
    f.opens(f.top, "a")
    assert f.matches() == []
    f.opens(grandchild, "b")
    assert [m.actor.id for m in f.matches()] == [grandchild.id]


def test_siblings_do_not_share_a_tree() -> None:
    f = Forest()
    one, other = f.play.fork(f.top), f.play.fork(f.top)
    f.opens(one, "a")
    f.opens(other, "b")
    assert f.matches() == []


def test_parent_does_not_complete_what_its_child_began() -> None:
    f = Forest()
    child = f.play.fork(f.top)
    f.opens(child, "a")
    f.opens(f.top, "b")
    assert f.matches() == []


def test_each_step_may_be_another_member() -> None:
    f = Forest(A, B, C)
    one, other = f.play.fork(f.top), f.play.fork(f.top)
    f.opens(f.top, "a")
    f.opens(one, "b")
    f.opens(other, "c")
    (match,) = f.matches()
    assert [e.events[0].actor.id for e in match.trail] == [f.top.id, one.id, other.id]


def test_partial_is_consumed_once_by_whichever_member_completes_it() -> None:
    f = Forest()
    one, other = f.play.fork(f.top), f.play.fork(f.top)
    f.opens(f.top, "a")
    f.opens(one, "b")
    f.opens(other, "b")
    assert [m.actor.id for m in f.matches()] == [one.id]


def test_of_several_trees_the_latest_begun_advances() -> None:
    f = Forest()
    child = f.play.fork(f.top)
    f.opens(child, "a")
    f.opens(f.top, "a")
    f.opens(child, "b", "b", "b")
    assert [m.key for m in f.matches()] == [f.top.id, child.id]


def test_of_several_trees_the_latest_begun_that_accepts_advances() -> None:
    same = step("open", test("path", Op.EQ, "$start:rawpath"), alias="same")
    f = Forest(step("open", test("rawpath", Op.EXISTS), alias="start"), same)
    child = f.play.fork(f.top)
    f.play.event("open", f.top, rawpath="/x")
    f.play.event("open", child, rawpath="/y")
    f.opens(child, "x")
    assert [m.key for m in f.matches()] == [f.top.id]


def test_end_of_the_first_process_does_not_end_its_tree() -> None:
    f = Forest(within_s=100)
    child = f.play.fork(f.top)
    f.opens(f.top, "a@1")
    f.play.exit(f.top, at=2)
    f.opens(child, "b@101")
    assert len(f.matches()) == 1


def test_window_ends_a_tree() -> None:
    f = Forest(within_s=10)
    f.opens(f.top, "a@1", "b@11.000000001")
    assert f.matches() == []
    assert f.engine.stats()["expired"] == 1


def test_repeat_by_a_member_is_evidence_in_the_tree() -> None:
    f = Forest(states=chain(2, {1: (0,)}))
    child = f.play.fork(f.top)
    f.opens(f.top, "a", "a")
    f.opens(child, "a", "b")
    matches = f.matches()
    # The child's own `a` is evidence in its creator's tree, and begins one of its own: the one begun last completes.
    assert [(m.key, m.trail[0].count) for m in matches] == [(child.id, 1)]
    f.opens(child, "b")
    assert [(m.key, m.trail[0].count) for m in f.matches()] == [(f.top.id, 3)]


def test_process_policy_beside_a_tree_policy_keeps_its_own_key() -> None:
    f = Forest()
    f.engine.load([policy("p", A, B, key=KeyKind.TREE), policy("q", A, B)], 2)
    child = f.play.fork(f.top)
    f.opens(f.top, "a")
    f.opens(child, "b")
    f.opens(f.top, "b")
    assert [(m.policy.name, m.actor.id) for m in f.matches()] == [("p", child.id), ("q", f.top.id)]
