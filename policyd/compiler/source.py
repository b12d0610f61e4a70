"""Source text: spans into it, and the line and column of a place in it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

#: Larger files are refused, in bytes of UTF-8.
MAX_FILE_BYTES = 5 << 20


class Span(NamedTuple):
    """A half-open pair of indexes into the source text."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """Returns the span from the start of this one to the end of the other."""
        return Span(self.start, max(self.end, other.end))


@dataclass(frozen=True)
class SourceFile:
    """One policy file. name is what diagnostics call it; no file of that name need exist."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> list[int]:
        """Index of the first character of each line; lines end at a newline only."""
        starts = [0]
        find = self.text.find
        at = find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = find("\n", at + 1)
        return starts

    def position(self, index: int) -> tuple[int, int]:
        """Returns line and column of a character, both counted from 1."""
        line = bisect_right(self.line_starts, index)
        return line, index - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Returns a line without its end, counted from 1."""
        start = self.line_starts[number - 1]
        end = self.line_starts[number] - 1 if number < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")

    def snippet(self, span: Span) -> str:
        """Returns the text of a span."""
        return self.text[span.start : span.end]
