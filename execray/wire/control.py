"""Control sockets of the three daemons: one JSON object a line, sans I/O.

Request: `{"v": 1, "op": "status", "args": {...}}`. Reply: `{"ok": true, "result": ...}` or
`{"ok": false, "error": "...", "hint": "..."}`. A request that follows something (`alerts.tail`) gets one
`{"ok": true, "item": ...}` line for each, until either side closes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from execray.errors import PeerError

CONTROL_VERSION: Final = 1
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_REPLY_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked of a daemon."""

    op: str
    args: dict[str, Any] = field(default_factory=dict)


# Made once: json.dumps makes one each time.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def encode_line(message: dict[str, Any]) -> bytes:
    """Returns one line of JSON. Lone surrogates (bytes that aren't UTF-8) stay escapes, so they round-trip."""
    return _encode(message).encode("ascii") + b"\n"


def encode_item(item: object) -> bytes:
    """Returns the line for one item of an op that follows something."""
    return encode_line({"ok": True, "item": item})


def encode_request(request: Request) -> bytes:
    """Returns the request's line."""
    return encode_line({"v": CONTROL_VERSION, "op": request.op, "args": request.args})


def decode_object(line: bytes) -> dict[str, Any]:
    """Decodes one line that must be a JSON object. Raises PeerError."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PeerError("not a line of JSON") from error
    if not isinstance(message, dict):
        raise PeerError("not a JSON object")
    return message


def decode_request(line: bytes) -> Request:
    """Decodes a request. Raises PeerError, also for a version we don't speak."""
    message = decode_object(line)
    if message.get("v") != CONTROL_VERSION:
        raise PeerError(f"control protocol {message.get('v')!r}, and this is {CONTROL_VERSION}")
    op, args = message.get("op"), message.get("args", {})
    if not isinstance(op, str) or not isinstance(args, dict) or set(message) - {"v", "op", "args"}:
        raise PeerError("a request is an object with `v`, `op` and `args`")
    return Request(op, args)
