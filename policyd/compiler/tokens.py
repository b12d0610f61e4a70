"""Tokens of the policy language."""

from __future__ import annotations

import enum
from typing import NamedTuple

from policyd.compiler.source import Span


class T(enum.Enum):
    """What a token is. Keywords are contextual, so they are names here."""

    NAME = "name"  # may hold dots: old.uid
    STRING = "string"
    NUMBER = "number"
    DURATION = "duration"  # value in nanoseconds
    SIZE = "size"  # value in bytes
    ADDRESS = "address"  # an IPv4 address or network outside of quotes
    PUNCTUATION = "punctuation"
    END = "end of file"


#: The value of a number that was reported as malformed.
MALFORMED = -1


class Token(NamedTuple):
    """One token, with what its surroundings mean to the grammar."""

    kind: T
    start: int
    end: int
    text: str  # as written; for a string its body, without quotes and with its escapes
    newline: bool  # a line break stands between the token before and this one
    touches: bool  # nothing stands between the token before and this one
    value: int = 0
    verbatim: bool = False  # a raw or triple string: backslashes mean themselves

    @property
    def span(self) -> Span:
        """Where it stands, quotes included."""
        return Span(self.start, self.end)


DURATION_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
SIZE_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
