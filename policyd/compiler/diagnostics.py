"""Diagnostics: the policy author's mistakes, as values that are collected and never raised."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from policyd.compiler.source import SourceFile, Span

#: At most this many diagnostics are returned for one file.
MAX_SHOWN = 20
# Collected before the choice of which to show; a hostile file must not fill the memory.
_MAX_KEPT = 500
#: What one file may ask for: conditions of macros written out, and elements of lists compared with a field.
MAX_WORK = 1_000_000
_MAX_QUOTED = 60


class Level(enum.Enum):
    """How much a diagnostic matters. Only an error keeps a file from being loaded."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Label:
    """A place in the source and, where it helps, a few words beside it."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: what is wrong in the message, what to do in help.

    The message is lower case, without a full stop or a line break, the author's text in backticks.
    """

    code: str
    level: Level
    message: str
    file: str
    primary: Label
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""


class Sink:
    """Collects the diagnostics of one file."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self.total = 0
        self._errors = 0
        self._work = MAX_WORK
        self._kept: dict[Diagnostic, None] = {}

    @property
    def errors(self) -> int:
        """How many errors were reported."""
        return self._errors

    def spend(self, units: int, span: Span) -> bool:
        """Takes work out of what the file may cause; returns False where there is none left, which is reported once.

        A file is read in a time that grows with its length, but lists and macros let a short one ask for very much.
        """
        if self._work < 0:
            return False
        self._work -= units
        if self._work < 0:
            self.report(
                "ER0216",
                span,
                "this file asks for too much: its macros and lists are written out too often",
                help="use smaller lists, or split the file",
            )
        return self._work >= 0

    def report(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        help: str = "",
        label: str = "",
        labels: Iterable[Label] = (),
        notes: Iterable[str] = (),
        level: Level = Level.ERROR,
    ) -> None:
        """Adds a diagnostic; an exact repeat is dropped. What could disturb a terminal is escaped here."""
        diagnostic = Diagnostic(
            code,
            level,
            printable(message),
            self.source.name,
            Label(span, label),
            tuple(labels),
            tuple(printable(note) for note in notes),
            printable(help),
        )
        if diagnostic in self._kept:
            return
        self.total += 1
        if level is Level.ERROR:
            self._errors += 1
        if len(self._kept) < _MAX_KEPT:
            self._kept[diagnostic] = None

    def forget_from(self, index: int) -> None:
        """Drops what was reported about the text from this index on: it is being read again in another way."""
        gone = [diagnostic for diagnostic in self._kept if diagnostic.primary.span.start >= index]
        for diagnostic in gone:
            del self._kept[diagnostic]
        self.total -= len(gone)
        self._errors -= sum(diagnostic.level is Level.ERROR for diagnostic in gone)

    def shown(self) -> tuple[Diagnostic, ...]:
        """Returns at most MAX_SHOWN, sorted by position; where there are more, errors go before the others."""
        order = {level: rank for rank, level in enumerate(Level)}
        kept = sorted(self._kept, key=lambda d: (order[d.level], d.primary.span, d.code))[:MAX_SHOWN]
        return tuple(sorted(kept, key=lambda d: (d.primary.span, d.code)))


def printable(text: str) -> str:
    """Returns text with everything that could disturb a terminal or a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(char)
    return known.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def quote(text: str | bytes) -> str:
    """Returns the author's text in backticks, escaped and cut to a bearable length."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    text = printable(text[: _MAX_QUOTED + 1])
    return f"`{text}`" if len(text) <= _MAX_QUOTED else f"`{text[: _MAX_QUOTED - 3]}...`"
