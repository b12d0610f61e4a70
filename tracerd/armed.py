"""Which processes calls are wanted from, and not: the maps by pid that the kernel asks for each such call, and their filters.

Armed processes are those from which events are wanted that are wanted from no other. A call of any other process must cost next
to nothing, so before the map, which is exact, the kernel looks at a filter: a mark for each slot that a pid may have. Whoever
puts a process into a map marks its slot after that; what ends is taken out by the kernel, and leaves its mark behind until
sweep(). ExecRay's own processes have a filter of the same kind.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from execray.schema.layout import CONFIG, ER_PID_MARK, ER_PID_SLOTS
from tracerd.bpf import Map
from tracerd.shapes import TABLE_BYTES

MAX_ARMED: Final = 8192  # ER_ARMED_MAX
KEY_BYTES: Final = 4
VALUE_BYTES: Final = 8
#: Behind the table of shapes (struct er_shapes): the filter of armed processes, that of our own, and what else hooks ask.
_ONE_BYTES: Final = 2 * ER_PID_SLOTS
ARMED_AT: Final = TABLE_BYTES
SELF_AT: Final = ARMED_AT + _ONE_BYTES
CONFIG_AT: Final = SELF_AT + _ONE_BYTES
SHAPES_BYTES: Final = CONFIG_AT + CONFIG.size
_MARK: Final = struct.pack("<H", ER_PID_MARK)


class PidFilter:
    """The filter before one map. `view`: the mapping that has it, from `at` on; it stays its owner's, as the map does."""

    def __init__(self, pids: Map, view: mmap.mmap, at: int) -> None:
        self._map = pids
        self._view = view
        self._at = at

    def pids(self) -> list[int]:
        """Returns which processes the map has."""
        return sorted(struct.unpack("<I", key)[0] for key in list(self._map.keys()))

    def mark(self, pid: int) -> None:
        """Marks the slot of a process that the map has got."""
        at = self._slot(pid)
        self._view[at : at + 2] = _MARK

    def sweep(self) -> None:
        """Makes the filter anew, one half after the other: the other is whole meanwhile, and the kernel takes either's word.

        Whoever comes meanwhile, from here or in the kernel, is in the map before it marks both halves, so each has it afterwards.
        """
        for half in (0, 1):
            self._view[self._at + half : self._at + _ONE_BYTES : 2] = bytes(ER_PID_SLOTS)
            for pid in self.pids():
                self._view[self._slot(pid) + half] = 1

    def _slot(self, pid: int) -> int:
        return self._at + 2 * (pid % ER_PID_SLOTS)


class ArmedProcesses:
    """Who is armed. `shapes`: the mapping of er_shapes."""

    def __init__(self, armed: Map, shapes: mmap.mmap) -> None:
        self._armed = armed
        self.filter = PidFilter(armed, shapes, ARMED_AT)

    def arm(self, pid: int, start_ns: int) -> None:
        """Arms a process until it ends, through every exec. Raises OSError: E2BIG where MAX_ARMED are armed already."""
        self._armed.update(struct.pack("<I", pid), struct.pack("<Q", start_ns))
        self.filter.mark(pid)

    def disarm(self, pid: int, start_ns: int) -> None:
        """Ends that. Raises OSError."""
        key = struct.pack("<I", pid)
        value = self._armed.lookup(key)
        if value is not None and struct.unpack("<Q", value)[0] == start_ns:
            self._armed.delete(key)
