"""The files that policies mean whatever leads to them, as the gate knows them: by their identity."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable
from typing import Final

from execray.gate.plan import GatePlan
from execray.gate.verdict import named_row
from execray.schema.layout import (
    ER_GATE_FILE_ROW,
    ER_GATE_FILES,
    ER_GATE_HALVES,
    GATE_FILE,
)
from tracerd.bpf import Map, MapType
from tracerd.names import Names

#: The value of er_gate_files.
_ROWS: Final = struct.Struct(f"<{ER_GATE_HALVES}H")


class GateFiles:
    """The files that policies mean whatever leads to them. Their events pass by the table of names that the decoder has."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.map = Map.create(MapType.HASH, "er_gate_files", GATE_FILE.size, 4, ER_GATE_FILES)
        self._known: dict[bytes, tuple[bytes, ...]] = {}  # what each file is meant by
        self._plans: list[GatePlan | None] = [None] * ER_GATE_HALVES
        self._closed = False
        self._writing = threading.Lock()

    def close(self) -> None:
        """Gives the memory back. What is published later goes nowhere."""
        with self._writing:
            self._closed = True
            self.map.close()

    def expect(self, plan: GatePlan, half: int) -> None:
        """Says for each file which bits of a plan ask for it. To be called before the kernel reads the plan. Raises OSError."""
        with self._writing:
            plans = self._plans.copy()
            plans[half - 1] = plan
            for key, names in self._known.items():
                # also what seems to be there: an error may have come between
                self.map.update(key, _value(plans, names))
            self._plans = plans

    def publish(self, names: Names, take: Callable[[Names], None]) -> None:
        """Hands names on to who matches by them, and in such an order that the kernel drops none of their files meanwhile.

        A file that the kernel can't be told of has no name. To be called by one thread. Raises OSError.
        """
        with self._writing:
            if not self._closed:
                self._publish(names, take)

    def _publish(self, names: Names, take: Callable[[Names], None]) -> None:
        keys = {_file_key(ident): ident for ident in names if ident is not None}
        refused = {
            keys[key] for key in sorted(keys.keys() - self._known.keys()) if not self._add(key, names[keys[key]])
        }
        found = {key: names[ident] for key, ident in keys.items() if ident not in refused}
        changed = [key for key, of in found.items() if self._known.get(key, of) != of]
        for key in changed:
            self.map.update(key, bytes(_ROWS.size))  # all bits, until nobody matches by the old names
        take({ident: of for ident, of in names.items() if ident not in refused})
        for key in changed:
            self.map.update(key, _value(self._plans, found[key]))
        for key in self._known.keys() - found.keys():
            self.map.delete(key)
        self._known = found

    def _add(self, key: bytes, names: tuple[bytes, ...]) -> bool:
        try:
            self.map.update(key, _value(self._plans, names))
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.ENOMEM):
                raise
            return False
        return True


def _value(plans: list[GatePlan | None], names: tuple[bytes, ...]) -> bytes:
    return _ROWS.pack(*(0 if plan is None else ER_GATE_FILE_ROW | named_row(plan, names) for plan in plans))


def _file_key(ident: bytes) -> bytes:
    major, minor, ino, generation = map(int, ident.split(b":"))
    return GATE_FILE.pack(ino, major << 20 | minor, generation)
