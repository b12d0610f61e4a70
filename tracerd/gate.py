"""The kernel gate: a plan into the kernel's table, the flip from one to the next, and what the kernel counts.

Two tables, of which at most one is in use. The next plan is written into the other, once no program can still be reading that;
then one store makes it the one in use, between two events.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from execray.errors import PeerError
from execray.gate.encoding import digest_of, encode_plan
from execray.gate.memory import FOR_EVER, until_ns, waits_for
from execray.gate.plan import GatePlan
from execray.schema.catalog import EVENT_BY_CODE
from execray.schema.layout import (
    ER_GATE_CELLS,
    ER_GATE_CODES,
    ER_GATE_HALVES,
    ER_GATE_KEYS,
    ER_GATE_OWN,
    ER_GATE_ROWS,
    ER_GATE_SHADOW,
    ER_GATE_SLOTS,
    ER_GATE_WORDS,
    GATE_AT,
    GATE_BYTES,
    GATE_CELL,
    GATE_CELL_KEY,
    GATE_WORK_AT,
    GATE_WORK_BYTES,
)
from tracerd import bpf
from tracerd.bpf import Map, MapType
from tracerd.gate_files import GateFiles
from tracerd.gate_table import every_slot, table_of
from tracerd.shapes import FOLLOWED

_ALWAYS: Final = frozenset({"exec", "fork", "exit", "cred_change"})
#: Cells that are taken out at once: what waits meanwhile is the ring.
_SWEPT: Final = 512


@dataclass(frozen=True, slots=True)
class GateCounts:
    """What the kernel counted, over all processors and hooks. Only grows."""

    passed: dict[str, int]  # by event
    dropped: dict[str, int]
    deep: int  # paths of more components than are looked at
    begun: int  # how often some policy's first step was met, or could have been
    full: int  # how often that then counted for the whole host, as there was no room for the process

    @classmethod
    def of(cls, raws: Iterable[bytes]) -> GateCounts:
        """Adds up some `struct er_gate_work`, back to back."""
        passed, dropped, others = [0] * ER_GATE_CODES, [0] * ER_GATE_CODES, dict.fromkeys(("deep", "begun", "full"), 0)
        for raw in raws:
            for start in range(0, len(raw), GATE_WORK_BYTES):
                for total, member in ((passed, "passed"), (dropped, "dropped")):
                    counts = struct.unpack_from(f"<{ER_GATE_CODES}Q", raw, start + GATE_WORK_AT[member][0])
                    total[:] = map(int.__add__, total, counts)
                for member in others:
                    others[member] += struct.unpack_from("<Q", raw, start + GATE_WORK_AT[member][0])[0]
        return cls(_named(passed), _named(dropped), **others)


def _named(counts: list[int]) -> dict[str, int]:
    return {EVENT_BY_CODE[code].name: n for code, n in enumerate(counts) if n and code in EVENT_BY_CODE}


def possible_cpus() -> int:
    """Returns how many processors the kernel keeps values for. Raises OSError."""
    said = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return 1 + int(said.strip().rpartition(",")[2].rpartition("-")[2])


class Gate:
    """The two tables. What is in use is `value`, which belongs into er_config."""

    def __init__(self, mode: str = "on", cells: int = ER_GATE_CELLS, table: Map | None = None) -> None:
        """mode: on, off, or shadow, which lets everything pass and flags what it would have dropped. Raises OSError.

        cells: of how many processes can be kept that something has begun in them. table: the map of plans, where there is one.
        """
        self.mode = mode
        self.cells = Map.create(MapType.HASH, "er_gate_cells", GATE_CELL_KEY.size, GATE_CELL.size, cells)
        self.map = table or Map.create(MapType.ARRAY, "er_gate", 4, GATE_BYTES, ER_GATE_HALVES, bpf.MAP_MMAPABLE)
        self.generation = 0
        self._view = self.map.view()
        self._half = 0
        self._settled = False
        self._loaded = 0  # the generation that programs read; 0: none
        self._crowded = False  # threads were made that no program has seen
        self.stale = False  # there may be cells of former plans
        self._digest = ""
        self.resting: frozenset[int] = frozenset()  # events that may wait for others
        self._written = [0] * ER_GATE_HALVES  # bytes
        self._plan: GatePlan | None = None  # the one in use
        self.files = GateFiles()
        self._grace = Map.create(MapType.ARRAY_OF_MAPS, "er_grace", 4, 4, 1, inner=self.map)

    @property
    def value(self) -> int:
        """er_config::gate: 0 where everything passes."""
        return self._half | ER_GATE_SHADOW if self._half and self.mode == "shadow" else self._half

    def load(self, plan: GatePlan | None) -> None:
        """Writes a plan into the table that isn't in use, and makes that `value`; None: everything passes. Raises OSError.

        Waits until no program runs that might still read that table: some milliseconds.
        """
        if plan is None or self.mode == "off":
            self._half, self._plan, self._digest, self.resting = 0, None, "", frozenset()
            return
        if plan == self._plan:
            return  # and what has begun stays
        self._wait()
        half = 2 if self._half == 1 else 1
        self.generation += 1
        table = table_of(plan, self.generation, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        at = (half - 1) * GATE_BYTES
        was = self._written[half - 1]
        self._view[at : at + len(table)] = table
        if was > len(table):
            self._view[at + len(table) : at + was] = bytes(was - len(table))
        self._written[half - 1] = len(table)
        self._put_crowd(half)
        self.files.expect(plan, half)
        self._half, self._plan = half, plan
        # what a call that is followed leaves behind is kept although its event is dropped, so each of these is looked at
        self.resting = frozenset(
            code.code for code in plan.codes if code.code not in FOLLOWED and waits_for(plan, code)
        )
        self._settled, self._digest = not plan.windows, digest_of(encode_plan(plan))

    def loaded(self) -> None:
        """To be called when er_config has the new `value`. Raises OSError.

        Comes back when no program runs any more that has read the old one: their records are in the ring.
        """
        if self._loaded != self.generation * bool(self._half):
            self._wait()
            self._loaded, self.stale = self.generation * bool(self._half), True
            if not self._settled:  # by a clock that is no older than the last event under the former plan
                self.unsettle()

    def sweep(self) -> None:
        """Takes out cells of former plans, so many at once. What stays a while only lets too much pass. Raises OSError."""
        if not self.stale:
            return
        stale = [
            key
            for keys in self.cells.batches()
            for key in (keys[at : at + GATE_CELL_KEY.size] for at in range(0, len(keys), GATE_CELL_KEY.size))
            if GATE_CELL_KEY.unpack(key)[1] != self._half
        ]
        for key in stale[:_SWEPT]:
            self.cells.delete(key)
        self.stale = len(stale) > _SWEPT

    def settle(self, generation: int, ends: Mapping[int, int]) -> bool:
        """Takes the ends, in ns by slots, of what had begun before a plan came, where that is still the one in use.

        Until then everything counts as begun at that moment. Returns whether it is. Raises PeerError for what is no slot or time.
        """
        if not all(
            0 < slot < ER_GATE_SLOTS and slot != ER_GATE_OWN and 0 <= end <= FOR_EVER for slot, end in ends.items()
        ):
            raise PeerError("a slot or its end is out of range")
        if not self._half or generation != self.generation:
            return False
        self._put_settled(ends)
        self._settled = True
        return True

    def unsettle(self) -> None:
        """Takes everything to have begun now, as a new plan does: who said what had is no longer there to know it."""
        if self._plan is None or not self._plan.windows:
            return
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._put_settled({slot: until_ns(window, now_ns) for slot, window in self._plan.windows.items()})
        self._settled = False

    def miss_threads(self) -> None:
        """To be told that threads were made which no program has seen: from now on each caller is asked who he is."""
        self._crowded = True
        self._put_crowd(self._half)

    def _put_crowd(self, half: int) -> None:
        if half and self._crowded:
            at = GATE_AT["crowd_ns"][0] + (half - 1) * GATE_BYTES
            with memoryview(self._view).cast("Q") as words:
                words[at // 8] = FOR_EVER

    def _put_settled(self, ends: Mapping[int, int]) -> None:
        at = GATE_AT["settled_ns"][0] + (self._half - 1) * GATE_BYTES
        with memoryview(self._view).cast("Q") as words:
            for slot, end in enumerate(every_slot(ends)):
                words[at // 8 + slot] = end  # each in one store, as programs read it

    def _wait(self) -> None:
        """The kernel comes back from this when every program that ran has ended."""
        bpf.fill_slot(self._grace.fd, self.map)

    def tables(self) -> dict[str, dict[str, int]]:
        """Returns how full the plan in use makes its table, as `Sensor.tables` does of maps."""
        if self._plan is None:
            return {}
        rows, keys = len(self._plan.rows), len(self._plan.keys)
        bits = 64 * sum(code.end_word - code.first_word for code in self._plan.codes)
        return {
            "gate_bits": {"used": bits, "max": 64 * ER_GATE_WORDS},
            "gate_rows": {"used": rows, "max": ER_GATE_ROWS},
            "gate_keys": {"used": keys, "max": ER_GATE_KEYS},
        }

    def _open(self) -> list[str]:
        """Returns the events of which the plan lets all pass, but for those that always do."""
        codes = self._plan.open_codes if self._plan is not None else ()
        return sorted({EVENT_BY_CODE[code].name for code in codes if code in EVENT_BY_CODE} - _ALWAYS)

    def status(self, counts: GateCounts) -> dict[str, Any]:
        """Returns what heartbeats and `status` say of it."""
        state = "open" if not self._half else self.mode
        return {
            "mode": "off" if self.mode == "off" else state,
            "generation": self.generation,
            "plan": self._digest,
            "settled": self._settled,
            "passed": counts.passed,
            "dropped": counts.dropped,
            "open": self._open(),
            "deep_paths": counts.deep,
            "begun": counts.begun,
            "cells_full": counts.full,
        }

    def close(self) -> None:
        """Gives the memory back."""
        self._view.close()
        self._grace.close()
        self.cells.close()
        self.files.close()
        self.map.close()
