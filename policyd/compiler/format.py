"""Policy files in their one layout: `execray-ctl policy fmt`.

Lines are the author's: none is joined or broken, since a line break may mean something (it ends an action, and parts a
modifier from its step). What is laid out anew is the space in them: indentation by brackets, one space between words,
comments behind code in columns. So what a file means can't change, and the tokens are compared to be sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from policyd.compiler.diagnostics import Sink
from policyd.compiler.lexer import tokenize
from policyd.compiler.parser import parse
from policyd.compiler.source import SourceFile
from policyd.compiler.tokens import T, Token

INDENT: Final = "    "
#: A column of comments is kept within this; further to the right, each stands two spaces behind its line.
MAX_COLUMN: Final = 100
_COMMENT: Final = re.compile(r"//[^\n]*|\#[^\n]*|/\*.*?\*/", re.DOTALL)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")


@dataclass(slots=True)
class _Line:
    """One line of the result. code may hold line breaks, in a text that spans lines."""

    blank_before: bool
    parts: list[Token | str] = field(default_factory=list)  # a str is a comment
    indent: str = ""
    code: str = ""
    comment: str = ""  # behind the code, or alone

    @property
    def tokens(self) -> list[Token]:
        """What isn't comment."""
        return [part for part in self.parts if isinstance(part, Token)]


def format_source(raw: bytes, name: str) -> str | None:
    """Returns a file laid out anew, None for one that can't be read as policies: its diagnostics say why."""
    try:
        sink = Sink(SourceFile(name, raw.decode("utf-8")))
    except UnicodeDecodeError:
        return None
    tokens = tokenize(sink)
    parse(tokens, sink)
    return None if sink.errors else format_tokens(sink.source, tokens)


def format_tokens(source: SourceFile, tokens: Sequence[Token]) -> str:
    """Returns the file laid out anew. The tokens are those of `tokenize`, without an error, the last of kind END."""
    lines = list(_lines(source.text, tokens))
    opened: list[int] = []  # for each open bracket, the line that opened it
    for number, line in enumerate(lines):
        closers = 0
        for token in line.tokens:
            if not _is(token, _CLOSING):
                break
            closers += 1
        line.indent = INDENT * len(set(opened[: max(0, len(opened) - closers)]))
        for token in line.tokens:
            if _is(token, _OPENING):
                opened.append(number)
            elif _is(token, _CLOSING) and opened:
                opened.pop()
        _lay_out(source.text, line)
    text = "".join(_rendered(lines))
    assert _meaning(tokenize(Sink(SourceFile(source.name, text)))) == _meaning(tokens), "a layout changed the tokens"
    return text


def _is(token: Token, signs: frozenset[str]) -> bool:
    return token.kind is T.PUNCTUATION and token.text in signs


def _meaning(tokens: Sequence[Token]) -> list[tuple[object, ...]]:
    """Returns all that the grammar looks at."""
    # Before the first token there is no line to break, and behind the last one none to go on.
    calls = [before.kind is T.NAME and token.touches and token.text in "([" for before, token in pairwise(tokens)]
    inner = [
        (t.kind, t.text, t.newline and t.kind is not T.END, call) for t, call in zip(tokens[1:], calls, strict=True)
    ]
    return [(tokens[0].kind, tokens[0].text), *inner]


def _lines(text: str, tokens: Sequence[Token]) -> Iterator[_Line]:
    line = _Line(False)
    for part, breaks in _parts(text, tokens):
        if breaks and line.parts:
            yield line
            line = _Line(breaks > 1)
        line.parts.append(part)
    if line.parts:
        yield line


def _parts(text: str, tokens: Sequence[Token]) -> Iterator[tuple[Token | str, int]]:
    """Yields tokens and comments in order, each with the number of line breaks before it."""
    at = 0
    for token in tokens:
        for comment in _COMMENT.finditer(text, at, token.start):
            yield comment[0].rstrip(), text.count("\n", at, comment.start())
            at = comment.end()
        if token.kind is not T.END:
            yield token, text.count("\n", at, token.start)
        at = token.end


def _lay_out(text: str, line: _Line) -> None:
    """Fills in code and comment. A comment in the middle of a line stays there, as part of its code."""
    parts = line.parts
    if isinstance(last := parts[-1], str):
        parts, line.comment = parts[:-1], last
    shown: list[str] = []
    for index, part in enumerate(parts):
        before = parts[index - 1] if index else None
        if before is not None and (isinstance(part, str) or isinstance(before, str) or _space(before, part)):
            shown.append(" ")
        shown.append(part if isinstance(part, str) else text[part.start : part.end])
    line.code = "".join(shown)


def _space(before: Token, token: Token) -> bool:
    """Whether a space belongs between two tokens of a line."""
    left = before.text if before.kind is T.PUNCTUATION else ""
    right = token.text if token.kind is T.PUNCTUATION else ""
    if left in ("(", "[", "$", "!", "-") or right in (")", "]", ",", ";"):
        return False
    if right in ("(", "[") and before.kind is not T.NAME:
        return True
    if right in ("(", "[", "|", ":") or (right.startswith("..") and before.kind is T.NUMBER):
        return not token.touches
    if left == "|":
        return not before.touches
    if "." in (left, right):
        return not token.touches  # ancestor[1].exe
    return not (left.startswith("..") and token.kind is T.NUMBER and token.touches)


def _rendered(lines: Sequence[_Line]) -> Iterator[str]:
    columns = _columns(lines)
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else None
        opens = before is not None and before.code.endswith(("{", "[", "("))
        closes = line.code.startswith(("}", "]", ")"))
        if before is not None and line.blank_before and not opens and not closes:
            yield "\n"
        own = line.indent + line.code
        if line.code and line.comment:
            width = len(own.rsplit("\n", 1)[-1])
            yield f"{own}{' ' * max(2, columns.get(number, 0) - width)}{line.comment}\n"
        else:
            yield f"{own}{line.comment}\n"


def _columns(lines: Sequence[_Line]) -> dict[int, int]:
    """Returns the columns of comments behind code, by line: one for all in a row of such lines, where that isn't too far."""
    columns: dict[int, int] = {}
    row: list[int] = []
    for number, line in enumerate([*lines, _Line(True)]):
        beside = bool(line.code and line.comment) and "\n" not in line.code + line.comment
        if row and (not beside or line.blank_before):
            widest = max(len(lines[at].indent + lines[at].code) for at in row) + 2
            if max(widest + len(lines[at].comment) for at in row) <= MAX_COLUMN:
                columns.update(dict.fromkeys(row, widest))
            row = []
        if beside:
            row.append(number)
    return columns
