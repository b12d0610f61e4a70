"""The bench's lists agree with each other, with the programs, and with what docs/threat-model.md says."""

from __future__ import annotations

import re
from pathlib import Path

from policyd.compiler import compile_source
from tests.evasion.misses import MISSES, REASONS, listing
from tests.evasion.table import TRICKS

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


def test_the_policies_compile_and_are_those_that_the_goals_name() -> None:
    source = (HERE / "evasion.policy").read_text().replace("ROOT", "/var/tmp/bench")
    compilation = compile_source(source, "evasion.policy")
    assert not compilation.diagnostics
    named = {policy for trick in TRICKS for policy in trick.goal.policies}
    assert {policy.name for policy in compilation.policies} == named | {"sentinel"}
