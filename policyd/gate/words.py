r"""What every text that meets a regular expression has in it: literals in order, at its start, at its end, or somewhere.

Always an over-approximation: a text that meets the pattern meets one of its words, and others may, too. What is not
understood for sure makes a gap, or the whole pattern None. The syntax is RE2's, over bytes.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_WORDS: Final = 64
_MAX_PATTERN: Final = 4096
_MAX_DEPTH: Final = 32
#: Bytes of a class that are taken one by one; a larger one is a gap.
_MAX_CLASS: Final = 4

_REPEAT: Final = re.compile(rb"\{(\d+)(,\d*)?\}")
_ESCAPED: Final = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"f": b"\f", b"v": b"\v", b"a": b"\a"}
_GROUP: Final = re.compile(rb"\?(?:s?:|P?<\w+>)")  # one that doesn't change how its inside is read


@dataclass(frozen=True, slots=True)
class Word:
    """Literals with gaps of any bytes between them. starts: nothing stands before the first; ends: nothing behind the last."""

    parts: tuple[bytes, ...]
    starts: bool = False
    ends: bool = False


class _Mark:
    """A thing in a sequence that isn't a literal."""


_GAP, _START, _END = _Mark(), _Mark(), _Mark()
_PLAIN: Final = {b".": _GAP, b"^": _START, b"$": _END}
_Items: TypeAlias = "tuple[bytes | _Mark, ...]"


class _GiveUpError(Exception):
    """The pattern has something in it that isn't understood."""


def words_of(pattern: bytes) -> list[Word] | None:
    """Returns words of which each text that meets the pattern, searched for anywhere, meets one; None: can't be said."""
    if len(pattern) > _MAX_PATTERN:
        return None
    reader = _Reader(pattern)
    try:
        found = reader.alternatives(0)
        if reader.at != len(pattern):
            return None
    except _GiveUpError:
        return None
    return list(dict.fromkeys(map(_word, found)))


def _word(items: _Items) -> Word:
    found = [item for item in items if item != b""]
    starts = bool(found) and found[0] is _START
    ends = bool(found) and found[-1] is _END
    # An anchor elsewhere makes the pattern stricter, which we may leave out.
    parts: list[bytes] = [b""]
    for item in found:
        if isinstance(item, bytes):
            parts[-1] += item
        elif item is _GAP and (parts[-1] or len(parts) == 1):  # two gaps are one
            parts.append(b"")
    return Word(tuple(parts), starts, ends)


class _Reader:
    """Reads a pattern by recursive descent; each method returns the sequences that what it read stands for."""

    def __init__(self, pattern: bytes) -> None:
        self.at = 0
        self._text = pattern

    def alternatives(self, depth: int) -> list[_Items]:
        """alternatives = sequence { "|" sequence }"""
        if depth > _MAX_DEPTH:
            raise _GiveUpError
        found = self._sequence(depth)
        while self._take(b"|"):
            found += self._sequence(depth)
        return _bounded(found)

    def _sequence(self, depth: int) -> list[_Items]:
        """sequence = { one [ "*" | "+" | "?" | "{" m [ "," [ n ] ] "}" [ "?" ] ] }"""
        found: list[_Items] = [()]
        while self.at < len(self._text) and self._text[self.at : self.at + 1] not in (b"|", b")"):
            item = self._repeated(self._one(depth))
            found = _bounded([one + other for one, other in itertools.product(found, item)])
        return found

    def _repeated(self, item: list[_Items]) -> list[_Items]:
        if self._take(b"*"):
            item = [(_GAP,)]
        elif self._take(b"+"):
            item = [(*one, _GAP) for one in item]
        elif self._take(b"?"):
            item = [(), *item]
        elif (repeat := _REPEAT.match(self._text, self.at)) is not None:
            self.at = repeat.end()
            item = [(_GAP,)]
        else:
            return item
        self._take(b"?")
        if self._text[self.at : self.at + 1] in (b"*", b"+", b"?") or _REPEAT.match(self._text, self.at):
            raise _GiveUpError
        return item

    def _one(self, depth: int) -> list[_Items]:
        """one = "(" alternatives ")" | class | escape | "." | "^" | "$" | any other byte"""
        char = self._next()
        match char:
            case b"(":
                return self._group(depth)
            case b"[":
                return self._class()
            case b"\\":
                return self._escape()
            case b"*" | b"+" | b"?":
                raise _GiveUpError
        return [(_PLAIN.get(char, char),)]

    def _group(self, depth: int) -> list[_Items]:
        if self._text[self.at : self.at + 1] == b"?":
            known = _GROUP.match(self._text, self.at)
            if known is None:
                raise _GiveUpError  # flags: `(?i)` and the like
            self.at = known.end()
        found = self.alternatives(depth + 1)
        if not self._take(b")"):
            raise _GiveUpError
        return found

    def _escape(self) -> list[_Items]:
        char = self._next()
        if char in b"dDwWsSC":
            return [(_GAP,)]
        if char in b"bB":
            return [()]  # says something of a place, and takes no byte
        if char == b"A":
            return [(_START,)]
        if char == b"z":
            return [(_END,)]
        return [(self._literal(char),)]

    def _literal(self, char: bytes) -> bytes:
        """Returns what an escaped byte stands for."""
        if char == b"x":
            digits = self._text[self.at : self.at + 2]
            if re.fullmatch(rb"[0-9a-fA-F]{2}", digits) is None:
                raise _GiveUpError
            self.at += 2
            return bytes([int(digits, 16)])
        if char in _ESCAPED:
            return _ESCAPED[char]
        if char.isalnum():
            raise _GiveUpError
        return char

    def _class(self) -> list[_Items]:
        """class = "[" [ "^" ] { byte [ "-" byte ] } "]"; only a small one of single bytes is taken by its bytes."""
        negated = self._take(b"^")
        members: list[bytes] | None = []
        first = True
        while first or not self._take(b"]"):
            first = False
            char = self._next()
            if char == b"[" and self._text[self.at : self.at + 1] == b":":
                end = self._text.find(b":]", self.at)
                if end < 0:
                    raise _GiveUpError
                self.at, members = end + 2, None
            elif char == b"\\":
                following = self._next()
                if following in b"dDwWsS":
                    members = None
                elif following in (b"p", b"P"):
                    raise _GiveUpError
                else:
                    members = _with(members, self._literal(following))
            else:
                members = _with(members, char)
            if self._text[self.at : self.at + 1] == b"-" and self._text[self.at + 1 : self.at + 2] != b"]":
                members = None  # a range; its other end is read as a member
                self.at += 1
        if negated or members is None or len(members) > _MAX_CLASS:
            return [(_GAP,)]
        return [(member,) for member in members]

    def _take(self, wanted: bytes) -> bool:
        if self._text[self.at : self.at + 1] != wanted:
            return False
        self.at += 1
        return True

    def _next(self) -> bytes:
        if self.at >= len(self._text):
            raise _GiveUpError
        self.at += 1
        return self._text[self.at - 1 : self.at]


def _with(members: list[bytes] | None, more: bytes) -> list[bytes] | None:
    return None if members is None else [*members, more]


def _bounded(found: list[_Items]) -> list[_Items]:
    if len(found) > MAX_WORDS:
        raise _GiveUpError
    return found
