"""What policyd and a plug-in's process say to each other: one JSON object a line, over a socket pair, one item at a time.

policyd begins with a Hello; the process answers `{"ready": true}` when the plug-in is made, or `{"refused": "why"}`. Then for
each `{"n": 7, "item": {...}}` comes `{"n": 7}` when it is done, or `{"n": 7, "error": "why"}`. policyd closes its side to end it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from execray.errors import PeerError
from execray.wire.control import decode_object, encode_line

MAX_ITEM_BYTES: Final = 8 * 1024 * 1024
MAX_ANSWER_BYTES: Final = 4096
MAX_REASON_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Hello:
    """What a plug-in's process has to know, and must not have on its command line, where everybody can read it."""

    settings: dict[str, Any]
    folder: str  # plug-ins are there too, beside our own environment
    memory_mib: int
    parent_pid: int


@dataclass(frozen=True, slots=True)
class Answer:
    """n: the item that it is about, 0: the plug-in's making. error: why it failed, None where it didn't."""

    n: int
    error: str | None = None


def encode_hello(hello: Hello) -> bytes:
    """Returns the first line."""
    return encode_line(
        {
            "settings": hello.settings,
            "folder": hello.folder,
            "memory_mib": hello.memory_mib,
            "parent_pid": hello.parent_pid,
        }
    )


def decode_hello(line: bytes) -> Hello:
    """Decodes the first line. Raises PeerError."""
    try:
        return Hello(**decode_object(line))
    except TypeError as error:
        raise PeerError("not a hello") from error


def encode_item(n: int, item: dict[str, Any]) -> bytes:
    """Returns the line of an alert or request; n counts from 1."""
    return encode_line({"n": n, "item": item})


def decode_item(line: bytes) -> tuple[int, dict[str, Any]]:
    """Decodes an item. Raises PeerError."""
    found = decode_object(line)
    n, item = found.get("n"), found.get("item")
    if not isinstance(n, int) or not isinstance(item, dict):
        raise PeerError("not an item")
    return n, item


def encode_answer(answer: Answer) -> bytes:
    """Returns the line of an answer, its reason cut where it is long."""
    reason = None if answer.error is None else answer.error[:MAX_REASON_CHARS]
    if answer.n == 0:
        return encode_line({"ready": True} if reason is None else {"refused": reason})
    return encode_line({"n": answer.n} if reason is None else {"n": answer.n, "error": reason})


def decode_answer(line: bytes) -> Answer:
    """Decodes an answer, of which nothing is trusted. Raises PeerError."""
    found = decode_object(line)
    if found.get("ready") is True:
        return Answer(0)
    n = 0 if "refused" in found else found.get("n")
    error = found.get("refused", found.get("error"))
    if type(n) is not int or not isinstance(error, str | None):
        raise PeerError("not an answer")
    return Answer(n, None if error is None else error[:MAX_REASON_CHARS])
