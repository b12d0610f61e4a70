"""What the kernel can test of each way to meet a step: one bit of the gate's plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from execray.gate.plan import Input
from execray.schema.catalog import EVENT_BY_CODE, EVENT_BY_NAME, FIRST_ADDED
from execray.schema.kinds import Kind
from execray.schema.row import FILE_NAMES_NAME
from policyd.engine.planning import ACTOR, SlotKey, Way, normal
from policyd.engine.table import PolicyTable
from policyd.gate.needs import Mask, PathNeed, file_need, masks, names, path_need
from policyd.gate.spans import EVERY, Spans, spans
from policyd.program import And, CompiledPolicy, Expr, KeyKind

#: Events that are never dropped: lineage, and what an actor is, come from them. Of changed credentials some are told by the
#: programs of exec and fork, where there is no gate.
ALWAYS: Final = frozenset(EVENT_BY_NAME[name].code for name in ("exec", "fork", "exit", "cred_change"))

_INPUTS: Final = {
    "open": {"flags": Input.FLAGS, "mode": Input.MODE, "created": Input.CREATED},
    "create": {"flags": Input.FLAGS, "mode": Input.MODE},
    "chmod": {"mode": Input.MODE},
    "connect": {"family": Input.FAMILY, "dst.port": Input.PORT, "dst.ip": Input.DST_IP, "src.ip": Input.SRC_IP},
    "sendto": {"family": Input.FAMILY, "dst.port": Input.PORT, "dst.ip": Input.DST_IP},
    "bind": {"family": Input.FAMILY, "src.ip": Input.SRC_IP},
    "listen": {"family": Input.FAMILY, "src.ip": Input.SRC_IP},
    "accept": {"family": Input.FAMILY, "dst.ip": Input.DST_IP, "src.ip": Input.SRC_IP},
    "ptrace": {"request": Input.REQUEST},
    "kill": {"sig": Input.REQUEST},
    "setuid": {
        "new.uid": Input.NEW_UID,
        "new.euid": Input.NEW_EUID,
        "old.uid": Input.OLD_UID,
        "old.euid": Input.OLD_EUID,
    },
}
_OF_ACTOR: Final = {"uid": Input.UID, "euid": Input.EUID}
_SETS: Final = frozenset({Input.FLAGS, Input.MODE})


def is_gated(code: int) -> bool:
    """Whether events of the code can be dropped. Those that packages add always pass, too."""
    return code not in ALWAYS and code < FIRST_ADDED


def input_of(slot: SlotKey, code: int) -> Input | None:
    """Returns the number that the kernel has of a slot."""
    if slot.code == ACTOR:
        return _OF_ACTOR.get(slot.slot)
    if slot.code != code:
        return None
    return Input.RET if slot.slot == "ret" else _INPUTS.get(EVENT_BY_CODE[code].name, {}).get(slot.slot)


def has_path(code: int) -> bool:
    """Whether events of the code have a path that the kernel may know."""
    field = EVENT_BY_CODE[code].by_name.get("path")
    return field is not None and field.kind is Kind.PATH


@dataclass(frozen=True, slots=True)
class Asked:
    """What one way asks for, of events of one code."""

    code: int
    path: PathNeed | None = None
    numbers: tuple[tuple[Input, Spans], ...] = ()
    masks: tuple[tuple[Input, Mask], ...] = ()
    names: frozenset[bytes] | None = None

    @property
    def is_anything(self) -> bool:
        """Whether every event of its code has it."""
        return self.path is None and not self.numbers and not self.masks and self.names is None


@dataclass(frozen=True, slots=True)
class Bit:
    """A way to meet a step. opens: the number of its policy, where it is a first step and others follow. waits: likewise of one
    that is awaited only where that policy has begun."""

    asked: Asked
    opens: int | None = None
    waits: int | None = None


def asked_of(way: Way, code: int) -> Asked:
    """Returns what the kernel can test of a way."""
    path: PathNeed | None = None
    comm: frozenset[bytes] | None = None
    numbers: list[tuple[Input, Spans]] = []
    found: list[tuple[Input, Mask]] = []
    for slot, parts in way.items():
        expr: Expr = And(tuple(map(normal, parts)))
        which = input_of(slot, code)
        if which is not None:
            wanted = spans(expr, slot.slot)
            if wanted != EVERY:
                numbers.append((which, wanted))
            if which in _SETS:
                found += [(which, mask) for mask in masks(expr, slot.slot)]
        elif slot == SlotKey(code, "path") and has_path(code):
            path = path_need(expr) if path is None else path
        elif slot == SlotKey(code, FILE_NAMES_NAME):
            path = file_need(expr) or path
        elif slot == SlotKey(ACTOR, "comm"):
            comm = names(expr)
    return Asked(code, path, tuple(sorted(numbers)), tuple(sorted(found)), comm)


def first_steps(policy: CompiledPolicy) -> frozenset[int]:
    """Returns the steps that an event may meet before the kernel can know that the policy has begun.

    The gate doesn't look at the events that it never drops, so what stands behind a step of such is awaited from the start.
    """
    reached, first = [0], set[int]()
    for place in reached:  # grows meanwhile
        state = policy.states[place]
        unseen = [way for way in state.transitions if not all(map(is_gated, policy.steps[way.step].codes))]
        reached += [way.target for way in unseen if way.target not in reached]
        first |= {*(way.step for way in state.transitions), *state.repeats}
        if place or unseen:
            first |= {until.step for until in policy.untils if place in until.states}
    return frozenset(first)


def bits_of(table: PolicyTable, number: int) -> list[tuple[int, Bit]]:
    """Returns the bits of a policy, each with its step. number: the policy's."""
    first = first_steps(table.policy)
    follows = len(first) < len(table.policy.steps)
    found = []
    for (step, code), plan in table.plans.items():
        if not is_gated(code):
            continue
        for way in plan.ways:
            opens = number if step in first and follows else None
            found.append((step, Bit(asked_of(way, code), opens, None if step in first else number)))
    return found


def meets_failed(table: PolicyTable, code: int) -> bool:
    """Whether a call that failed may meet a step that asks for events of this code."""
    for (_, asked), plan in table.plans.items():
        for way in plan.ways if asked == code else ():
            results = dict(asked_of(way, code).numbers).get(Input.RET, EVERY)
            if any(low < 0 for low, _ in results):
                return True
    return False


def of_process(policy: CompiledPolicy) -> bool:
    """Whether a policy's sequences each belong to one process."""
    return policy.key is KeyKind.PROCESS


def longest_ns(policy: CompiledPolicy) -> int | None:
    """Returns how long at most a first step of the policy matters, in ns; None: without end."""
    if policy.within_ns is None:
        return None
    counts = [step.times.within_ns or policy.within_ns for step in policy.steps if step.times is not None]
    return policy.within_ns + max(counts, default=0)
