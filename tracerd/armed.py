"""Armed processes: those from which events are wanted that are wanted from no other. The kernel asks for each such call.

A call of any other process must cost next to nothing, so before the map, which is exact, the kernel looks at a filter: a byte for
each slot that a pid may have. Whoever arms a process puts it into the map first, and then marks its slot; what ends is taken
out of the map by the kernel, and leaves its mark behind until sweep().
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from execray.schema.layout import ER_ARMED_SLOTS
from tracerd.bpf import Map
from tracerd.shapes import TABLE_BYTES

MAX_ARMED: Final = 8192  # ER_ARMED_MAX
KEY_BYTES: Final = 4
VALUE_BYTES: Final = 8
FILTER_BYTES: Final = 2 * ER_ARMED_SLOTS
#: Marks that are left behind at most: one slot in eight, or so many of other processes' calls cost a look-up.
_SWEEP_AFTER: Final = ER_ARMED_SLOTS // 8


class ArmedProcesses:
    """Who is armed. `shapes`: the mapping of er_shapes, which has the filter behind its table; it stays its owner's."""

    def __init__(self, armed: Map, shapes: mmap.mmap) -> None:
        self._armed = armed
        self._shapes = shapes
        self._marks = 0

    def arm(self, pid: int, start_ns: int) -> None:
        """Arms a process until it ends, through every exec. Raises OSError: E2BIG where MAX_ARMED are armed already."""
        self._armed.update(struct.pack("<I", pid), struct.pack("<Q", start_ns))
        self._mark(pid, 0)
        self._mark(pid, 1)
        self._marks += 1
        if self._marks >= _SWEEP_AFTER:
            self.sweep()

    def disarm(self, pid: int, start_ns: int) -> None:
        """Ends that. Raises OSError."""
        key = struct.pack("<I", pid)
        value = self._armed.lookup(key)
        if value is not None and struct.unpack("<Q", value)[0] == start_ns:
            self._armed.delete(key)

    def pids(self) -> list[int]:
        """Returns who is armed."""
        return sorted(struct.unpack("<I", key)[0] for key in list(self._armed.keys()))

    def sweep(self) -> None:
        """Makes the filter anew, one half after the other: the other is whole meanwhile, and the kernel takes either's word.

        Whoever is armed meanwhile, here or in the kernel, is in the map before it marks both halves, so each has it afterwards.
        """
        for half in (0, 1):
            self._shapes[TABLE_BYTES + half : TABLE_BYTES + FILTER_BYTES : 2] = bytes(ER_ARMED_SLOTS)
            for pid in self.pids():
                self._mark(pid, half)
        self._marks = 0

    def _mark(self, pid: int, half: int) -> None:
        self._shapes[TABLE_BYTES + 2 * (pid % ER_ARMED_SLOTS) + half] = 1
