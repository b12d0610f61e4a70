"""No input makes the compiler raise, hang or recurse without bound; every bound has its diagnostic."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.compiler import Compilation, Level, SourceFile, compile_source, diagnostic_to_json, render
from policyd.compiler.codes import CODES
from policyd.compiler.diagnostics import MAX_SHOWN, Sink
from policyd.compiler.lexer import tokenize
from policyd.compiler.source import MAX_FILE_BYTES
from tests.support.policy_text import mutated, nested_soups, soups

ROOT = Path(__file__).parents[4]
GOOD = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/data/policies/ok").glob("*.policy"))]
CORPUS = sorted((ROOT / "tests/fuzz/corpus/policies").iterdir())
_GAP = re.compile(r"(?:\s|\ufeff|//[^\n]*|#[^\n]*|/\*.*?\*/)*\Z", re.DOTALL | re.ASCII)


def check(compilation: Compilation) -> None:
    """What holds for every compilation: sound spans, known codes, no policy beside an error, printable output."""
    text = compilation.source.text
    for diagnostic in compilation.diagnostics:
        assert diagnostic.code in CODES
        assert "\n" not in diagnostic.message + diagnostic.help
        for label in (diagnostic.primary, *diagnostic.labels):
            assert 0 <= label.span.start <= label.span.end <= len(text)
        assert diagnostic_to_json(diagnostic, compilation.source)["file"] == "x"
    assert len(compilation.diagnostics) <= MAX_SHOWN
    assert compilation.ok or not compilation.policies
    shown = render(compilation.diagnostics, [compilation.source], color=False)
    assert all(line.isprintable() for line in shown.split("\n"))
    for policy in compilation.policies:
        assert not policy.states[0].accepting
        for state in policy.states:
            assert all(t.step < len(policy.steps) and t.target < len(policy.states) for t in state.transitions)


@given(st.one_of(soups, nested_soups, mutated(GOOD)))
@settings(max_examples=250, deadline=None)
def test_any_text_gives_diagnostics_or_policies(text: str) -> None:
    check(compile_source(text, "x"))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_diagnostics_or_policies(raw: bytes | str) -> None:
    check(compile_source(raw, "x"))


@given(st.one_of(soups, nested_soups, mutated(GOOD), st.text(max_size=80)))
@settings(max_examples=200, deadline=None)
def test_tokens_and_gaps_tile_the_source(text: str) -> None:
    sink = Sink(SourceFile("x", text))
    tokens = tokenize(sink)
    end = 0
    for token in tokens:
        assert token.start >= end
        assert token.end >= token.start
        gap = text[end : token.start]
        assert _GAP.match(gap) or sink.errors
        assert token.newline is ("\n" in gap or end == 0) or sink.errors
        end = token.end
    assert end == len(text)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus_of_former_crashes(path: Path) -> None:
    check(compile_source(path.read_bytes(), "x"))


def codes(text: bytes | str) -> set[str]:
    return {d.code for d in compile_source(text, "x").diagnostics if d.level is Level.ERROR}


def test_file_size_is_bounded() -> None:
    assert codes(b"#" * (MAX_FILE_BYTES + 1)) == {"ER0002"}
    assert codes(b"#" * MAX_FILE_BYTES) == set()


def test_an_error_behind_very_many_warnings_is_an_error() -> None:
    text = 'path "p" { open { uid = 0 or gid = 0 ret >= 0 } }\n'
    many = "".join(text.replace('"p"', f'"p{number}"') for number in range(600))
    compilation = compile_source(many + 'path "q" { opne {} }', "x")
    assert not compilation.ok and compilation.diagnostics[-1].code == "ER0202"


def test_number_of_steps_is_bounded() -> None:
    assert codes('path "p" { ' + "exit {} " * 1024 + "}") == set()
    assert codes('path "p" { ' + "exit {} " * 1025 + "}") == {"ER0402"}


def test_text_that_is_not_utf_8_is_a_diagnostic_at_the_byte() -> None:
    compilation = compile_source('path "é" {\n  exit {} // '.encode() + b"\xe9\n}", "x")
    (diagnostic,) = compilation.diagnostics
    assert diagnostic.code == "ER0001"
    assert compilation.source.position(diagnostic.primary.span.start) == (2, 14)


def test_str_with_lone_surrogates_is_not_utf_8() -> None:
    assert codes('path "\udcff" { exit {} }') == {"ER0001"}


NESTED = {
    "parentheses": ('path "p" { exit { ', "(", "uid = 0", ")", "} }"),
    "not": ('path "p" { exit { ', "not ", "uid = 0", "", "} }"),
    "minus": ('path "p" { exit { ret = ', "-", "0", "", "} }"),
    "calls": ('path "p" { exit { ', "f(", "uid", ")", " = 1 } }"),
    "labelled blocks": ('path "p" { ', 'block "b" {', "exit {}", "}", "}"),
    "blocks": ('path "p" { ', "{", "exit {}", "}", "}"),
    "either": ('path "p" { ', "either {", "exit {}", "}", "}"),
    "keys": ('path "p" key ', "(", "uid", ")", "{ exit {} }"),
    "quantifiers": ('path "p" { exit { ', "any argv(", 'it = "x"', ")", "} }"),
    "until": ('path "p" within 5s { ', "{ exit {} until exit {} ", "exit {}", "}", "}"),
    "then": ('path "p" within 5s { ', "exit {} ? ", "exit {}", "", "}"),
    "else": ('path "p" within 5s { ', "exit {} ? exec {} : ", "exit {}", "", "}"),
    "lists": ("list A = ", "[", "1", "]", ""),
}


@pytest.mark.parametrize("parts", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("depth", [64, 65, 5000])
def test_nesting_is_bounded(parts: tuple[str, str, str, str, str], depth: int) -> None:
    start, opener, middle, closer, end = parts
    compilation = compile_source(start + opener * depth + middle + closer * depth + end, "x")
    check(compilation)
    assert depth == 64 or not compilation.ok


def test_nesting_of_sixty_four_levels_is_allowed() -> None:
    assert codes('path "p" { exit { ' + "(" * 64 + "uid = 0" + ")" * 64 + " } }") == set()
    assert codes('path "p" { exit { ' + "(" * 65 + "uid = 0" + ")" * 65 + " } }") == {"ER0108"}


HOSTILE = {
    "quotes": '"' * 200_000,
    "unclosed comments": "/*" * 200_000,
    "braces": "{" * 200_000,
    "closers": "}" * 200_000,
    "policies left open": 'path "p" {\n' * 20_000,
    "steps left open": 'path "p" {\n' + "open {\n" * 20_000,
    "backslashes": '"' + "\\" * 200_000,
    "long name": "a" * 500_000,
    "dotted name": 'path "p" { exec { ' + "a." * 100_000 + "b = 1 } }",
    "long number": 'path "p" { exec { uid = ' + "9" * 500_000 + " } }",
    "comment lines": "//\n" * 300_000,
    "wide or": 'path "p" { exec { ' + " or ".join(["uid = 1"] * 5_000) + " } }",
    "long list": 'path "p" { exec { uid in [' + ",".join(map(str, range(20_000))) + "] } }",
    "unknown events": 'path "p" {\n' + "\n".join(f"opne{n} {{}}" for n in range(1_000)) + "}",
    "unknown names": 'path "p" { open {\n' + "\n".join(f"uid = frobnicate{n}" for n in range(1_000)) + "}}",
    "conditionals": 'path "p" within 5s {' + "open {} ? write {} : exec {}\n" * 300 + "}",
    "aliases": 'path "p" {' + "".join(f"exit {{}} as a{n}\n" for n in range(100_000)) + "}",
    "unknown steps": 'path "p" {' + "".join(f"exit {{ x{n}.pid = 1 }} as a{n}\n" for n in range(30_000)) + "}",
    "blocks and handlers": 'path "p" {' + 'block "b" { on match { log } }\n' * 50_000 + "}",
    "indexes": 'path "p" { exec { argv' + "[1]" * 200_000 + ' = "x" } }',
    "branches": 'path "p" within 5s { either { open {} as a } ' + "or { exec {} as b }\n" * 50_000 + "}",
    "untils": 'path "p" within 5s { open {}' + "until exit {}\n" * 50_000 + "exec {} }",
    "exceptions": 'path "p" { open {}' + "except { uid = 0 }\n" * 50_000 + "}",
    "key parts": 'path "p" key ' + ", ".join(["uid"] * 50_000) + " { exit {} }",
    "doubling macros": "macro m0() = uid = 0\n"
    + "".join(f"macro m{n + 1}() = m{n}() or m{n}()\n" for n in range(60))
    + 'path "p" { exec { m60() } }',
    "chain of macros": "macro m0() = uid = 0\n"
    + "".join(f"macro m{n + 1}() = m{n}()\n" for n in range(3_000))
    + 'path "p" { exec { m3000() } }',
    "long list often": "list L = ["
    + ",".join(map(str, range(100_000)))
    + "]\n"
    + "".join(f'path "p{n}" {{ exec {{ uid in L }} }}\n' for n in range(2_000)),
    "long list often negated": "list L = ["
    + ",".join(map(str, range(100_000)))
    + "]\n"
    + "".join(f'path "p{n}" {{ exec {{ uid != L }} }}\n' for n in range(2_000)),
    "long list of patterns often": "list L = ["
    + ",".join(f'"a{n}"' for n in range(20_000))
    + "]\n"
    + "".join(f'path "p{n}" {{ exec {{ exe =~ L }} }}\n' for n in range(2_000)),
    "lists and policies": "".join(f"list A{n} = [1]\n" for n in range(20_000)) + 'path "p" {}\n' * 20_000,
    "contains all": 'path "p" { exec { exe contains all [\n' + '"a",\n' * 50_000 + "] } }",
    "odd quotes": 'path "p" { open { path = "x } }\n' * 3_001,
    "many patterns": 'path "p" { open { path =~ ["(", ' + ",".join('"(a{500}){2}"' for _ in range(200)) + "] } }",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_end_soon(text: str) -> None:
    began = time.process_time()
    check(compile_source(text, "x"))
    assert time.process_time() - began < 45  # a bound, not a measure: machines that run tests are busy


def test_at_most_twenty_are_shown_errors_first_and_the_rest_is_counted() -> None:
    text = (
        "".join(f'path "p{n}" key process {{ open {{}} write {{}} }}\n' for n in range(30)) + 'path "q" { opne {} }\n'
    )
    compilation = compile_source(text, "x")
    assert len(compilation.diagnostics) == MAX_SHOWN
    assert compilation.not_shown == 11
    assert compilation.diagnostics[-1].code == "ER0202"
    assert not compilation.ok
