"""What a name can mean: events and their fields, constants, lists, earlier steps."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from itertools import islice

from execray.schema.catalog import (
    ACTOR_FIELD_BY_NAME,
    CREATOR_FIELD_BY_NAME,
    EVENT_BY_CODE,
    EVENT_BY_NAME,
    HEAD_FIELD_BY_NAME,
    Field,
)
from execray.schema.kinds import CONSTANTS, Kind
from execray.schema.records import record
from policyd.compiler.scope import Scope
from policyd.compiler.source import Span
from policyd.program import IT, FieldRef

_FIELDS = "container entry pgrp qname qtype session user"
#: Events of the language that no sensor of this version sees.
PLANNED_EVENTS = frozenset(("dns",))
#: Fields of the language, or their first parts, that no sensor of this version fills.
PLANNED_FIELDS = frozenset(_FIELDS.split())
#: Functions of the language that this version doesn't run.
PLANNED_FUNCTIONS = frozenset(("entropy", "novel", "lower", "upper"))
FUNCTIONS = ("basename", "truncated")
#: What a key may be instead of fields, and the field that each means. No field: one key for the whole host.
SCOPES: dict[str, tuple[str, ...]] = {
    "process": ("proc.id",),
    "session": ("session.id",),
    "entry": ("entry.id",),
    "container": ("container.id",),
    "user": ("user.id",),
    "host": (),
}
#: The list of an actor's creators, which only quantifiers go through.
ANCESTOR = "ancestor"
#: ancestor[N]: up to this.
MAX_ANCESTOR = 63
_OTHER_ACTOR = re.compile(r"(parent|ancestor\[(\d{1,5})\])\.(.+)\Z", re.ASCII | re.DOTALL)
_CUTOFF = 0.72
_LONGEST_SUGGESTED = 64
_MOST_CANDIDATES = 500


@record
class FieldInfo:
    """A field as some events have it. events: those that do; conflict: two of them that disagree on its kind."""

    name: str  # canonical
    kind: Kind
    constants: str
    events: tuple[str, ...]
    conflict: tuple[str, str] | None = None
    can_be_cut: bool = False  # a value may be captured in part
    words: tuple[str, ...] = ()  # all that it may hold; empty: anything

    def ref(self, alias: str | None = None, index: int | None = None) -> FieldRef:
        """Returns the reference that the engine uses."""
        kind = Kind.BYTES if index is not None else self.kind
        return FieldRef(self.name, kind, alias, index)

    @property
    def is_text(self) -> bool:
        """Whether it compares with text."""
        return self.kind in (Kind.BYTES, Kind.PATH, Kind.TEXTS)


def actor_field(name: str) -> Field | None:
    """Returns a field of a process by name; `id` is short for `proc.id`, as in `parent.id`."""
    return ACTOR_FIELD_BY_NAME.get("proc.id" if name == "id" else name)


def other_actor(name: str) -> tuple[str, str] | None:
    """Splits `parent.FIELD` and `ancestor[N].FIELD` into the canonical prefix and the field; None for any other name."""
    found = _OTHER_ACTOR.match(name)
    if found is None:
        return None
    number = int(found[2] or 0)
    return (f"{ANCESTOR}[{number}]." if number else "parent."), found[3]


@lru_cache(maxsize=8192)
def find_field(codes: tuple[int, ...], name: str) -> FieldInfo | None:
    """Returns what a name means in events of these codes, None where it means nothing in any of them."""
    found: list[tuple[str, Field]] = []
    prefix, rest = other_actor(name) or ("", name)
    if name in HEAD_FIELD_BY_NAME:
        found = [(EVENT_BY_CODE[code].name, HEAD_FIELD_BY_NAME[name]) for code in codes]
    elif prefix:
        field = actor_field(rest) or CREATOR_FIELD_BY_NAME.get(rest)
        found = [(EVENT_BY_CODE[code].name, field) for code in codes] if field else []
    else:
        for code in codes:
            event = EVENT_BY_CODE[code]
            if name in event.by_name:
                found.append((event.name, event.by_name[name]))
    if not found:
        return None
    first_event, first = found[0]
    kinds = {field.kind for _, field in found}
    kind = first.kind if len(kinds) == 1 else Kind.BYTES
    conflict = None
    if not (len(kinds) == 1 or kinds <= {Kind.BYTES, Kind.PATH}) or len({f.name for _, f in found}) > 1:
        other = next(event for event, field in found if field.kind is not first.kind or field.name != first.name)
        conflict = (first_event, other)
    family = first.constants if len({field.constants for _, field in found}) == 1 else ""
    cut = any(field.cut_by for _, field in found)
    words = tuple(dict.fromkeys(word for _, field in found for word in field.words))
    if not all(field.words for _, field in found):
        words = ()
    return FieldInfo(prefix + first.name, kind, family, tuple(event for event, _ in found), conflict, cut, words)


class Element(enum.Enum):
    """What `it` is inside of a quantifier."""

    TEXT = "a text"
    PROCESS = "a process"


def find_element(element: Element, name: str) -> FieldInfo | None:
    """Returns what `it` or `it.FIELD` means, None where it means nothing."""
    if name == IT:
        return FieldInfo(IT, Kind.BYTES, "", ()) if element is Element.TEXT else None
    field = actor_field(name.removeprefix(f"{IT}.")) if element is Element.PROCESS else None
    if field is None:
        return None
    return FieldInfo(f"{IT}.{field.name}", field.kind, field.constants, (), None, bool(field.cut_by), field.words)


def field_names(codes: Iterable[int]) -> list[str]:
    """Returns every name that means a field in some of these events."""
    names = {name for code in codes for name in EVENT_BY_CODE[code].by_name}
    return sorted(names | set(HEAD_FIELD_BY_NAME) | {f"parent.{name}" for name in CREATOR_FIELD_BY_NAME})


@cache
def dotted_heads() -> frozenset[str]:
    """Returns the first parts of dotted field names, such as `proc` and `old`."""
    names = [name for event in EVENT_BY_NAME.values() for name in event.by_name]
    return frozenset(name.partition(".")[0] for name in names if "." in name) | {"parent", ANCESTOR, IT}


def is_planned_field(name: str) -> bool:
    """Whether the language has a field that this version doesn't."""
    _, name = other_actor(name) or ("", name.removeprefix(f"{IT}."))
    return name.partition(".")[0] in PLANNED_FIELDS


def find_constant(family: str, name: str) -> int | None:
    """Returns a named constant of a family."""
    return CONSTANTS.get(family, {}).get(name)


@cache
def family_of(name: str) -> str | None:
    """Returns the family that has a constant of this name."""
    return next((family for family, members in CONSTANTS.items() if name in members), None)


_FAMILY_WORDS = {
    "O_": "open flags, O_*",
    "S_": "permission bits, S_I*",
    "AF_": "address families, AF_*",
    "PTRACE_": "ptrace requests, PTRACE_*",
    "ACCESS_": "READ and WRITE",
    "CAP_": "capabilities, CAP_*",
    "E": "negated error names, such as -EPERM",
    "SIG": "signals, SIG*",
}


def family_words(family: str) -> str:
    """Returns a family in words, for a message."""
    return _FAMILY_WORDS.get(family, f"{family}*")


def near(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the one candidate close enough to be what was meant, if any."""
    if len(name) > _LONGEST_SUGGESTED:
        return None
    import difflib  # noqa: PLC0415  # only for whoever made a mistake

    close = difflib.get_close_matches(name, list(islice(candidates, _MOST_CANDIDATES)), n=1, cutoff=_CUTOFF)
    return close[0] if close else None


@record
class AliasInfo:
    """An earlier step, by its alias: the events it may have been. current: it is the event at hand."""

    codes: tuple[int, ...]
    current: bool = False


@record
class Names:
    """Everything a condition may refer to. bound: aliases of steps before it; aliases: all of the policy.

    element: what `it` is, inside of a quantifier.
    """

    codes: tuple[int, ...]
    scope: Scope
    bound: Mapping[str, AliasInfo]
    aliases: Mapping[str, Span]
    element: Element | None = None
