"""The bench's lists agree with each other, with the programs, and with what docs/threat-model.md says."""

from __future__ import annotations

import re
from pathlib import Path

from policyd.compiler import compile_source
from tests.evasion.bench import Outcome, policy_text
from tests.evasion.misses import MISSES, REASONS, listing, surprise
from tests.evasion.table import NOTHING, TRICKS

HERE = Path(__file__).parent


def test_every_trick_of_a_program_is_in_the_table_and_the_other_way_round() -> None:
    programmed = {
        f"{source.stem}/{name}"
        for source in (HERE / "tricks").glob("*.c")
        for name in re.findall(r"\bTRICK\((\w+)\)", source.read_text())
    }
    assert programmed == {trick.id for trick in TRICKS}
    assert len(programmed) == len(TRICKS)


def test_known_misses_are_tricks_each_with_one_reason_and_no_control() -> None:
    known = [trick for _, tricks in REASONS for trick in tricks]
    assert len(known) == len(set(known)) == len(MISSES)
    assert set(known) <= {trick.id for trick in TRICKS}
    assert not [trick for trick in known if trick.endswith("/plain")]


def test_the_threat_model_lists_what_goes_unseen() -> None:
    assert listing() in Path("docs/threat-model.md").read_text()


def test_only_what_is_known_is_no_surprise() -> None:
    seen = next(trick for trick in TRICKS if trick.id not in MISSES)
    unseen = next(trick for trick in TRICKS if trick.id in MISSES)
    harmless = next(trick for trick in TRICKS if trick.goal is NOTHING)
    lacking = next(trick for trick in TRICKS if trick.lacking)
    by = ("secret_leaves",)
    expected = [Outcome(seen, by), Outcome(unseen), Outcome(harmless), Outcome(lacking, cant="no")]
    assert [surprise(outcome) for outcome in expected] == [""] * 4
    assert [outcome.verdict for outcome in expected] == ["detected", "missed", "quiet", "can't"]
    surprising = [
        Outcome(seen),
        Outcome(unseen, by),
        Outcome(harmless, by),
        Outcome(seen, cant="no"),
        Outcome(unseen, failed="x"),
    ]
    assert all(surprise(outcome) for outcome in surprising)


def test_the_policies_compile_and_are_those_that_the_goals_name() -> None:
    compilation = compile_source(policy_text(Path("/var/tmp/bench")), "evasion.policy")
    assert not compilation.diagnostics
    named = {policy for trick in TRICKS for policy in trick.goal.policies}
    assert {policy.name for policy in compilation.policies} == named | {"sentinel"}
