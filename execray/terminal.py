"""Text for terminals and logs of people: what nobody trusted can steer, and colour where somebody looks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

MAX_TEXT: Final = 160  # characters of one value shown; JSON has the rest

#: By meaning rather than by colour: severities, how a thing stands, and emphasis.
STYLES: Final = {
    "critical": "1;31",
    "high": "31",
    "medium": "33",
    "low": "36",
    "informational": "2",
    "good": "32",
    "up": "1;32",
    "warning": "33",
    "bad": "31",
    "down": "1;31",
    "name": "36",
    "dim": "2",
    "bold": "1",
}

_SGR: Final = re.compile(r"(\x1b\[[0-9;]*m)")

Painter: TypeAlias = Callable[[str, str], str]


def safe(value: object, limit: int = MAX_TEXT) -> str:
    r"""Returns text that can't steer a terminal: on one line, unprintable characters and bytes that aren't UTF-8 as \x1b."""
    text = str(value)
    cut = text[:limit]
    # Nearly all of what is shown is plain, and to look at each character of it by itself is slow.
    out = cut if cut.isprintable() and "\\" not in cut else "".join(map(_escaped, cut))
    return out + ("…" if len(text) > limit else "")


def _escaped(char: str) -> str:
    if char.isprintable() and char != "\\":
        return char
    code = ord(char)
    if char in "\n\t\r\\":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}[char]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def painter(color: bool) -> Painter:
    """Returns a function from text and style to text in that style; without colour, to the text as it is."""

    def paint(text: str, style: str) -> str:
        code = STYLES.get(style, "")
        return f"\x1b[{code}m{text}\x1b[0m" if color and code else text

    return paint


def columns() -> int | None:
    """Returns the width of the terminal on standard output, None where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def fold(line: str, width: int | None) -> str:
    """Breaks a line, at spaces where it can, into lines of at most so many characters; those after the first are indented.

    What sets a style has no width. Nothing but white space at a break is lost.
    """
    parts = _SGR.split(line)
    if width is None or sum(map(len, parts[::2])) <= width:
        return line
    indent = " " * min(len(line) - len(line.lstrip()) + 4, width // 2)
    out, room = [], width
    for number, part in enumerate(parts):
        if number % 2:  # a style
            out.append(part)
            continue
        rest = part
        while len(rest) > room:
            at = rest.rfind(" ", 1, room + 1)
            at = at if at > 0 and rest[:at].strip() else room
            out += [rest[:at].rstrip(), "\n", indent]
            rest, room = rest[at:].lstrip(" "), width - len(indent)
        out.append(rest)
        room -= len(rest)
    return "".join(out)


def use_color() -> bool:
    """Whether standard output is a terminal whose user has not set NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
