"""Kills in the kernel, from this side: rules into the table, the lease by which they are in force, the budget, who is spared.

As the gate's plan, the rules are written into the half of the table that isn't in use, and one store makes it the one in use.
They kill only while the lease lasts, which is renewed while policyd is connected: nobody is killed for whom nobody would say so.
"""

from __future__ import annotations

import os
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from execray.config import Config
from execray.errors import OperatorError
from execray.gate.inline import InlinePlan, NumberTest, Rule, TextTest, listing
from execray.guard import BUDGET_WINDOW_NS, COMM_CHARS
from execray.schema.layout import (
    ER_INLINE_CELLS,
    ER_INLINE_CLAIMS,
    ER_INLINE_CODES,
    ER_INLINE_HALVES,
    ER_INLINE_HOST,
    ER_INLINE_NAME,
    ER_INLINE_NUMBERS,
    ER_INLINE_POLICIES,
    ER_INLINE_SPARED,
    ER_INLINE_TEXTS,
    ER_INLINE_TOKENS,
    INLINE_CELL,
    INLINE_CELL_KEY,
    INLINE_CLAIM_KEY,
    INLINE_NUMBER,
    INLINE_PLAN_AT,
    INLINE_PLAN_BYTES,
    INLINE_RULE,
    INLINE_STATE,
    INLINE_TEXT,
    InlineState,
)
from tracerd import bpf
from tracerd.bpf import Map, MapType

LEASE_NS: Final = 3_000_000_000
_U64: Final = (1 << 64) - 1
_WORDS: Final = len(InlineState._fields) - 1  # but for `next`, which is the kernel's alone
_LEASE, _HALF = InlineState._fields.index("lease_ns"), InlineState._fields.index("half")
_COUNTS: Final = ("killed", "expired", "spared", "budget", "unsent", "failed")
#: A key is a letter, a name, and a NUL at least.
_NAME_BYTES: Final = ER_INLINE_NAME - 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How many kills a minute the kernel may do, of one policy and in all, and whom never: file names, thread names."""

    per_minute: int
    per_policy: int
    exes: frozenset[bytes]
    comms: frozenset[bytes]

    @classmethod
    def of(cls, config: Config) -> Limits:
        """Returns what the configuration says, which is what it says for all other kills. Raises OperatorError."""
        exes = map(os.fsencode, filter(None, config.protect_exe))
        names = {part.rsplit(b"/", 1)[-1] for exe in exes for part in (exe, os.path.realpath(exe))}
        # a program may have been renamed since it was started: then its thread's name may still tell
        comms = {os.fsencode(comm) for comm in filter(None, config.protect_comm)} | names
        comms = {comm[:COMM_CHARS] for comm in comms}  # as much as the kernel keeps
        if len(names) + len(comms) >= ER_INLINE_SPARED:
            most = f"{ER_INLINE_SPARED} names of programs and threads are the most that the kernel can spare"
            raise OperatorError(most, "shorten protect_exe or protect_comm, or leave tracerd.inline off")
        own = config.enforcer
        return cls(own.kills_per_minute, own.kills_per_minute_per_policy, frozenset(names), frozenset(comms))


class Tokens:
    """The budget: a token for each kill. One that the kernel has taken is laid back a minute after that was seen."""

    def __init__(self, taken: Map, limits: Limits, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """taken: the map that the kernel takes them from."""
        self._map = taken
        self._clock_ns = clock_ns
        self._most = {ER_INLINE_HOST: min(limits.per_minute, ER_INLINE_TOKENS)}
        self._most |= dict.fromkeys(range(ER_INLINE_POLICIES), min(limits.per_policy, ER_INLINE_TOKENS))
        self._missing: deque[tuple[int, bytes]] = deque()  # since when; no longer than the map
        self._slots = 0
        self._lay(ER_INLINE_HOST)

    def policies(self, count: int) -> None:
        """Lays out tokens for so many policies; in a place that another policy had, what that one left. Raises OSError."""
        for slot in range(self._slots, count):
            self._lay(slot)
        self._slots = max(self._slots, count)

    def refill(self) -> None:
        """Notes what was taken, and lays back what was for a minute. Raises OSError."""
        now = self._clock_ns()
        while self._missing and self._missing[0][0] <= now - BUDGET_WINDOW_NS:
            self._map.update(self._missing.popleft()[1], bytes(4))
        known = {key for _, key in self._missing}
        for slot in (ER_INLINE_HOST, *range(self._slots)):
            gone = [key for key in self._keys(slot) if key not in known and self._map.lookup(key) is None]
            self._missing.extend((now, key) for key in gone)

    def _lay(self, slot: int) -> None:
        for key in self._keys(slot):
            self._map.update(key, bytes(4))

    def _keys(self, slot: int) -> list[bytes]:
        return [struct.pack("<I", slot << 16 | number) for number in range(self._most[slot])]


class Inline:
    """The maps of the kernel's own kills."""

    def __init__(self, limits: Limits | None) -> None:
        """limits: None: the kernel kills nobody. Raises OSError."""
        self.limits = limits
        self.maps = {
            "er_inline_plan": Map.create(
                MapType.ARRAY, "er_inline_plan", 4, INLINE_PLAN_BYTES, ER_INLINE_HALVES, bpf.MAP_MMAPABLE
            ),
            "er_inline_state": Map.create(MapType.ARRAY, "er_inline_state", 4, INLINE_STATE.size, 1, bpf.MAP_MMAPABLE),
            "er_inline_spared": Map.create(MapType.HASH, "er_inline_spared", ER_INLINE_NAME, 4, ER_INLINE_SPARED),
            "er_inline_tokens": Map.create(
                MapType.HASH, "er_inline_token", 4, 4, (ER_INLINE_POLICIES + 1) * ER_INLINE_TOKENS
            ),
            "er_inline_cells": Map.create(
                MapType.LRU_HASH, "er_inline_cells", INLINE_CELL_KEY.size, INLINE_CELL.size, ER_INLINE_CELLS
            ),
            "er_inline_claims": Map.create(
                MapType.LRU_HASH, "er_inline_claim", INLINE_CLAIM_KEY.size, 4, ER_INLINE_CLAIMS
            ),
        }
        self._plans = self.maps["er_inline_plan"].view()
        self._state_view = self.maps["er_inline_state"].view()
        self._state = memoryview(self._state_view).cast("Q")
        self._grace = Map.create(MapType.ARRAY_OF_MAPS, "er_grace", 4, 4, 1, inner=self.maps["er_inline_plan"])
        self._generation = 0
        self.plan = InlinePlan()
        self._spared_pids: Counter[int] = Counter()
        self._tokens: Tokens | None = None
        if limits is not None:
            self._tokens = Tokens(self.maps["er_inline_tokens"], limits)
            self._spare(b"e", limits.exes)
            self._spare(b"c", limits.comms)

    def _spare(self, letter: bytes, names: Iterable[bytes]) -> None:
        for name in names:
            self.maps["er_inline_spared"].update((letter + name[:_NAME_BYTES]).ljust(ER_INLINE_NAME, b"\0"), bytes(4))

    def spare_process(self, pid: int) -> None:
        """Spares whoever has this pid, until forget_process was called as often. Raises OSError."""
        self.maps["er_inline_spared"].update(_pid_key(pid), bytes(4))
        self._spared_pids[pid] += 1

    def forget_process(self, pid: int) -> None:
        """Ends that. Raises OSError."""
        self._spared_pids[pid] -= 1
        if self._spared_pids[pid] <= 0:
            del self._spared_pids[pid]
            self.maps["er_inline_spared"].delete(_pid_key(pid))

    def load(self, plan: InlinePlan) -> None:
        """Puts other rules in force; sequences that have begun are left to user space. Raises OSError.

        Waits until no program runs that might still read the table: some milliseconds.
        """
        if self._tokens is None or not plan.rules:
            self.plan = InlinePlan()
            self._state[_HALF] = 0
            return
        if plan == self.plan:
            return
        self._tokens.policies(len(plan.policies))
        bpf.fill_slot(self._grace.fd, self.maps["er_inline_plan"])  # comes back when every program that ran has ended
        half = 2 if self._state[_HALF] == 1 else 1
        self._generation += 1
        at = (half - 1) * INLINE_PLAN_BYTES
        self._plans[at : at + INLINE_PLAN_BYTES] = table_of(plan, self._generation)
        self._state[_HALF] = half
        self.plan = plan

    def forget(self) -> None:
        """Leaves all sequences that have begun to user space, as load does with other rules. Raises OSError."""
        plan, self.plan = self.plan, InlinePlan()
        self.load(plan)

    def renew(self, lease_ns: int = LEASE_NS) -> None:
        """Lets the rules be in force for so long from now, and looks after the budget. Raises OSError."""
        if self._tokens is not None:
            self._tokens.refill()
            self._state[_LEASE] = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + lease_ns

    def end_lease(self) -> None:
        """From now on nobody is killed."""
        self._state[_LEASE] = 0

    def status(self) -> dict[str, Any]:
        """Returns what heartbeats and `status` say of it. The counts only grow."""
        counts = dict(zip(InlineState._fields[:_WORDS], self._state[:_WORDS].tolist(), strict=True))
        in_force = counts["lease_ns"] > time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return {
            "mode": "off" if self.limits is None else "on",
            "in_force": bool(counts["half"]) and in_force,
            "policies": len(self.plan.policies),
            "rules": len(self.plan.rules),
            **{name: counts[name] for name in _COUNTS},
        }

    def close(self) -> None:
        """Gives the memory back."""
        self._state.release()
        self._state_view.close()
        self._plans.close()
        self._grace.close()
        for made in self.maps.values():
            made.close()


def _pid_key(pid: int) -> bytes:
    return (b"p" + struct.pack("<I", pid)).ljust(ER_INLINE_NAME, b"\0")


def table_of(plan: InlinePlan, generation: int) -> bytes:
    """Returns the plan as `struct er_inline_plan`."""
    out = bytearray(INLINE_PLAN_BYTES)
    rules = listing(plan)
    _put(out, "generation", struct.pack("<Q", generation))
    first = [next((at for at, rule in enumerate(rules) if rule.code == code), 0) for code in range(ER_INLINE_CODES)]
    ends = [at + sum(rule.code == code for rule in rules) for code, at in enumerate(first)]
    _put(out, "first", struct.pack(f"<{ER_INLINE_CODES}H", *first))
    _put(out, "end", struct.pack(f"<{ER_INLINE_CODES}H", *ends))
    _put(out, "rule", b"".join(_rule(plan, rule) for rule in rules))
    return bytes(out)


def _put(out: bytearray, member: str, data: bytes) -> None:
    at, size = INLINE_PLAN_AT[member]
    assert len(data) <= size
    out[at : at + len(data)] = data


def _rule(plan: InlinePlan, rule: Rule) -> bytes:
    policy = plan.policies[rule.slot]
    numbers = b"".join(map(_number, rule.numbers)).ljust(ER_INLINE_NUMBERS * INLINE_NUMBER.size, b"\0")
    texts = b"".join(map(_text, rule.texts)).ljust(ER_INLINE_TEXTS * INLINE_TEXT.size, b"\0")
    sizes = (len(rule.numbers), len(rule.texts))
    return INLINE_RULE.pack(policy.tag, rule.slot, rule.step, policy.steps, policy.within_ns, *sizes, numbers, texts)


def _number(test: NumberTest) -> bytes:
    return INLINE_NUMBER.pack(test.input, test.kind, test.negate, test.low & _U64, test.high & _U64)


def _text(test: TextTest) -> bytes:
    return INLINE_TEXT.pack(test.part, test.negate, len(test.text), test.text)
