"""What regular expressions imply: never more than they say, and something where they say something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.compiler.literals import basename_pattern, glob_pattern, like_pattern
from policyd.gate.words import Word, words_of
from policyd.patterns import PatternError, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (b"/etc/(passwd|shadow)", [Word((b"/etc/passwd",)), Word((b"/etc/shadow",))]),
        (rb"^/proc/[0-9]+/mem$", [Word((b"/proc/", b"/mem"), True, True)]),
        (rb"^/proc/[0-9]+/(task/[0-9]+/)?mem$",
         [Word((b"/proc/", b"/mem"), True, True), Word((b"/proc/", b"/task/", b"/mem"), True, True)]),
        (rb"\.(gz|xz)$", [Word((b".gz",), ends=True), Word((b".xz",), ends=True)]),
        (rb"a[bc]d", [Word((b"abd",)), Word((b"acd",))]),
        (rb"a[b-d]e", [Word((b"a", b"e"))]),
        (rb"[]x]y", [Word((b"]y",)), Word((b"xy",))]),
        (rb"ab*c+d{2,3}e", [Word((b"a", b"c", b"e"))]),
        (rb"\x41\/\.\t", [Word((b"A/.\t",))]),
        (rb"(?P<name>a)(?:b)(?s:c)", [Word((b"abc",))]),
        (rb"a^b", [Word((b"ab",))]),
        (basename_pattern("=", b"id_rsa"), [Word((b"id_rsa",), True, True), Word((b"/id_rsa",), ends=True)]),
        (glob_pattern(b"/home/*/.ssh/**"), [Word((b"/home/", b"/.ssh/", b""), True, True)]),
        (like_pattern(b"*.sh"), [Word((b"", b".sh"), True, True)]),
    ],
)  # fmt: skip
def test_a_pattern_has_these_words(pattern: bytes, wanted: list[Word]) -> None:
    assert words_of(pattern) == wanted


@pytest.mark.parametrize(
    "pattern",
    [
        rb"(?i)/etc",
        rb"(?i:a)b",
        rb"\pL",
        rb"\Qa.b\E",
        rb"a**",
        rb"(a",
        b"(" * 40 + b"a" + b")" * 40,
        b"(a|b)" * 7,
        b"a" * 5000,
    ],
)
def test_what_is_not_understood_implies_nothing(pattern: bytes) -> None:
    assert words_of(pattern) is None


def meets(word: Word, text: bytes) -> bool:
    """Whether the word's parts stand in the text, in order, and at its ends where they must."""
    first, *rest = word.parts
    if word.starts and not rest and word.ends:
        return text == first
    if word.starts and not text.startswith(first):
        return False
    at = len(first) if word.starts else text.find(first) + len(first)
    if not word.starts and first not in text:
        return False
    last = rest.pop() if word.ends and rest else None
    for part in rest:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if word.ends:
        return text.endswith(first) if last is None else text.endswith(last) and len(text) - len(last) >= at
    return True


PIECES = (
    "a",
    "b",
    "/",
    ".",
    r"\.",
    "[ab]",
    "[^a]",
    "[a-b]",
    "[[:alpha:]/]",
    r"\w",
    r"\b",
    "^",
    "$",
    r"\A",
    r"\z",
    r"\x61",
)
MARKS = ("", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?")


def patterns() -> st.SearchStrategy[str]:
    one = st.builds(lambda piece, mark: piece + mark, st.sampled_from(PIECES), st.sampled_from(MARKS))
    return st.recursive(
        one,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map("".join),
            st.lists(inner, min_size=2, max_size=3).map("|".join).map(lambda text: f"({text})"),
            st.builds(lambda text, mark: f"(?:{text}){mark}", inner, st.sampled_from(MARKS)),
        ),
        max_leaves=6,
    )


@given(patterns(), st.lists(st.text("ab/.x", max_size=6), min_size=1, max_size=8))
def test_a_text_that_meets_a_pattern_meets_one_of_its_words(pattern: str, texts: list[str]) -> None:
    raw = pattern.encode()
    words = words_of(raw)
    try:
        search = compile_pattern(raw).search
    except PatternError:
        return
    for text in map(str.encode, texts):
        if words is not None and search(text) is not None:
            assert any(meets(word, text) for word in words), (words, text)
