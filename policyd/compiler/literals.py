"""What strings, patterns and addresses of a policy mean as bytes."""

from __future__ import annotations

import ipaddress
import re

from policyd.compiler import ast
from policyd.program import Network

_ESCAPE = re.compile(rb'\\(?:([\\"ntr0])|x([0-9a-fA-F]{2}))')
_ESCAPED = {b"\\": b"\\", b'"': b'"', b"n": b"\n", b"t": b"\t", b"r": b"\r", b"0": b"\0"}
_PATTERN_ESCAPE = re.compile(r'\\([\\"])')
_QUOTED_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F]{1,16}|0o[0-7]{1,22}|0|[1-9][0-9]{0,19})\Z", re.ASCII)


def text_bytes(text: ast.Text) -> bytes:
    r"""Returns a string's bytes: UTF-8, with \\ \" \n \t \r \0 and \xHH replaced and any other backslash kept."""
    raw = text.body.encode("utf-8")
    if text.verbatim or b"\\" not in raw:
        return raw
    return _ESCAPE.sub(lambda m: _ESCAPED[m[1]] if m[1] else bytes((int(m[2], 16),)), raw)


def pattern_bytes(text: ast.Text) -> bytes:
    r"""Returns a regular expression's bytes: only \\ and \" are replaced, so "\\.sh" and "\.sh" are the same."""
    if text.verbatim or "\\" not in text.body:
        return text.body.encode("utf-8")
    return _PATTERN_ESCAPE.sub(r"\1", text.body).encode("utf-8")


def plain_text(text: ast.Text) -> str:
    """Returns a string for people: names, labels, metadata."""
    return text_bytes(text).decode("utf-8", "backslashreplace")


def quoted_number(text: ast.Text) -> int | None:
    """Returns the number that a string spells, or None."""
    found = _QUOTED_NUMBER.match(text.body)
    return int(found[1] + found[2], 0) if found else None


def address(text: str) -> bytes | Network | None:
    """Returns an address as 4 or 16 bytes, a network (host bits cleared), or None for anything else."""
    try:
        if "/" not in text:
            return ipaddress.ip_address(text).packed
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def escape_pattern(raw: bytes) -> bytes:
    """Returns a pattern that matches exactly these bytes."""
    return b"".join(bytes((c,)) if chr(c).isalnum() and c < 0x80 else b"\\x%02x" % c for c in raw)


_ANY_BYTE, _NOT_SLASH = b".", b"[^/]"


def wildcard_pattern(raw: bytes, *, star: bytes, one: bytes, double_star: bytes | None = None) -> bytes:
    r"""Returns the body of a pattern for text with `*` and `?`; a backslash before one of these takes it literally."""
    out: list[bytes] = []
    at = 0
    while at < len(raw):
        char = raw[at : at + 1]
        if char == b"\\" and raw[at + 1 : at + 2] in (b"*", b"?", b"\\"):
            out.append(escape_pattern(raw[at + 1 : at + 2]))
            at += 2
        elif double_star is not None and raw[at : at + 2] == b"**":
            out.append(double_star + b"*")
            at += 2
        else:
            out.append({b"*": star + b"*", b"?": one}.get(char) or escape_pattern(char))
            at += 1
    return b"".join(out)


def like_pattern(raw: bytes) -> bytes:
    """Returns the pattern of `like`: `*` any bytes, `?` one byte, the whole value."""
    return b"\\A(?:" + wildcard_pattern(raw, star=_ANY_BYTE, one=_ANY_BYTE) + b")\\z"


def glob_pattern(raw: bytes) -> bytes:
    """Returns the pattern of `glob`: `*` and `?` stop at `/`, `**` does not, the whole value."""
    return b"\\A(?:" + wildcard_pattern(raw, star=_NOT_SLASH, one=_NOT_SLASH, double_star=_ANY_BYTE) + b")\\z"


def basename_pattern(op: str, raw: bytes) -> bytes:
    """Returns the pattern that a path meets when its last component meets `op raw`."""
    rest = _NOT_SLASH + b"*"
    match op:
        case "startswith":
            body = escape_pattern(raw) + rest
        case "endswith":
            body = rest + escape_pattern(raw)
        case "contains":
            body = rest + escape_pattern(raw) + rest
        case "like" | "glob":
            body = wildcard_pattern(raw, star=_NOT_SLASH, one=_NOT_SLASH)
        case _:
            body = escape_pattern(raw)
    return b"(?:\\A|/)" + body + b"\\z"
