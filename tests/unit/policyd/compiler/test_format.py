"""`policy fmt`: one layout, whatever the spaces were; comments and lines stay; the meaning never changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.compiler import compile_source
from policyd.compiler.diagnostics import Sink
from policyd.compiler.format import format_source
from policyd.compiler.lexer import tokenize
from policyd.compiler.source import SourceFile

ROOT = Path(__file__).parents[4]
SHIPPED = sorted((ROOT / "policies").rglob("*.policy"))
READABLE = [
    path
    for path in sorted((ROOT / "tests" / "data" / "policies").rglob("*.policy")) + SHIPPED
    if format_source(path.read_bytes(), "f") is not None
]

MESSY = """


# about it
list  A=["a",   "b"  ,   // first
     "c",
   "d" ]   // last

path "p"{
key process


      open{path in A  flags has O_CREAT|O_EXCL , mode hasany (S_IXUSR | S_IXGRP)   // short
access   has   READ   // longer
        ret = -EPERM /* why */ uid!=0
 not  basename( path ) = "x"
 argv[ 0 ]="a  b"
        (uid = 0)
    }as   first   within 5s ..
  exec{ } ? block "a"{exit{}}:fork{}

  on match{alert high;kill
       log}

}
"""
NEAT = """\
# about it
list A = ["a", "b",  // first
    "c",
    "d"]  // last

path "p" {
    key process

    open { path in A flags has O_CREAT|O_EXCL, mode hasany (S_IXUSR | S_IXGRP)  // short
        access has READ                                                         // longer
        ret = -EPERM /* why */ uid != 0
        not basename(path) = "x"
        argv[0] = "a  b"
        (uid = 0)
    } as first within 5s ..
    exec { } ? block "a" { exit { } }: fork { }

    on match { alert high; kill
        log }
}
"""


def formatted(text: str) -> str:
    found = format_source(text.encode(), "f")
    assert found is not None
    return found


def test_layout_of_every_construct() -> None:
    assert formatted(MESSY) == NEAT


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_is_idempotent_and_keeps_comments_lines_and_meaning(path: Path) -> None:
    text = path.read_text()
    once = formatted(text)
    assert formatted(once) == once
    assert once.count("//") == text.count("//") and [x.strip() for x in once.split("\n") if x.strip()] != []
    assert len([x for x in once.split("\n") if x.strip()]) == len([x for x in text.split("\n") if x.strip()])
    before, after = compile_source(text, "f"), compile_source(once, "f")
    assert [policy.hash for policy in before.policies] == [policy.hash for policy in after.policies]
    assert [d.code for d in before.diagnostics] == [d.code for d in after.diagnostics]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_policies_are_laid_out(path: Path) -> None:
    assert formatted(path.read_text()) == path.read_text()


@given(st.sampled_from(READABLE), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_spaces_between_tokens_make_no_difference(path: Path, random: object) -> None:
    text = path.read_text()
    assert formatted(_shaken(text, random)) == formatted(text)


def _shaken(text: str, random: object) -> str:
    """Widens every space that stands alone between two tokens of a line, and the indentation."""
    source = SourceFile("f", text)
    out, at = [], 0
    for token in tokenize(Sink(source)):
        gap = text[at : token.start]
        if gap and not gap.strip(" ") and not token.newline:
            gap = " " * random.randint(1, 5)  # type: ignore[attr-defined]  # random.Random; hypothesis types it as object
        out += [gap, text[token.start : token.end]]
        at = token.end
    return "".join(out)


@pytest.mark.parametrize("text", ['path "p" { open { path = "a }', 'path "p" {', "path 'p' { }", "\udcff"])
def test_what_cannot_be_read_is_not_touched(text: str) -> None:
    assert format_source(text.encode("utf-8", "surrogateescape"), "f") is None
