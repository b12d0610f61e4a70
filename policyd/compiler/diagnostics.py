"""Diagnostics: the policy author's mistakes, as values that are collected and never raised."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from execray.schema.records import compared
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


@compared(frozen=True, slots=True)
class Label:
    """A place in the source and, where it helps, a few words beside it."""

    span: Span
    text: str = ""


@compared(frozen=True, slots=True)
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
        self._adopted: list[tuple[int, SourceFile]] = []

    def adopt(self, source: SourceFile) -> int:
        """Makes room for another file's text behind this one's; returns the index at which it begins.

        What is then reported at such an index is reported in that file.
        """
        begin, last = self._adopted[-1] if self._adopted else (0, self.source)
        begin += len(last.text) + 1
        self._adopted.append((begin, source))
        return begin

    def adopt_as(self, other: Sink) -> None:
        """Takes over what another sink of the same file has adopted, at the same indexes."""
        self._adopted = other._adopted

    def _home(self, span: Span) -> tuple[SourceFile, Span]:
        """The file that an index lies in, and where in it."""
        if span.start <= len(self.source.text):
            return self.source, span
        begin, source = next(item for item in reversed(self._adopted) if item[0] <= span.start)
        return source, Span(span.start - begin, span.end - begin)

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
                "this file asks for too much: its macros, lists and exceptions are written out too often",
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
        source, place = self._home(span)
        shown, told = tuple(labels), tuple(notes)
        if self._adopted:
            shown, told = self._labels_in(source, shown, told)
        self.keep(
            Diagnostic(
                code,
                level,
                printable(message),
                source.name,
                Label(place, label),
                shown,
                tuple(printable(note) for note in told),
                printable(help),
            )
        )

    def _labels_in(
        self, source: SourceFile, labels: tuple[Label, ...], notes: tuple[str, ...]
    ) -> tuple[tuple[Label, ...], tuple[str, ...]]:
        """Parts labels into those of one file and notes about the others."""
        own: list[Label] = []
        told = list(notes)
        for label in labels:
            file, span = self._home(label.span)
            if file is source:
                own.append(Label(span, label.text))
            else:
                told.append(f"{label.text or 'see'}: {file.name}:{file.position(span.start)[0]}")
        return tuple(own), tuple(told)

    def keep(self, diagnostic: Diagnostic) -> None:
        """Adds a diagnostic that is complete; an exact repeat is dropped."""
        if diagnostic in self._kept:
            return
        self.total += 1
        if diagnostic.level is Level.ERROR:
            self._errors += 1
            if self._errors <= MAX_SHOWN:
                self._kept[diagnostic] = None  # however many warnings there are: it decides whether the file is good
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
