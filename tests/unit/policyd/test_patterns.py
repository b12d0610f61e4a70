"""The shared regular expression set-up."""

from __future__ import annotations

import pytest

from policyd.patterns import PatternError, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (rb"/etc/(passwd|shadow)", b"x/etc/shadow.bak", True),
        (rb"a.b", b"a\nb", True),
        (rb"end$", b"end\n", False),
        (rb"(?m)end$", b"end\nmore", True),
        (rb"(?i)BASH", b"/bin/bash", True),
        (rb"BASH", b"/bin/bash", False),
        (b"\xc3\xa9", "café".encode(), True),
        (rb"\xff", b"a\xff", True),
    ],
)
def test_search_is_unanchored_over_bytes(pattern: bytes, text: bytes, found: bool) -> None:
    assert (compile_pattern(pattern).search(text) is not None) is found


def test_ignore_case_folds_without_a_flag_in_the_pattern() -> None:
    assert compile_pattern(b"curl", True).search(b"CURL") is not None
    assert compile_pattern(b"curl", False).search(b"CURL") is None


@pytest.mark.parametrize("pattern", [b"(", b"(?=x)", rb"\1", b"a{1000}{1000}", b"((a{100}){100}){100}", b"*"])
def test_what_re2_refuses_is_a_pattern_error_with_its_reason(pattern: bytes) -> None:
    with pytest.raises(PatternError, match=r"\w"):
        compile_pattern(pattern)
