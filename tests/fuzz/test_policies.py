"""Long runs of the policy compiler on random input. `EXECRAY_FUZZ_EXAMPLES` sets how many each (default 300)."""

from __future__ import annotations

import datetime
import os
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyd.compiler import Level, SourceFile, Span, compile_set, compile_source, render
from policyd.compiler.diagnostics import Sink
from policyd.compiler.lexer import tokenize
from policyd.compiler.parser import parse
from policyd.compiler.story import story
from policyd.compiler.tokens import T
from tests.support.policy_text import mutated, nested_soups, soups, token_lists, well_formed

DATA = Path(__file__).parents[1] / "data" / "policies"
SOURCES = [path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*/*.policy"))]
OUTSIDE = [
    'list A = ["/a"] path "a" { exec { exe in A } as x }',
    'list A = [1] path "b" { exec { uid in A } }',
    'list A += ["/b"]',
    'exception for "a*" until "2026-01-01" { x.uid = 0 }',
    'list A = ["/c"] macro m(p) = p in A exception for "*" { m(exe) }',
    'exception for "?" until "2025-12-31" { frobnicate }',
]
EXAMPLES = int(os.environ.get("EXECRAY_FUZZ_EXAMPLES", "300"))
long_run = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.one_of(mutated(SOURCES), soups, nested_soups))
@long_run
def test_compiling_and_rendering_never_raises(text: str) -> None:
    compilation = compile_source(text, "x")
    for color in (False, True):
        render(compilation.diagnostics, [compilation.source], color=color)


@given(st.one_of(st.text(max_size=300), mutated(SOURCES), soups, nested_soups))
@long_run
def test_the_lexer_never_raises_and_leaves_nothing_out(text: str) -> None:
    sink = Sink(SourceFile("x", text))
    tokens = tokenize(sink)
    assert tokens[-1].kind is T.END and tokens[-1].end == len(text)
    assert all(first.end <= second.start for first, second in pairwise(tokens))


@given(token_lists)
@long_run
def test_the_parser_takes_any_tokens(text: str) -> None:
    sink = Sink(SourceFile("x", text))
    tree = parse(tokenize(sink), sink)
    whole = Span(0, len(text))
    for policy in tree.policies:
        assert whole.start <= policy.span.start <= policy.span.end <= whole.end


@given(well_formed())
@long_run
def test_whatever_is_well_formed_is_typed_or_reported(text: str) -> None:
    """Names, types and automata: text that always parses, with names and values that often don't fit."""
    sink = Sink(SourceFile("x", text))
    parse(tokenize(sink), sink)
    assert not sink.errors, text
    compilation = compile_source(text, "x", plugins=frozenset(), today=datetime.date(2026, 1, 1), budget_bytes=1 << 20)
    assert compilation.ok == (not any(found.level is Level.ERROR for found in compilation.diagnostics))
    render(compilation.diagnostics, [compilation.source], color=False)
    for policy in compilation.policies:
        assert story(policy) and len(policy.hash) == 64


@given(st.lists(st.one_of(mutated(SOURCES).map(str.encode), st.binary(max_size=300)), max_size=4))
@long_run
def test_sets_never_raise(contents: list[bytes]) -> None:
    result = compile_set([(f"{index}.policy", content) for index, content in enumerate(contents)])
    assert result.ok or not result.policies
    render(result.diagnostics, result.sources, color=True)


@given(st.permutations(OUTSIDE), st.integers(min_value=0, max_value=len(OUTSIDE)), mutated(SOURCES))
@long_run
def test_files_that_speak_of_each_other_compile_alike_at_once_and_one_by_one(
    texts: list[str], count: int, other: str
) -> None:
    before = None
    files = [(f"{index}.policy", text.encode()) for index, text in enumerate([*texts, other])]
    for part in (files[:count], files[count:], files):
        before = compile_set(part, before=before, today=datetime.date(2026, 1, 1))
        render(before.diagnostics, before.sources, color=False)
    assert before is not None
    whole = compile_set(files, today=datetime.date(2026, 1, 1))
    assert (before.policies, before.diagnostics) == (whole.policies, whole.diagnostics)


@given(mutated(SOURCES))
@long_run
def test_a_comment_more_changes_no_hash(text: str) -> None:
    plain = compile_source(text, "x")
    commented = compile_source("// a comment\n\n" + text, "y")
    assert [p.hash for p in plain.policies] == [p.hash for p in commented.policies]
    assert [d.code for d in plain.diagnostics] == [d.code for d in commented.diagnostics]
