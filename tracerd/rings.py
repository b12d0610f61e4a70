"""What is done through io_uring: its hooks, and the names that are kept from an operation's submission to its completion."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from execray.schema.layout import RING_KEY, RING_NAME, RingName
from tracerd.bpf import Map, MapType
from tracerd.loader import LoadError, Program

MAX_NAMES: Final = 1024
#: After so long nobody comes for a name any more: its request was called off, or waits for something that isn't meant to come.
KEPT_NS: Final = 60 * 1_000_000_000


def tells_operations() -> bool:
    """Returns whether the tracepoint says which operation of an io_uring it was: since Linux 6.0."""
    return int(os.uname().release.split(".")[0]) >= 6


class Rings:
    """Follows the operations of io_urings: `program` returns one of ours by its name, None where its object wasn't loaded."""

    def __init__(self, program: Callable[[str], Program | None]) -> None:
        """Makes the map of names. Raises OSError."""
        self.map = Map.create(MapType.HASH, "er_ring_names", RING_KEY.size, RING_NAME.size, MAX_NAMES)
        self._program = program

    def follow(self, needed: bool) -> list[str]:
        """Attaches the hooks or detaches them; returns what the kernel refused.

        Without that of submissions the events have no names, without that of completions there are none.
        """
        completed = self._program("er_uring")
        if completed is None or not tells_operations():
            return []
        # the tracepoint was renamed in Linux 6.4; a kernel has one of the two
        submitted = [p for name in ("er_submit_req", "er_submit_sqe") if (p := self._program(name)) is not None]
        # where a ring has no room for a completion, that is told of by another tracepoint
        full = self._program("er_uring_full")
        completions = (completed,) if full is None else (completed, full)
        if not needed:
            for program in (*completions, *submitted):
                program.detach()
            self.sweep(None)
            return []
        refused = []
        try:
            if submitted and not any(program.attached for program in submitted):
                _attach_one(submitted)
        except LoadError as error:
            refused.append(error.message)
        for program in completions:
            try:
                program.attach()
            except LoadError as error:
                refused.append(error.message)
        return refused

    def sweep(self, now_ns: int | None) -> None:
        """Takes away names that nobody came for; all of them where now_ns (CLOCK_BOOTTIME) is None. Raises OSError."""
        for key in list(self.map.keys()):
            value = self.map.lookup(key)
            if value is None or (
                now_ns is not None and now_ns - RingName._make(RING_NAME.unpack(value)).time_ns < KEPT_NS
            ):
                continue
            self.map.delete(key)


def _attach_one(programs: list[Program]) -> None:
    """Attaches the first that the kernel has a tracepoint for. Raises LoadError where it has none."""
    for program in programs:
        try:
            program.attach()
        except LoadError:
            if program is programs[-1]:
                raise
        else:
            for other in programs:
                other.refused = ""
            return
