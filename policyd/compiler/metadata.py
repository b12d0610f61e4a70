"""Checks what a policy says about itself: meta and options."""

from __future__ import annotations

import re
from typing import Any

from policyd.compiler import ast
from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.literals import plain_text
from policyd.compiler.names import near
from policyd.compiler.tokens import MALFORMED
from policyd.compiler.typed import TypedPolicy
from policyd.program import Meta, Mode, Overlap, Response, Severity

_TEXTS = ("id", "title", "description", "author", "status")
_LISTS = ("attack", "references", "falsepositives", "tags")
_KEYS = (*_TEXTS, "severity", *_LISTS)
_ATTACK_ID = re.compile(r"T\d{4}(\.\d{3})?\Z", re.ASCII)
SEVERITIES = {severity.name.lower(): severity for severity in Severity}

_MS, _S, _DAY = 1_000_000, 1_000_000_000, 86_400_000_000_000
#: Smallest and largest duration, in ns, of a window or a throttle.
_DURATION_RANGE = (_MS, 30 * _DAY)
_MAX_PARTIALS = 20_000
_MAX_THROTTLE = 10_000
_MAX_COPIES = 1024


def severity_of(word: ast.Ident, sink: Sink) -> Severity | None:
    """Returns a severity by name; reports an unknown one."""
    found = SEVERITIES.get(word.text)
    if found is None:
        names = ", ".join(SEVERITIES)
        sink.report("ER0112", word.span, f"{quote(word.text)} is not a severity", help=f"severities are {names}")
    return found


def in_range(number: ast.Number, low: int, high: int, words: str, sink: Sink) -> int | None:
    """Returns a number's value if it lies in the range, both ends included; reports it otherwise."""
    if number.value == MALFORMED:
        return None
    if low <= number.value <= high:
        return number.value
    sink.report("ER0312", number.span, f"{quote(sink.source.snippet(number.span))} is out of range", help=words)
    return None


def duration_ns(number: ast.Number, sink: Sink) -> int | None:
    """Returns a window's length if it is sensible; reports it otherwise."""
    return in_range(number, *_DURATION_RANGE, "durations go from 1ms to 30d", sink)


def apply_options(policy: TypedPolicy, sink: Sink) -> None:
    """Takes the options of the source over into the typed policy."""
    for option in policy.node.options:
        match option:
            case ast.Option(name="within", duration=ast.Number() as duration):
                policy.within_ns = duration_ns(duration, sink)
            case ast.Option(name="max_partials", number=ast.Number() as number):
                words = f"from 1 to {_MAX_PARTIALS}"
                policy.max_partials = in_range(number, 1, _MAX_PARTIALS, words, sink) or policy.max_partials
            case ast.Option(name="throttle", number=ast.Number() as number, duration=ast.Number() as duration):
                count = in_range(number, 1, _MAX_THROTTLE, f"from 1 to {_MAX_THROTTLE} alerts", sink)
                period = duration_ns(duration, sink)
                if count and period:
                    policy.throttle = (count, period)
            case ast.Option(name="response", word=ast.Ident(text="enforce")):
                policy.response = Response.ENFORCE
            case ast.Option(name="mode", word=ast.Ident(text="first")):
                policy.mode = Mode(Overlap.FIRST)
            case ast.Option(name="mode", word=ast.Ident(text="all"), number=ast.Number() as number):
                words = f"from 1 to {_MAX_COPIES} for each place and key"
                policy.mode = Mode(Overlap.ALL, in_range(number, 1, _MAX_COPIES, words, sink) or 1)


def check_meta(items: tuple[ast.MetaItem, ...], sink: Sink) -> Meta:
    """Returns the checked metadata."""
    values: dict[str, Any] = {}
    for item in items:
        key = item.key.text
        if key not in _KEYS:
            close = near(key, _KEYS)
            help_text = f"did you mean `{close}`?" if close else f"entries are {', '.join(_KEYS)}"
            sink.report("ER0210", item.key.span, f"unknown meta entry {quote(key)}", help=help_text)
        elif key in values:
            sink.report("ER0109", item.key.span, f"`{key}` is given twice", help="keep one of them")
        elif key == "severity":
            values[key] = _severity(item.value, sink)
        elif key in _LISTS:
            values[key] = _texts(key, item.value, sink)
        else:
            values[key] = _one_text(key, item.value, sink)
    return Meta(**{key: value for key, value in values.items() if value is not None})


def _severity(value: ast.Operand, sink: Sink) -> Severity | None:
    match value:
        case ast.Name(text=text, index=None, negative=False):
            return severity_of(ast.Ident(value.span, text), sink)
        case ast.Text():
            return severity_of(ast.Ident(value.span, plain_text(value)), sink)
    sink.report("ER0112", value.span, "a severity is a word", help=f"severities are {', '.join(SEVERITIES)}")
    return None


def _one_text(key: str, value: ast.Operand, sink: Sink) -> str | None:
    match value:
        case ast.Text():
            return plain_text(value)
        case ast.Name() | ast.Number():
            return sink.source.snippet(value.span)
        case ast.Bad():
            return None
    sink.report("ER0304", value.span, f"`{key}` takes one text", help=f'for example {key}: "..."')
    return None


def _texts(key: str, value: ast.Operand, sink: Sink) -> tuple[str, ...]:
    items = value.items if isinstance(value, ast.ListOf) else (value,)
    texts: list[str] = []
    for item in items:
        text = _one_text(key, item, sink)
        if text is None:
            continue
        if key == "attack" and not _ATTACK_ID.match(text):
            sink.report(
                "ER0314", item.span, f"{quote(text)} is not an ATT&CK technique", help='for example "T1055.008"'
            )
        texts.append(text)
    return tuple(texts)
