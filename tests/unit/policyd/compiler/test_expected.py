"""Every policy under tests/data/policies gives the diagnostics that its comments announce, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.compiler import Level, SourceFile, Span, compile_source
from policyd.compiler import diagnostics as diagnostics_module
from policyd.compiler.diagnostics import Sink
from tests.support.expectations import expected, reported

DATA = Path(__file__).parents[3] / "data" / "policies"
FOLDERS = ("lexical", "syntax", "names", "types", "automaton", "lints")
BAD = sorted(path for folder in FOLDERS for path in (DATA / folder).glob("*.policy"))
GOOD = sorted((DATA / "ok").glob("*.policy"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_announced_diagnostics_are_reported_and_no_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics_module, "MAX_SHOWN", 500)
    text = path.read_text(encoding="utf-8")
    announced = expected(text)
    compilation = compile_source(text, path.name, plugins=frozenset({"soc"}))
    found = reported(compilation.diagnostics, compilation.source)
    assert announced, "the file announces nothing"
    assert sorted((found - announced).elements()) == [], "reported, not announced"
    assert sorted((announced - found).elements()) == [], "announced, not reported"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_policies_compile_with_what_they_announce(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    compilation = compile_source(text, path.name)
    assert compilation.ok
    assert len(compilation.policies) == text.count('path "') + text.count('policy "')
    warnings = [d for d in compilation.diagnostics if d.level is not Level.NOTE]
    assert reported(warnings, compilation.source) == expected(text)


def test_folders_are_not_empty() -> None:
    assert {path.parent.name for path in BAD} == set(FOLDERS)
    assert GOOD


def test_sink_drops_exact_repeats() -> None:
    sink = Sink(SourceFile("x", "abc"))
    for _ in range(3):
        sink.report("ER0003", Span(0, 1), "unexpected")
    assert len(sink.shown()) == sink.total == 1
