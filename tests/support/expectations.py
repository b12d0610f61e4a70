"""Reads `// expect: CODE "underlined text"` comments out of policy files and compares them with diagnostics."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from policyd.compiler import Diagnostic, SourceFile

_EXPECT = re.compile(r'expect(-below)?: (ER\d{4}) ("(?:[^"\\]|\\.)*")')


class Expectation(NamedTuple):
    """One diagnostic: its line, code and underlined text."""

    line: int
    code: str
    text: str


def expected(source: str) -> Counter[Expectation]:
    """Returns what the comments of a policy file announce; `expect-below` is about the next line."""
    found: Counter[Expectation] = Counter()
    for number, line in enumerate(source.split("\n"), start=1):
        for below, code, text in _EXPECT.findall(line):
            found[Expectation(number + 1 if below else number, code, json.loads(text))] += 1
    return found


def reported(diagnostics: Iterable[Diagnostic], source: SourceFile) -> Counter[Expectation]:
    """Returns what diagnostics say, in the same form."""
    return Counter(
        Expectation(source.position(d.primary.span.start)[0], d.code, source.snippet(d.primary.span))
        for d in diagnostics
    )
