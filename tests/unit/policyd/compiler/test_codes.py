"""The registry of codes: every example is what it claims to be, and the reference page is up to date."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from policyd.compiler import codes, compile_source
from policyd.compiler.codes import CODES, PHASES, Code, explain
from policyd.compiler.reference import reference

ROOT = Path(__file__).parents[4]
# Too long to print: tests in test_limits.py compile them.
WITHOUT_EXAMPLE = {"ER0002", "ER0216", "ER0402"}
# The action plug-in that the examples suppose to be allowed.
SOC = frozenset({"soc"})
TODAY = datetime.date(2026, 11, 22)


@pytest.mark.parametrize("entry", CODES.values(), ids=lambda entry: entry.code)
def test_wrong_example_is_reported_and_right_one_is_not(entry: Code) -> None:
    right = compile_source(entry.right, "right.policy", plugins=SOC, today=TODAY, budget_bytes=16 << 20)
    assert right.ok
    assert entry.code not in {d.code for d in right.diagnostics}
    if entry.code in WITHOUT_EXAMPLE:
        assert entry.wrong == ""
        return
    wrong = compile_source(
        entry.wrong.encode(entry.encoding), "wrong.policy", plugins=SOC, today=TODAY, budget_bytes=16 << 20
    )
    assert {d.level for d in wrong.diagnostics if d.code == entry.code} == {entry.level}


def test_every_code_that_the_compiler_uses_is_registered_and_the_other_way_round() -> None:
    assert codes.__file__
    used = set()
    for path in Path(codes.__file__).parent.glob("*.py"):
        if not path.name.startswith("code"):
            used |= set(re.findall(r'"(ER\d{4})"', path.read_text(encoding="utf-8")))
    assert used == set(CODES)


def test_codes_belong_to_a_phase_and_say_something() -> None:
    for code, entry in CODES.items():
        assert code[2:4] in PHASES
        assert entry.title[0].islower() or not entry.title[0].isalpha() or entry.title[:2].isupper()
        assert entry.text.endswith(".")


def test_reference_page_is_up_to_date() -> None:
    page = ROOT / "docs" / "reference" / "diagnostics.md"
    assert page.read_text(encoding="utf-8") == reference(), "run make docs"


def test_explain_shows_both_examples() -> None:
    text = explain("ER0201")
    assert "flgas" in text
    assert "    path" in text
    assert text.startswith("error[ER0201]: unknown field\n")


def test_explain_of_an_unknown_code_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        explain("ER9999")
