"""The kernel side as one thing: the shared maps, the objects, and which hooks are attached for what is wanted."""

from __future__ import annotations

import os
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from execray.errors import OperatorError
from execray.gate.inline import InlinePlan
from execray.gate.plan import GatePlan
from execray.process import boot_id
from execray.schema.catalog import EVENT_BY_CODE, EVENT_BY_NAME, EVENTS, FIRST_ADDED, EventType
from execray.schema.extension import digests
from execray.schema.layout import (
    CONFIG,
    COUNTS,
    CREDS,
    ER_COUNTER,
    ER_GATE_HALVES,
    ER_SELF_FLAG,
    GATE_BYTES,
    GATE_WORK_BYTES,
    SELF,
)
from tracerd import bpf
from tracerd.armed import CONFIG_AT, KEY_BYTES, MAX_ARMED, SELF_AT, SHAPES_BYTES, VALUE_BYTES, ArmedProcesses, PidFilter
from tracerd.bpf import Map, MapType, value_size
from tracerd.gate import Gate, GateCounts, possible_cpus
from tracerd.inline import Inline, Limits
from tracerd.loader import BpfObject, LoadError, Program, load, making_maps
from tracerd.objects import OBJECT_DIR
from tracerd.others import Others
from tracerd.processes import ProcessTable
from tracerd.ringbuf import RingReader
from tracerd.rings import Rings, tells_operations
from tracerd.scan import Scan
from tracerd.shapes import table_of, write_table

RING_BYTES: Final = 16 * 1024 * 1024
_FIRST: Final = bytes(4)  # the key of a map's only element
_SELF_MAX: Final = 1024
_CREDS_MAX: Final = 65536
_LAPSED: Final = (CONFIG.size - 8) // 8  # er_config::lapsed_ns, the last word

#: Events that need another program than that of system calls. exec needs both: failed calls are seen at sys_exit.
_HOOKS: Final = {"exec": ("er_exec", "er_sys_exit"), "fork": ("er_fork",), "exit": ("er_exit",)}
_ALWAYS: Final = ("er_exec", "er_fork", "er_exit")
_EXEC: Final = EVENT_BY_NAME["exec"].code
_COSTS: Final[dict[str, str]] = {
    "proc": "no exec, fork or exit events and no lineage: tracerd does not start without it",
    "sys": "no system calls are seen: only exec, fork and exit",
    "uring": "what is done through io_uring is not seen",
    "submit": "what is done to files by name through io_uring is told without the names",
    "scan": "processes from before the start are looked up in /proc, with start times of 10 ms grain",
    "counter": "no count of system calls; only an option",
}


@dataclass(slots=True)
class ObjectReport:
    """How one object fared, for `execray-ctl doctor`."""

    name: str
    loaded: bool
    refused: str
    cost: str


class Sensor:
    """Owns everything in the kernel. close() leaves nothing behind; so does the end of the process."""

    def __init__(
        self,
        *,
        counter: bool = False,
        object_dir: Path = OBJECT_DIR,
        ring_bytes: int = RING_BYTES,
        gate: str = "on",
        kills: Limits | None = None,
    ) -> None:
        """Makes the maps and loads the objects. Raises OperatorError where ExecRay can't work at all.

        kills: how far the kernel may go by itself; None: it kills nobody.
        """
        self._objects: dict[str, BpfObject] = {}
        self.reports: dict[str, ObjectReport] = {}
        self.wanted: frozenset[int] = frozenset()
        self._content = 0
        self._numbers: frozenset[int] = frozenset()
        self._from_armed: frozenset[int] = frozenset()
        self._followed: frozenset[int] = frozenset()
        self.urgent: frozenset[int] = frozenset()
        self._unasked: frozenset[int] = frozenset()  # of what is wanted, that of which no calls are
        self._heartbeat = (0, 0)  # tgid, tid
        bpf.lift_memory_lock()
        self._object_dir = object_dir
        with making_maps():
            self._rings = Rings(self._find)
            self.inline = Inline(kills)
            self._maps = {
                **self.inline.maps,
                "er_ring": Map.create(MapType.RINGBUF, "er_ring", 0, 0, ring_bytes),
                "er_counter": Map.create(MapType.PERCPU_ARRAY, "er_counter", 4, COUNTS.size, 1),
                "er_self": Map.create(MapType.HASH, "er_self", 4, SELF.size, _SELF_MAX),
                "er_ring_names": self._rings.map,
                "er_creds": Map.create(MapType.HASH, "er_creds", 4, CREDS.size, _CREDS_MAX),
                "er_armed": Map.create(MapType.HASH, "er_armed", KEY_BYTES, VALUE_BYTES, MAX_ARMED),
            }
        for name in ("proc", "sys", "uring", "submit", *(("counter",) if counter else ())):
            self._load(name)
        if "proc" not in self._objects:
            raise OperatorError(self.reports["proc"].refused, "a kernel of 5.8 or later with BTF, and root, are needed")
        with making_maps():
            self.gate = Gate(gate, table=self._table("er_gate", GATE_BYTES, ER_GATE_HALVES))
            self._maps |= {
                "er_gate": self.gate.map,
                "er_gate_cells": self.gate.cells,
                "er_gate_files": self.gate.files.map,
                "er_shapes": self._table("er_shapes", SHAPES_BYTES, 1),
            }
            for loaded in self._objects.values():
                loaded.share(self._maps)
        self._scan = Scan(self._maps["er_creds"])
        self._shapes = self._maps["er_shapes"].view()
        self._config = memoryview(self._shapes)[CONFIG_AT : CONFIG_AT + CONFIG.size]
        self.armed = ArmedProcesses(self._maps["er_armed"], self._shapes)
        self._own = PidFilter(self._maps["er_self"], self._shapes, SELF_AT)
        # Of each processor, and read as one value: those of all, one behind the other.
        self._counts = Map(self._maps["er_counter"].fd, 4, COUNTS.size * possible_cpus(), 1)
        self._gate_works = [*self._works_of_gates()]
        self.ring = RingReader(self._maps["er_ring"].fd, ring_bytes)
        self._others = Others(self._maps)

    def _table(self, name: str, value_bytes: int, entries: int) -> Map:
        """Returns a table that each call asks: sys.bpf.o's own, or where that isn't loaded a new one. Raises OSError."""
        fd = self._objects["sys"].map_fd(name) if "sys" in self._objects else None
        if fd is None:
            return Map.create(MapType.ARRAY, name, 4, value_bytes, entries, bpf.MAP_MMAPABLE)
        return Map(os.dup(fd), 4, value_bytes, entries, MapType.ARRAY)

    def _load(self, name: str) -> None:
        try:
            self._objects[name] = load(name, self._object_dir)
            blind = name == "uring" and not tells_operations()
            self.reports[name] = ObjectReport(name, True, "", f"before Linux 6.0 {_COSTS[name]}" if blind else "")
        except LoadError as error:
            self.reports[name] = ObjectReport(name, False, error.message, _COSTS[name])

    def start(self, table: ProcessTable) -> None:
        """Attaches what is always needed, then fills the table with the processes that are there already.

        In this order, so that none falls between: a process born during the scan is seen by both, and is one.
        """
        for name in _ALWAYS:
            self._program(name).attach()
        if "counter" in self._objects:
            self._program("er_sys_enter").attach()
        # Before it is learned what threads' ids are: a call in between would be none.
        write_table(self._shapes, table_of(()))
        self._load("scan")
        if "scan" in self._objects:
            self._objects["scan"].share(self._maps)
            self._scan.start(self._objects["scan"], table)

    def _works_of_gates(self) -> Iterator[tuple[Map, int]]:
        """Yields where the programs of each object count what the gate does, and what lies there for each processor, in bytes."""
        for loaded in self._objects.values():
            fd = loaded.map_fd("er_gate_works")
            if fd is not None:
                size = value_size(fd) + 7 & ~7  # more than the gate's memory, which is its beginning
                yield Map(fd, 4, size * possible_cpus(), 1), size

    def _program(self, name: str) -> Program:
        return next(o.programs[name] for o in self._objects.values() if name in o.programs)

    def _find(self, name: str) -> Program | None:
        return next((o.programs[name] for o in self._objects.values() if name in o.programs), None)

    def want(
        self,
        codes: Iterable[int],
        content: int,
        numbers: Iterable[int] = (),
        from_armed: Iterable[int] = (),
        plan: GatePlan | None = None,
        followed: Iterable[int] = (),
        inline: InlinePlan | None = None,
        urgent: Iterable[int] = (),
        failed: bool = True,
    ) -> list[str]:
        """Attaches the hooks these events need and detaches the rest; returns what the kernel refused of it.

        content: which bytes are needed (`enum er_content`). numbers: the calls that are the event `syscall`. from_armed: those of
        the events that are recorded only in processes that `armed` has; exec, fork and exit always are, in all. plan: what the
        gate lets pass of them; None: everything. followed: of which of them it lets all pass, while there is room to spare.
        inline: by which rules the kernel kills. urgent: those of them whose records wake the ring's reader whatever it is doing.
        failed: whether execs that fail are wanted, too, where the gate is on.

        Raises ValueError, and changes nothing, where more events are one call than can be.
        """
        codes, numbers, from_armed = frozenset(codes), frozenset(numbers), frozenset(from_armed)
        table_of(codes, numbers, from_armed)
        self.wanted, self._content, self._numbers = frozenset(codes), int(content), frozenset(numbers)
        self._from_armed, self._followed = frozenset(from_armed), self.wanted.intersection(followed)
        self.urgent = self.wanted.intersection(urgent)
        self._unasked = frozenset() if failed or self.gate.mode != "on" else frozenset({_EXEC})
        refused = []
        need_syscalls = any("er_sys_exit" in hooks_of(event) for event in EVENTS if event.code in self.wanted)
        if "sys" in self._objects:
            refused += self._follow_syscalls(self._program("er_sys_exit"), need_syscalls)
        elif need_syscalls:
            refused.append(self.reports["sys"].refused)
        refused += self._rings.follow(
            any(call.uring for e in EVENTS if e.code in self.wanted for call in e.system_calls)
        )
        self.inline.load(inline or InlinePlan())
        self.gate.load(plan)  # last of what can fail: the gate takes its new table for the one in use from here on
        self._write_config()
        self.gate.loaded()
        return refused + self._others.want(self.wanted)

    def _follow_syscalls(self, program: Program, needed: bool) -> list[str]:
        if not needed:
            program.detach()
        elif not program.attached:
            try:
                program.attach()
            except LoadError as error:
                return [error.message]
            self._scan.renew_creds()
        return []

    def set_heartbeat_thread(self, tgid: int, tid: int) -> None:
        """Names the thread whose calls are liveness probes; 0, 0 for none."""
        self._heartbeat = (tgid, tid)
        self._write_config()

    def _write_config(self) -> None:
        resting = self.gate.resting - self._followed  # each of what somebody follows is looked at
        write_table(self._shapes, table_of(self.wanted - self._unasked, self._numbers, self._from_armed, resting))
        wanted, followed, urgent, waiting = (
            sum(1 << code for code in codes if code < FIRST_ADDED)
            for codes in (self.wanted, self._followed, self.urgent, resting)
        )
        self._config[:] = CONFIG.pack(
            wanted, self._content, *self._heartbeat, self.gate.value, followed, waiting, urgent, _now_ns()
        )

    def hide(self, pid: int, start_ns: int, *, children: bool = False) -> None:
        """Drops the events of one of ExecRay's own processes in the kernel. Raises OSError when there are too many."""
        flags = ER_SELF_FLAG["ER_SELF_DROP"] | (ER_SELF_FLAG["ER_SELF_INHERIT"] if children else 0)
        self._maps["er_self"].update(struct.pack("<I", pid), SELF.pack(start_ns, flags))
        self._own.mark(pid)

    def show(self, pid: int, start_ns: int) -> None:
        """Ends the hiding of a process; its events are events again."""
        key = struct.pack("<I", pid)
        value = self._maps["er_self"].lookup(key)
        if value is not None and SELF.unpack(value)[0] == start_ns:
            self._maps["er_self"].delete(key)

    def hidden(self) -> list[int]:
        """Returns the pids whose events are dropped now."""
        return self._own.pids()

    def sweep(self) -> None:
        """Takes away what ended processes, operations and windows have left: now and then, or it costs a look-up, and room."""
        now_ns = _now_ns()
        with self._config.cast("Q") as words:
            words[_LAPSED] = now_ns  # in one store, as programs read it
        for marks in (self._own, self.armed.filter):
            marks.sweep()
        self.gate.sweep()
        self._rings.sweep(now_ns)

    def counter(self, name: str) -> int:
        """Returns one of counters(). Raises OSError."""
        return self.counters()[name]

    def counters(self) -> dict[str, int]:
        """Returns `enum er_counter`, by names without ER_COUNT_: what all processors have counted. Raises OSError."""
        counts, each = memoryview(self._counts.lookup(_FIRST) or b"").cast("Q"), ER_COUNTER["ER_COUNT_MAX"]
        return {name.removeprefix("ER_COUNT_"): sum(counts[at::each]) for name, at in ER_COUNTER.items() if at < each}

    def gate_status(self, counters: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Returns what the gate does, and what it let pass and dropped. counters: those of now. Raises OSError."""
        raws = []
        for works, size in self._gate_works:
            raw = works.lookup(_FIRST) or b""
            raws += [raw[at : at + GATE_WORK_BYTES] for at in range(0, len(raw), size)]
        followed = sorted(EVENT_BY_CODE[code].name for code in self._followed)
        return {
            **self.gate.status(GateCounts.of(raws)),
            "followed": followed,
            "refused": (counters or self.counters())["REFUSED"],
        }

    def tables(self) -> dict[str, dict[str, int]]:
        """Returns of everything in the kernel that can be full how much is `used`, about, of `max`. Raises OSError."""
        hashes = {name: table for name, table in self._maps.items() if table.kind is MapType.HASH}
        used = {name: {"used": table.count(), "max": table.max_entries} for name, table in hashes.items()}
        return used | self.gate.tables()

    def misses(self) -> dict[str, int]:
        """Returns by program how often the kernel skipped it because it ran already on that CPU.

        Where that was the hook of new threads the gate is told, before the loss is: it goes by them.
        """
        ours = {p.name: p.info().recursion_misses for o in self._objects.values() for p in o.programs.values()}
        if ours.get("er_fork"):
            self.gate.miss_threads()
        return dict(Counter(ours) + Counter(self._others.misses()))  # without those that it never skipped

    def hooks(self) -> dict[str, dict[str, Any]]:
        """Returns for each event whether it is needed, and whether its programs are attached or were refused."""
        programs = {p.name: p for o in self._objects.values() for p in o.programs.values()}
        out: dict[str, dict[str, Any]] = {}
        for event in EVENTS:
            if event.handler:
                out[event.name] = self._others.hook(event, self.wanted)
                continue
            # exec is followed in any case, for the table of processes; failed calls only where they are wanted
            names = [n for n in hooks_of(event) if n in _ALWAYS or event.code in self.wanted]
            mine = [programs.get(name) for name in names]
            refused = [p.refused for p in mine if p is not None and p.refused]
            refused += [self.reports["sys"].refused] if None in mine else []
            needed = bool(names)
            attached = needed and all(p is not None and p.attached for p in mine)
            out[event.name] = {"needed": needed, "attached": attached, "refused": "; ".join(refused)}
        return out

    def signs(self) -> dict[str, frozenset[int]]:
        """Returns for each attached program the events that show it is alive; those that it alone gives, where there are any."""
        out: dict[str, frozenset[int]] = {}
        for program in (p for o in self._objects.values() for p in o.programs.values() if p.attached):
            mine = [e for e in EVENTS if program.name in hooks_of(e)]
            mine = [e for e in mine if program.name in _ALWAYS or e.code in self.wanted]
            alone = [e for e in mine if len(hooks_of(e)) == 1]
            if mine:
                out[program.name] = frozenset(e.code for e in alone or mine)
        return out

    def doctor(self) -> list[dict[str, Any]]:
        """Returns a report on each object and its programs."""
        out = []
        for report in self.reports.values():
            loaded = self._objects.get(report.name)
            out.append(
                {
                    "object": f"{report.name}.bpf.o",
                    "loaded": report.loaded,
                    "refused": report.refused,
                    "cost": report.cost,
                    "programs": loaded.report() if loaded else [],
                }
            )
        return [*out, *self._others.doctor()]

    def close(self) -> None:
        """Detaches and unloads everything."""
        for loaded in self._objects.values():
            loaded.close()
        self._objects.clear()
        self._others.close()
        self.ring.close()
        self._config.release()
        self._shapes.close()
        self.inline.close()
        for made in self._maps.values():
            made.close()
        self.gate.close()


def hooks_of(event: EventType) -> tuple[str, ...]:
    """Returns which of our programs an event needs; none for one that a package has an object for."""
    return () if event.handler else _HOOKS.get(event.name, ("er_sys_exit",))


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def own_identity() -> dict[str, Any]:
    """Returns what tracerd's hello says: a stream id that no other run has."""
    return {
        "boot_id": boot_id(),
        "stream_id": f"{os.getpid()}-{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}",
        "pid": os.getpid(),
        "extensions": digests(),
    }
