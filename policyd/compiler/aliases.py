"""What aliases stand for at a place in a policy, and which events a step names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import ast
from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.names import PLANNED_EVENTS, AliasInfo, near
from policyd.compiler.typed import Shape, ends

#: The steps that lie before a place, by alias.
Bound: TypeAlias = Mapping[str, AliasInfo]


def joined(ways: Iterable[tuple[Shape, Bound]], before: Bound) -> Bound:
    """Returns the aliases that may be read behind a choice: those of every way that goes on."""
    found = dict(before)
    for shape, after in ways:
        if after is not before and not ends(shape):
            for alias, info in after.items():
                found[alias] = either_of(found.get(alias), info)
    return found


def either_of(one: AliasInfo | None, other: AliasInfo) -> AliasInfo:
    """Returns what an alias stands for that two steps have, of which one happens."""
    return AliasInfo(tuple(dict.fromkeys((*(one.codes if one else ()), *other.codes))))


def codes_of(node: ast.Step, sink: Sink) -> tuple[int, ...]:
    """Returns the codes of the events that a step names; those that there are not are reported."""
    codes: dict[int, None] = {}
    for event in node.events:
        found = EVENT_BY_NAME.get(event.text)
        if found is not None:
            codes[found.code] = None
        elif event.text in PLANNED_EVENTS:
            sink.report("ER0211", event.span, f"the event `{event.text}` is not observed yet", help=_events_help())
        else:
            close = near(event.text, EVENT_BY_NAME)
            help_text = f"did you mean `{close}`?" if close else _events_help()
            sink.report("ER0202", event.span, f"unknown event {quote(event.text)}", help=help_text)
    return tuple(codes)


def _events_help() -> str:
    return f"events are {', '.join(dict.fromkeys(event.name for event in EVENT_BY_NAME.values()))}"
