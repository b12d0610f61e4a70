"""The gate's core, asked in the kernel one question at a time, and random plans and questions to compare it with its twin."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

from execray.gate.hashes import (
    MAX_DEPTH,
    comm_key,
    component_key,
    components,
    exact_key,
    leaf_key,
    prefix_key,
    suffix_key,
)
from execray.gate.memory import until_ns
from execray.gate.plan import ALL_BITS, CELL_SLOTS, MAX_SLOTS, CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.gate.verdict import Facts, PathState, named_row
from execray.schema.layout import (
    ER_GATE_CELLS,
    ER_GATE_INPUT,
    ER_GATE_PATH,
    GATE_CASE_AT,
    GATE_CASE_BYTES,
    GATE_CELL_KEY,
    GATE_WORK_AT,
)
from tracerd import bpf
from tracerd.bpf import Map, MapType
from tracerd.gate import Gate
from tracerd.loader import load
from tracerd.objects import OBJECT_DIR

_PATH_AT: Final = 16  # gate_case.h
_COMM: Final = ER_GATE_INPUT["ER_GATE_COMM"]
_NAMES: Final = (
    b"etc",
    b"usr",
    b"bin",
    b"tmp",
    b"a" * 8,
    b"b" * 31,
    b"b" * 33,
    b"c" * 255,
    b"x",
    b"\xff\xfe",
    b"passwd.conf",
)
CODES: Final = (4, 5, 7, 8, 63)
#: Paths by which policies mean files.
_MEANT: Final = (b"/etc/shadow", b"/etc/gshadow", b"/root", b"/var/backups/shadow.bak")


def case_of(plan: GatePlan, facts: Facts, half: int = 1, pid: int = 1, now_ns: int = 1) -> bytes:
    """Returns a question to a plan as `struct er_gate_case`, without what lies behind the path. now_ns: not 0."""
    names = components(facts.path)
    known = facts.state is PathState.KNOWN
    deep = known and len(names) > MAX_DEPTH
    out = bytearray(GATE_CASE_AT["path"][0] + _PATH_AT + len(facts.path))
    work = GATE_CASE_AT["work"][0]
    state = ER_GATE_PATH["ER_GATE_UNKNOWN" if deep else f"ER_GATE_{facts.state.name}"]
    struct.pack_into("<I", out, work + GATE_WORK_AT["tgid"][0], pid)
    struct.pack_into("<I", out, work + GATE_WORK_AT["named"][0], named_row(plan, facts.names))
    struct.pack_into("<Q", out, work + GATE_WORK_AT["now_ns"][0], now_ns)
    flags = sum(1 << number for number in facts.numbers) | (1 << _COMM if facts.comm is not None else 0)
    count = len(names) if known and not deep else 0
    struct.pack_into("<6I", out, work, facts.code, half, state, count, len(facts.path), flags)
    for number, value in facts.numbers.items():
        struct.pack_into("<Q", out, work + GATE_WORK_AT["number"][0] + 8 * number, value & (1 << 64) - 1)
    struct.pack_into("<16s", out, work + GATE_WORK_AT["comm"][0], facts.comm or b"")
    struct.pack_into("<I", out, GATE_CASE_AT["verdict"][0], 2)
    for index, name in enumerate(names[:count]):
        struct.pack_into("<H", out, GATE_CASE_AT["len"][0] + 2 * index, len(name))
    at = GATE_CASE_AT["path"][0]
    out[at : at + _PATH_AT] = b"\xee" * _PATH_AT
    out[at + _PATH_AT :] = facts.path
    return bytes(out)


class KernelGate:
    """bpf/gate.bpf.c, loaded, with a table of its own."""

    def __init__(self, cells: int = ER_GATE_CELLS, objects: Path = OBJECT_DIR) -> None:
        self.gate = Gate(cells=cells)
        self.plan = GatePlan()
        self._case = Map.create(MapType.ARRAY, "er_gate_case", 4, GATE_CASE_BYTES, 1, bpf.MAP_MMAPABLE)
        maps = {"er_gate": self.gate.map, "er_gate_cells": self.gate.cells, "er_gate_case": self._case}
        self._object = load("gate", objects)
        self._object.share(maps)
        self._view = self._case.view()
        self._program = self._object.programs["er_gate_ask"].fd
        self._at = GATE_CASE_AT["verdict"][0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()
        self._object.close()
        self._case.close()
        self.gate.close()

    def load(self, plan: GatePlan, *, since_ns: int = 0) -> None:
        """Loads a plan, as if it had come at that time."""
        self.plan = plan
        self.gate.load(plan)
        self.gate.loaded()
        while self.gate.stale:
            self.gate.sweep()
        ends = {slot: until_ns(window, since_ns) for slot, window in plan.windows.items()}
        assert self.gate.settle(self.gate.generation, ends)

    def ended(self, pid: int) -> None:
        """Does what the end of a process does."""
        for half in (1, 2):
            self.gate.cells.delete(GATE_CELL_KEY.pack(pid, half))

    def ask(self, facts: Facts, pid: int = 1, now_ns: int = 1) -> bool:
        """Returns the verdict of the plan in use."""
        raw = case_of(self.plan, facts, self.gate.value, pid, now_ns)
        self._view[: len(raw)] = raw
        bpf.run_program(self._program)
        verdict = self._view[self._at]
        assert verdict in (0, 1), "no answer"
        return verdict == 1


def random_path(random: Random) -> bytes:
    """Returns an absolute path of a few names, now and then the root, or a deep one."""
    depth = random.choice((0, 1, 2, 3, 4, 5, 8, 16, 31, 32, 33))
    names = [
        random.choice(_NAMES) if random.random() < 0.9 else random.randbytes(3).replace(b"/", b"_")
        for _ in range(depth)
    ]
    return b"/" + b"/".join(names)[:3000].rstrip(b"/")


def random_key(random: Random) -> int:
    """Returns a key that some random path has."""
    path = random_path(random)
    names = components(path) or [b"etc"]
    return random.choice(
        (
            lambda: exact_key(path),
            lambda: prefix_key(b"/" + b"/".join(names[: random.randrange(len(names) + 1)])),
            lambda: component_key(random.choice(names)),
            lambda: leaf_key(names[-1]),
            lambda: suffix_key(path[-random.choice((1, 3, 8, 9, 16)) :]),
            lambda: comm_key(random.choice(names)[:15]),
        )
    )()


def random_plan(random: Random) -> GatePlan:
    """Returns a plan that a compiler might not have made, but that decoding would let through."""
    bits = random.choice((60, 200, 900))
    rows = [0, ALL_BITS]

    def row() -> int:
        if random.random() < 0.3:
            return random.choice((0, 1))
        density = random.choice((0.01, 0.1, 0.5))
        rows.append(sum(1 << bit for bit in range(bits) if random.random() < density))
        return len(rows) - 1

    codes, word, last = [], 0, -(-bits // 64)
    for code in random.sample(CODES[:-1], random.randrange(1, len(CODES))):
        first = min(word, last - 1)
        word = min(first + random.randrange(1, 6), last)
        whole, free, nameless, missing, comm_free = (row() for _ in range(5))
        numbers = _numbers(random, rows)
        codes.append(CodeTest(code, first, word, whole, free, nameless, missing, comm_free, numbers))
    keys = {random_key(random): row() for _ in range(random.choice((0, 3, 60)))}
    keys |= {exact_key(path): row() for path in random.sample(_MEANT, random.randrange(len(_MEANT) + 1))}
    suffixes = tuple(sorted(random.sample((1, 3, 8, 9, 16), random.randrange(4))))
    opened = frozenset(random.sample(CODES, random.choice((0, 0, 1))))
    share, few = random.choice((0.5, 1)), [random_slot(random) for _ in range(random.choice((1, 3, 9)))]
    slots = {bit: random.choice(few) for bit in range(bits) if random.random() < share}
    windows = {slot: random.choice((0, 5, 5, 100, None)) for slot in {*slots.values(), 1, MAX_SLOTS - 1}}
    first, named = (random.choice((0, 1, row())) for _ in range(2))
    return GatePlan(tuple(codes), opened, tuple(rows), keys, suffixes, first, named, slots, windows)


def random_slot(random: Random) -> int:
    """Returns a slot: of few, so that they meet."""
    others = random.choice((random.randrange(1, CELL_SLOTS), random.randrange(CELL_SLOTS + 1, MAX_SLOTS)))
    return random.choice((1, 2, CELL_SLOTS - 1, CELL_SLOTS + 1, MAX_SLOTS - 1, others))


def _numbers(random: Random, rows: list[int]) -> tuple[NumberTest, ...]:
    out = []
    for which in random.sample(list(Input), random.randrange(4)):
        if random.random() < 0.5:
            bounds = tuple(sorted(random.sample(range(-20, 40), random.randrange(1, 17))))
            test = NumberTest(which, NumberKind.RANGES, bounds, len(rows))
        else:
            masks = tuple(1 << random.randrange(64) | 1 << random.randrange(8) for _ in range(random.randrange(1, 9)))
            test = NumberTest(which, NumberKind.BITS, masks, len(rows))
        rows += [random.choice((ALL_BITS, ALL_BITS, 0, random.getrandbits(900))) for _ in range(test.row_count)]
        out.append(test)
    return tuple(out)


def random_facts(random: Random) -> Facts:
    """Returns an event, as far as the gate sees it."""
    state = random.choice((PathState.KNOWN, PathState.KNOWN, PathState.KNOWN, *PathState))
    numbers: Mapping[Input, int] = {
        which: random.choice((random.randrange(-20, 40), random.getrandbits(32)))
        for which in Input
        if random.random() < 0.6
    }
    comm = random.choice((None, random.choice(_NAMES)[:15]))
    path = random_path(random) if state is PathState.KNOWN else b""
    names = tuple(random.sample(_MEANT, random.choice((1, 1, 2)))) if random.random() < 0.2 else ()
    return Facts(random.choice(CODES), state, path, comm, numbers, names)
