"""Decoded events, as evidence: made only for the few that meet a policy's step, so clarity beats speed here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, TypeAlias

from execray.process import ProcessKey
from execray.schema.catalog import (
    ACTOR_SLOT_OF,
    ACTOR_SLOTS,
    EVENT_BY_CODE,
    HEAD_FIELD_BY_NAME,
    EventType,
    Field,
    Flag,
)
from execray.schema.kinds import CONSTANTS, Kind
from execray.schema.records import compared

ProcessId: TypeAlias = tuple[int, int]  # (pid, start_ns)
Value: TypeAlias = "int | bool | bytes | tuple[bytes, ...] | ProcessId | None"


@compared(frozen=True, slots=True)
class Actor:
    """The process behind an event, with the values of ACTOR_SLOTS, and its creator."""

    slots: tuple[Value, ...]
    parent: Actor | None

    @property
    def id(self) -> ProcessId:
        """(pid, start_ns)."""
        value = self.slots[0]
        assert isinstance(value, tuple)
        return value  # type: ignore[return-value]  # slot 0 is proc.id, a pair of ints


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, tuple) else None


def _basename(value: Value) -> Value:
    return value.rsplit(b"/", 1)[-1] if isinstance(value, bytes) else None


def _count(value: Value) -> Value:
    return len(value) if isinstance(value, tuple) else None


def _join(value: Value) -> Value:
    return b" ".join(value) if isinstance(value, tuple) else None  # type: ignore[arg-type]  # argv: a tuple of bytes


def _access(flags: Value) -> Value:
    # O_ACCMODE 3 asks for neither reading nor writing (ioctl only); O_PATH (0o10000000) gives no access at all.
    if not isinstance(flags, int) or flags & 0o10000000:
        return None if flags is None else 0
    return {0: 1, 1: 2, 2: 3}.get(flags & 3, 0)


def _gives_ids(mode: Value) -> Value:
    return bool(mode & 0o6000) if isinstance(mode, int) else None


def _is_memfd(exe: Value) -> Value:
    # a path of any other kind begins with a slash
    return exe.startswith(b"memfd:") if isinstance(exe, bytes) else None


def user_id(loginuid: int | None, uid: int | None) -> int | None:
    """Returns what the field `user.id` is: the login user id where it is set, else the real one."""
    return uid if loginuid is None else loginuid


def age_ns(time_ns: int, process: ProcessId) -> int | None:
    """Returns what the field `proc.age` is at a time, None where the process's start isn't known."""
    start_ns = process[1]
    return max(0, time_ns - start_ns) if start_ns else None


def _present(value: Value) -> Value:
    return None if value is None else value != 0


#: How each derived field of the catalogue is computed from its slot. One entry per name; a test holds it complete.
DERIVE: Final[dict[str, Callable[[Value], Value]]] = {
    "pid": _first,
    "child.pid": _first,
    "target.pid": _first,
    "name": _basename,
    "argc": _count,
    "cmdline": _join,
    "access": _access,
    "tty.present": _present,
    "session.leader.pid": _first,
    "session.leader.name": _basename,
    "pgrp.leader.pid": _first,
    "pgrp.leader.name": _basename,
    "exe.suid": _gives_ids,
    "exe.memfd": _is_memfd,
}


@compared(frozen=True, slots=True)
class Event:
    """One event with its values resolved: what a step keeps as evidence."""

    id: int
    time_ns: int  # CLOCK_BOOTTIME
    type: EventType
    actor: Actor
    tid: int
    flags: Flag
    slots: tuple[Value, ...]

    def get(self, name: str) -> Value:
        """Returns a field by canonical name, None when missing.

        `tid`, `proc.age`, `parent.FIELD` and `ancestor[N].FIELD` are names too. Raises KeyError for a name that neither this
        event nor its actor has.
        """
        field = self.type.by_name.get(name)
        if field is None:
            return self._get_other(name)
        slot = field.derived or field.name
        at = self.type.slot_of.get(slot)
        value = self.actor.slots[ACTOR_SLOT_OF[slot]] if at is None else self.slots[at]
        return DERIVE[field.name](value) if field.derived else value

    def _get_other(self, name: str) -> Value:
        if name in HEAD_FIELD_BY_NAME:
            return self.tid if name == "tid" else age_ns(self.time_ns, self.actor.id)
        of_creator = creator_field(name)
        if of_creator is None:
            raise KeyError(name)
        steps, name = of_creator
        creator = creator_of(self.actor, steps)
        if creator is None:
            return None
        return age_ns(self.time_ns, creator.id) if name == "proc.age" else actor_get(creator, name)

    def to_json(self) -> dict[str, object]:
        """Returns the event under the catalogue's dotted names, missing fields left out.

        The facts of its capture stand under `capture_flags`: `flags` is a field of open.
        """
        out: dict[str, object] = {"event": self.type.name, "id": self.id, "time_ns": self.time_ns, "tid": self.tid}
        for name, field in self.type.by_name.items():
            if name == field.name and (value := self.get(name)) is not None:
                out[name] = value_to_json(field, value)
        if self.actor.parent:
            for name in ("proc.id", "pid", "exe", "cmdline"):
                if (value := actor_get(self.actor.parent, name)) is not None:
                    out[f"parent.{name}"] = value_to_json(self.type.by_name[name], value)
        if self.flags:
            out["capture_flags"] = [flag.name.lower() for flag in Flag if flag in self.flags and flag.name]
        return out


_ANCESTOR: Final = re.compile(r"ancestor\[(\d+)\]\.(.+)")


@lru_cache(maxsize=1024)
def creator_field(name: str) -> tuple[int, str] | None:
    """Splits the name of a creator's field: how many steps up from the actor, and which field; None for any other name.

    `parent.exe` is one step up, `ancestor[N].exe` N steps beyond that.
    """
    if name.startswith("parent."):
        return 1, name.removeprefix("parent.")
    found = _ANCESTOR.fullmatch(name)
    return (int(found[1]) + 1, found[2]) if found else None


def creator_of(actor: Actor, steps: int) -> Actor | None:
    """Returns the process so many steps up the line of creators; None past its end."""
    creator: Actor | None = actor
    while creator is not None and steps:
        creator, steps = creator.parent, steps - 1
    return creator


#: Fields that are derived of one of an actor's slots, and of which.
_MADE_OF: Final = {
    field.name: field.derived for field in EVENT_BY_CODE[1].by_name.values() if field.derived in ACTOR_SLOT_OF
}


def actor_get(actor: Actor, name: str) -> Value:
    """Returns an actor field by canonical name, None when missing. Raises KeyError for an unknown name."""
    at = ACTOR_SLOT_OF.get(name)
    if at is not None:
        return actor.slots[at]
    return DERIVE[name](actor.slots[ACTOR_SLOT_OF[_MADE_OF[name]]])


def text(raw: bytes) -> str:
    r"""Decodes bytes for JSON and people: UTF-8, with other bytes as lone surrogates \udcXX, which round-trips."""
    return raw.decode("utf-8", "surrogateescape")


def value_to_json(field: Field, value: Value) -> object:
    """Returns a field's value as JSON shows it: addresses and process ids as text, open flags as numbers."""
    return kind_to_json(field.kind, value)


def kind_to_json(kind: Kind, value: Value) -> str | int | list[str] | None:
    """Returns a value of a kind as JSON shows it, as value_to_json does."""
    match kind, value:
        case Kind.IP, bytes():
            return str(ipaddress.ip_address(value))
        case Kind.PROCESS, (pid, start_ns):
            return f"{pid!s}-{start_ns!s}"
        case _, bytes():
            return text(value)
        case _, tuple():
            return [text(item) for item in value if isinstance(item, bytes)]
        case _:
            return value


def constant_name(field: Field, value: int) -> str:
    """Returns a number as the policy language would write it, `PTRACE_ATTACH` or `O_WRONLY|O_CREAT`, or in digits."""
    family = CONSTANTS.get(field.constants, {})
    if field.kind is not Kind.BITS:
        names = [name for name, number in family.items() if number == value]
        return names[0] if names else str(value)
    parts, rest = [], value
    for name, bits in sorted(family.items(), key=lambda item: -item[1].bit_count()):
        if bits and bits & rest == bits:
            parts.append(name)
            rest &= ~bits
    if rest or not parts:
        parts.append(oct(rest) if field.constants == "S_" else hex(rest))
    return "|".join(parts)


def actor_key(actor: Actor, boot_id: str) -> ProcessKey:
    """Returns the actor's identity in the form orders and alerts use."""
    return ProcessKey(*actor.id, boot_id)


assert ACTOR_SLOTS[0].name == "proc.id"
