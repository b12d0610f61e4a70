"""The gate's plan: what the kernel compares events with before it sends them. policyd makes it, tracerd puts it into maps.

A bit is one way in which an event of one code may meet a step. A row is a set of bits. Every test is one that the event must
pass for the bit to be possible; what is left after all tests are the bits that the event may meet, and with none it is dropped.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MAX_BITS: Final = 4096
WORD_BITS: Final = 64
MAX_WORDS: Final = MAX_BITS // WORD_BITS
MAX_ROWS: Final = 4096
MAX_KEYS: Final = 8192
MAX_CODES: Final = 64
MAX_NUMBERS: Final = 6  # tests of numbers, for one code
MAX_BOUNDS: Final = 16  # of one of them
MAX_MASKS: Final = 8
MAX_SUFFIXES: Final = 8  # different lengths
#: What has begun is kept by slots: those from 1 for each process by itself, those above CELL_SLOTS for the host.
MAX_SLOTS: Final = 512
CELL_SLOTS: Final = 64
#: Slots that all bits of one code wait for are asked by themselves up to so many, and else all of their kind together.
MAX_WAITS: Final = 3
#: Of the bits of one word that wait, so many are looked at; with more the event passes.
MAX_LOOKS: Final = 8

#: The rows that every plan begins with.
ROW_NONE: Final = 0
ROW_ALL: Final = 1
ALL_BITS: Final = (1 << MAX_BITS) - 1


class Input(enum.IntEnum):
    """A number that the kernel has of an event. An event without it, or whose number is not known, passes the test."""

    RET = 1  # of every event, as the decoder tells it: -4 for the kernel's own -512 to -516
    UID = 2  # of the acting thread
    EUID = 3
    FLAGS = 4  # of open, as passed
    MODE = 5  # of open, as passed; of chmod
    FAMILY = 6  # of sockets; unknown where nothing is told of one
    PORT = 7  # the destination's of connect and sendto, where the family has ports
    REQUEST = 8  # ptrace: the request; kill: the signal
    NEW_UID = 9  # of setuid
    NEW_EUID = 10
    CREATED = 11  # of open: 1 where the call made the file, else 0
    DST_IP = 12  # of sockets: where an address stands (execray.gate.addresses)
    SRC_IP = 13
    OLD_UID = 16  # of setuid; 14 and 15 are the kernel's own
    OLD_EUID = 17


#: Those of which some numbers stand for several values.
ADDRESSES: Final = frozenset({Input.DST_IP, Input.SRC_IP})


class NumberKind(enum.IntEnum):
    """How a number chooses rows."""

    RANGES = 1  # the row at `rows + how many bounds are <= the number`; numbers are signed, 64 bits
    BITS = 2  # for each mask, the row at `rows + 2 * its index + (1 if the number has a bit of the mask else 0)`


@dataclass(frozen=True, slots=True)
class NumberTest:
    """A test of one number of an event: bounds, or masks, and the first of its rows, which lie one after the other."""

    input: Input
    kind: NumberKind
    bounds: tuple[int, ...]
    rows: int

    @property
    def row_count(self) -> int:
        """How many rows it has."""
        return len(self.bounds) + 1 if self.kind is NumberKind.RANGES else 2 * len(self.bounds)


@dataclass(frozen=True, slots=True)
class CodeTest:
    """What is tested of the events of one code. Rows are given by their numbers.

    first_word, end_word: where its bits lie. path_free: the bits that ask for none of the keys of a path; path_nameless: that a
    pipe or socket may meet; path_missing: that an event without a file may meet, and are among both; comm_free: that ask nothing
    of the thread's name. Where a path is not known, all bits are possible.
    """

    code: int
    first_word: int
    end_word: int
    all: int
    path_free: int
    path_nameless: int
    path_missing: int
    comm_free: int
    numbers: tuple[NumberTest, ...] = ()


@dataclass(frozen=True, slots=True)
class GatePlan:
    """A plan. Codes that are neither open nor tested can meet nothing: their events are dropped.

    rows: sets of bits as numbers. keys: hash (execray.gate.hashes) to the row of the bits that ask for it. named: the row of the
    bits that ask for a file which a policy means by one of its paths, whatever leads to it (`file.names`): tracerd knows which
    files that are, and by which of the paths, and lets those of these bits be possible for each that its key has (`named_row`).
    first: the row of the bits that are always awaited. slots: of bits,
    none where one has no place here: a bit of `first` begins its slot; another is awaited only while its slot has begun.
    windows: of each such slot, for how long it counts as begun after the last time, in ns; None: without end.
    """

    codes: tuple[CodeTest, ...] = ()
    open_codes: frozenset[int] = frozenset()
    rows: tuple[int, ...] = (0, ALL_BITS)
    keys: Mapping[int, int] = field(default_factory=dict)
    suffixes: tuple[int, ...] = ()  # lengths that are looked at
    first: int = ROW_ALL
    named: int = ROW_NONE
    slots: Mapping[int, int] = field(default_factory=dict)  # bit -> slot
    windows: Mapping[int, int | None] = field(default_factory=dict)  # slot -> ns
