"""Long runs of the policy compiler on random input. `EXECRAY_FUZZ_EXAMPLES` sets how many each (default 300)."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.compiler import compile_set, compile_source, render
from tests.support.policy_text import mutated, nested_soups, soups

DATA = Path(__file__).parents[1] / "data" / "policies"
SOURCES = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*/*.policy"))]
EXAMPLES = int(os.environ.get("EXECRAY_FUZZ_EXAMPLES", "300"))
long_run = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.one_of(mutated(SOURCES), soups, nested_soups))
@long_run
def test_compiling_and_rendering_never_raises(text: str) -> None:
    compilation = compile_source(text, "x")
    for color in (False, True):
        render(compilation.diagnostics, [compilation.source], color=color)


@given(st.lists(st.one_of(mutated(SOURCES).map(str.encode), st.binary(max_size=300)), max_size=4))
@long_run
def test_sets_never_raise(contents: list[bytes]) -> None:
    result = compile_set([(f"{index}.policy", content) for index, content in enumerate(contents)])
    assert result.ok or not result.policies
    render(result.diagnostics, result.sources, color=True)


@given(mutated(SOURCES))
@long_run
def test_a_comment_more_changes_no_hash(text: str) -> None:
    plain = compile_source(text, "x")
    commented = compile_source("// a comment\n\n" + text, "y")
    assert [p.hash for p in plain.policies] == [p.hash for p in commented.policies]
    assert [d.code for d in plain.diagnostics] == [d.code for d in commented.diagnostics]
