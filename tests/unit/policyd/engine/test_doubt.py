"""Three-valued truth: what a value that was cut or unreadable leaves open, and what is sure all the same."""

from __future__ import annotations

from typing import Any

import pytest

from execray.schema.catalog import NO_FLAG, Flag
from execray.schema.kinds import Kind
from policyd.engine.doubt import Judged
from policyd.engine.outputs import Match
from policyd.program import IT, Expr, FieldRef, Not, Op, Or, Quantified
from policyd.program import Test as FieldTest  # under its own name pytest would collect it
from tests.support.playbook import Play, Proc
from tests.support.programs import eq, policy, ref, step, test
from tests.support.stories import machine, matches

ANCESTOR = FieldRef("ancestor", Kind.TEXTS)


def it(name: str, op: Op, value: Any) -> FieldTest:
    return FieldTest(FieldRef(f"{IT}.{name}", ref(name).kind), op, value)


def found(condition: Expr, actor: Proc, play: Play, cut: Flag = NO_FLAG, **slots: Any) -> Match | None:
    """The match of a policy that asks only for the condition."""
    play.event("open", actor, path="/x", cut=cut, **slots)
    outputs = matches(machine(policy("p", step("open", condition), within_s=None)).feed(play.batch()))
    return outputs[0] if outputs else None


def line(play: Play, *exes: str | None, first_pid: int = 1) -> Proc:
    """A process whose creators run these programs, the first of them with that pid."""
    proc = play.process(exe=exes[0])
    proc.id = (first_pid, proc.id[1])
    for exe in exes[1:]:
        proc = play.process(proc, exe=exe)
    return play.process(proc, exe="/bin/last")


SSHD = it("exe", Op.EQ, b"/sshd")


@pytest.mark.parametrize(
    ("exes", "first_pid", "some", "none", "every"),
    [
        (("/init", "/sshd"), 1, (True, False), (False, False), (False, False)),
        (("/init", "/bash"), 1, (False, False), (True, False), (False, False)),
        (("/sshd", "/sshd"), 1, (True, False), (False, False), (True, False)),
        # The line begins with a process that had a creator: who that was isn't known.
        (("/cron", "/bash"), 77, (False, False), (True, True), (False, False)),
        (("/cron", "/sshd"), 77, (True, False), (False, False), (False, False)),
        (("/sshd", "/sshd"), 77, (True, False), (False, False), (True, True)),
        # A creator whose program isn't known.
        (("/init", None, "/bash"), 1, (False, False), (True, True), (False, False)),
        (("/init", None, "/sshd"), 1, (True, False), (False, False), (False, False)),
        (("/sshd", None), 1, (True, False), (False, False), (False, False)),
    ],
)
def test_quantifier_over_creators(
    exes: tuple[str | None, ...],
    first_pid: int,
    some: tuple[bool, bool],
    none: tuple[bool, bool],
    every: tuple[bool, bool],
) -> None:
    """For `any`, `none` and `all`: whether it holds, and whether a match by it is partial evidence."""
    asked: list[tuple[Expr, tuple[bool, bool]]] = [
        (Quantified(ANCESTOR, SSHD), some),
        (Not(Quantified(ANCESTOR, SSHD)), none),
        (Quantified(ANCESTOR, SSHD, every=True), every),
    ]
    for condition, (holds, doubtful) in asked:
        play = Play()
        match = found(condition, line(play, *exes, first_pid=first_pid), play)
        assert (match is not None) is holds
        assert match is None or match.partial_evidence is doubtful


def test_alternative_that_is_sure_is_enough_beside_a_quantifier_that_is_not() -> None:
    play = Play()
    match = found(Or((Not(Quantified(ANCESTOR, SSHD)), eq("path", "/x"))), line(play, "/cron", first_pid=77), play)
    assert match is not None and not match.partial_evidence


def test_quantifier_over_a_list_that_was_cut_is_partial_evidence() -> None:
    needle = Quantified(ref("argv"), FieldTest(FieldRef(IT, Kind.BYTES), Op.EQ, b"-x"))
    for cut in (NO_FLAG, Flag.ARGV_TRUNCATED):
        play = Play()
        match = found(needle, play.process(argv=["p", "-x"]), play, cut)
        assert match is not None and match.partial_evidence is bool(cut)


@pytest.mark.parametrize("name", ["rawpath", "path"])
def test_truncated_is_sure_and_false_for_what_is_missing(name: str) -> None:
    asks = test(name, Op.TRUNCATED)
    cut = Flag.RAWPATH_TRUNCATED | Flag.PATH_TRUNCATED
    play = Play()
    match = found(asks, play.process(), play, cut, rawpath="x")
    assert match is not None and not match.partial_evidence
    assert found(asks, play.process(), play, rawpath="x") is None
    play.event("open", play.process(), cut=cut)
    assert matches(machine(policy("p", step("open", asks))).feed(play.batch())) == []


def test_field_of_a_creator_further_up() -> None:
    play = Play()
    actor = line(play, "/init", "/sshd", "/bash")
    for name, exe in (("parent.exe", "/bash"), ("ancestor[1].exe", "/sshd"), ("ancestor[2].name", "init")):
        match = found(eq(name, exe), actor, play)
        assert match is not None and not match.partial_evidence
        assert found(eq(name, "/other"), actor, play) is None
    assert found(test("ancestor[3].exe", Op.EXISTS), actor, play) is None
    # The line is known to its first process, or it is not.
    for whoever, doubtful in ((actor, False), (line(play, "/a", "/b", "/c", first_pid=900), True)):
        match = found(Not(test("ancestor[3].exe", Op.EXISTS)), whoever, play)
        assert match is not None and match.partial_evidence is doubtful
    assert found(test("ancestor[1].exe", Op.EQ, "$exe"), actor, play) is None


def test_judged_says_yes_no_or_neither() -> None:
    play = Play()
    proc = play.process()
    play.event("open", proc, rawpath="x")
    play.event("open", proc, rawpath="y")
    play.event("open", proc, rawpath="x", cut=Flag.RAWPATH_TRUNCATED)
    batch = play.batch()
    judged = Judged(eq("rawpath", "x"))
    assert [judged.truth(batch.event(position), {}) for position in range(3)] == [True, False, None]
    assert [judged.is_doubtful(batch.event(position), {}) for position in range(3)] == [False, False, True]


@pytest.mark.parametrize("name", ["container.id", "loginuid", "session.id", "parent.entry.id", "ancestor[1].pgrp.id"])
def test_field_that_not_every_process_has_is_known_to_be_missing(name: str) -> None:
    play = Play()
    match = found(Not(test(name, Op.EXISTS)), line(play, "/init", "/sshd"), play)
    assert match is not None and not match.partial_evidence
    outside = Quantified(ANCESTOR, Not(it("container.id", Op.EXISTS, None)), every=True)
    match = found(outside, line(play, "/init", "/sshd"), play)
    assert match is not None and not match.partial_evidence
