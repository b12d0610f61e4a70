"""What is simpler than a policy as its author writes it, by one thing each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from tests.properties.texts import Block, Choice, Either


def simpler(node: Any) -> Iterator[Any]:
    """Yields trees with one thing less: an item of a sequence, a part, or a statement put where the choice was."""
    if isinstance(node, tuple):
        yield from _simpler_items(node)
    elif is_dataclass(node) and not isinstance(node, type):
        for part in fields(node):
            value = getattr(node, part.name)
            if isinstance(value, Block) and len(value.body) == 1:
                yield replace(node, **{part.name: value.body[0]})
            if part.name == "other" and value is not None:
                yield replace(node, **{part.name: None})
            for smaller in simpler(value):
                # An alternative stays a block: nothing but its text could take its place.
                if not isinstance(node, Either) or all(isinstance(body, Block) for body in smaller):
                    yield replace(node, **{part.name: smaller})


def _simpler_items(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for at, item in enumerate(items):
        yield items[:at] + items[at + 1 :]
        for smaller in simpler(item):
            yield (*items[:at], smaller, *items[at + 1 :])
    for at, item in enumerate(items):  # what is inside of a group takes the group's place
        if isinstance(item, Block):
            yield items[:at] + item.body + items[at + 1 :]
        elif isinstance(item, Choice):
            yield (*items[:at], item.test, item.then, *items[at + 1 :])
        elif isinstance(item, Either):
            yield from (items[:at] + body.body + items[at + 1 :] for body in item.bodies)
