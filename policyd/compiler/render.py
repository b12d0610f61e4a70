"""Diagnostics for people, plain or in colour, and for programs."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from policyd.compiler.diagnostics import Diagnostic, Label, Level, printable
from policyd.compiler.source import SourceFile

_TAB = 4
_MAX_LINE = 160
_CONTEXT = 40
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
_COLOURS = {Level.ERROR: "\x1b[1;31m", Level.WARNING: "\x1b[1;33m", Level.NOTE: "\x1b[1;36m"}
_FRAME = "\x1b[1;34m"


class _Paint:
    """Wraps text in colour codes, or not."""

    def __init__(self, color: bool) -> None:
        self._color = color

    def __call__(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self._color and text else text


def render(diagnostics: Iterable[Diagnostic], sources: Sequence[SourceFile], *, color: bool) -> str:
    """Returns diagnostics as text, each followed by a blank line, or "" where there are none.

    sources: the files that they are about. Control characters of the source are shown as escapes.
    """
    by_name = {source.name: source for source in sources}
    return "".join(_one(diagnostic, by_name[diagnostic.file], _Paint(color)) + "\n" for diagnostic in diagnostics)


def _one(diagnostic: Diagnostic, source: SourceFile, paint: _Paint) -> str:
    line, column = source.position(diagnostic.primary.span.start)
    labels = (diagnostic.primary, *diagnostic.labels)
    numbers = sorted({source.position(label.span.start)[0] for label in labels})
    width = len(str(numbers[-1]))
    colour = _COLOURS[diagnostic.level]
    bar = paint(_FRAME, "|")
    margin = " " * (width + 1)
    head = paint(colour, f"{diagnostic.level.value}[{diagnostic.code}]") + paint(_BOLD, f": {diagnostic.message}")
    out = [head, f"{margin}{paint(_FRAME, '-->')} {printable(source.name)}:{line}:{column}", f"{margin} {bar}"]
    before: int | None = None
    for number in numbers:
        if before is not None and number > before + 1:
            out.append(f"{margin}{paint(_FRAME, '...')}")
        before = number
        here = [label for label in labels if source.position(label.span.start)[0] == number]
        out.extend(_line(source, number, here, width, diagnostic, paint))
    equals = paint(_FRAME, "=")
    out.extend(f"{margin} {equals} note: {note}" for note in diagnostic.notes)
    if diagnostic.help:
        out.append(f"{margin} {equals} help: {diagnostic.help}")
    return "\n".join(out) + "\n"


def _line(
    source: SourceFile, number: int, labels: list[Label], width: int, diagnostic: Diagnostic, paint: _Paint
) -> list[str]:
    """One source line with a line of marks below it for each label."""
    text, start = source.line(number), source.line_starts[number - 1]
    first, last = _window(text, min(label.span.start for label in labels) - start)
    shown, offsets = _laid_out(text[first:last])
    lead, tail = "..." if first else "", "..." if last < len(text) else ""
    bar = paint(_FRAME, "|")
    out = [f"{paint(_FRAME, f' {number:>{width}}')} {bar} {lead}{shown}{tail}".rstrip()]
    for label in labels:
        begin = min(max(label.span.start - start - first, 0), last - first)
        end = min(max(label.span.end - start - first, begin), last - first)
        left = len(lead) + offsets[begin]
        marks = "^" * max(len(lead) + offsets[end] - left, 1)
        colour = _COLOURS[diagnostic.level] if label is diagnostic.primary else _FRAME
        out.append(f"{' ' * width}  {bar} {' ' * left}{paint(colour, f'{marks} {label.text}'.rstrip())}")
    return out


def _window(text: str, column: int) -> tuple[int, int]:
    """Which part of a long line to show."""
    if len(text) <= _MAX_LINE:
        return 0, len(text)
    first = max(0, min(column - _CONTEXT, len(text) - _MAX_LINE))
    return first, min(len(text), first + _MAX_LINE)


def _laid_out(text: str) -> tuple[str, list[int]]:
    """What is shown, and the screen column of each character, and of the end."""
    if text.isascii() and text.isprintable():
        # Most lines. Character by character, the warnings of 1,000 policies took a fifth of a reload.
        return text, list(range(len(text) + 1))
    cells = [_cells(char) for char in text]
    offsets = _offsets(cells)
    return "".join(_expanded(cells, offsets)), offsets


def _cells(char: str) -> str:
    return char if char == "\t" else printable(char)


def _offsets(cells: list[str]) -> list[int]:
    """Screen column of each character, and of the end."""
    at, offsets = 0, []
    for cell in cells:
        offsets.append(at)
        at += _TAB - at % _TAB if cell == "\t" else sum(_columns(c) for c in cell)
    return [*offsets, at]


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _expanded(cells: list[str], offsets: list[int]) -> Iterable[str]:
    for index, cell in enumerate(cells):
        yield " " * (offsets[index + 1] - offsets[index]) if cell == "\t" else cell


def diagnostic_to_json(diagnostic: Diagnostic, source: SourceFile) -> dict[str, object]:
    """Returns a diagnostic as JSON shows it; lines and columns count from 1, ends are exclusive."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.level.value,
        "message": diagnostic.message,
        "file": diagnostic.file,
        **_place(diagnostic.primary, source),
        "labels": [_place(label, source) for label in diagnostic.labels],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
    }


def _place(label: Label, source: SourceFile) -> dict[str, object]:
    line, column = source.position(label.span.start)
    end_line, end_column = source.position(label.span.end)
    return {"line": line, "column": column, "end_line": end_line, "end_column": end_column, "label": label.text}
