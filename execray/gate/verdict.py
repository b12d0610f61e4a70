"""The gate's verdict, in Python: what bpf/include/execray/gate.h computes, step by step, from the plan alone."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from execray.gate.hashes import MAX_DEPTH, comm_key, components, exact_key, path_keys
from execray.gate.plan import (
    ALL_BITS,
    MAX_WORDS,
    ROW_NONE,
    WORD_BITS,
    CodeTest,
    GatePlan,
    Input,
    NumberKind,
    NumberTest,
)

#: Of a call that has failed, the result is minus one of these at most.
MAX_ERRNO: Final = 4095


class PathState(enum.Enum):
    """What is known of an event's path."""

    UNKNOWN = "unknown"  # cut, torn, detached, deeper than MAX_DEPTH, of no kind that is looked at
    MISSING = "missing"  # there is no file
    NAMELESS = "nameless"  # a pipe or a socket, called `pipe:[N]` or `socket:[N]`
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the kernel has of one event. path: absolute, where it is known. numbers: those that are known.

    names: the paths by which policies mean the file, whatever leads to it.
    """

    code: int
    state: PathState = PathState.UNKNOWN
    path: bytes = b""
    comm: bytes | None = None
    numbers: Mapping[Input, int] = field(default_factory=dict)
    names: tuple[bytes, ...] = ()


def candidates(plan: GatePlan, facts: Facts) -> int | None:
    """Returns the bits that an event may meet, whatever is awaited; None where its code is open, so that it passes anyway."""
    return None if facts.code in plan.open_codes else possible(plan, facts)


def possible(plan: GatePlan, facts: Facts) -> int:
    """Returns the bits that an event may meet, also of an open code: what begins with such must be known."""
    test = next((test for test in plan.codes if test.code == facts.code), None)
    if test is None:
        return 0
    found = plan.rows[test.all] & words(test) & _path(plan, test, facts) & _comm(plan, test, facts)
    for number in test.numbers:
        value = facts.numbers.get(number.input)
        if value is not None:
            for row in rows_of(number, value):
                found &= plan.rows[row]
    return found


def named_row(plan: GatePlan, names: tuple[bytes, ...]) -> int:
    """Returns the row of the bits that ask for a file which policies mean by these paths; that of all such where none fits."""
    if not names:
        return ROW_NONE
    rows = [plan.keys.get(exact_key(name)) for name in names]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows):
        return plan.named
    if len(known) == 1:
        return known[0]
    bits = 0
    for row in known:
        bits |= plan.rows[row]
    return next((row for row in known if plan.rows[row] == bits), plan.named)


def failed_bits(plan: GatePlan, test: CodeTest) -> int:
    """Returns the bits that a failed call may meet, whatever else is known of it."""
    mine = plan.rows[test.all] & words(test)
    for number in test.numbers:
        if number.input is Input.RET and number.kind is NumberKind.RANGES:
            rows = {
                next(rows_of(number, value)) for value in (-MAX_ERRNO, *number.bounds, -1) if -MAX_ERRNO <= value < 0
            }
            return functools.reduce(int.__or__, (mine & plan.rows[row] for row in rows), 0)
    return mine


def words(test: CodeTest) -> int:
    """Returns the bits that lie in a code's words."""
    return (
        (ALL_BITS >> (MAX_WORDS - test.end_word) * WORD_BITS)
        >> test.first_word * WORD_BITS
        << (test.first_word * WORD_BITS)
    )


def rows_of(test: NumberTest, value: int) -> Iterator[int]:
    """Yields the numbers of the rows that a value leaves possible, all of them."""
    if test.kind is NumberKind.RANGES:
        yield test.rows + sum(bound <= value for bound in test.bounds)
    else:
        for at, mask in enumerate(test.bounds):
            yield test.rows + 2 * at + (value & mask != 0)


def _path(plan: GatePlan, test: CodeTest, facts: Facts) -> int:
    named = plan.rows[named_row(plan, facts.names)]
    match facts.state:
        case PathState.UNKNOWN:
            return ALL_BITS
        case PathState.MISSING:
            return named | plan.rows[test.path_missing]
        case PathState.NAMELESS:
            return named | plan.rows[test.path_nameless]
        case PathState.KNOWN:
            if len(components(facts.path)) > MAX_DEPTH:
                return ALL_BITS
    found = named | plan.rows[test.path_free]
    for key in path_keys(facts.path, plan.suffixes):
        found |= plan.rows[plan.keys.get(key, 0)]
    return found


def _comm(plan: GatePlan, test: CodeTest, facts: Facts) -> int:
    if facts.comm is None:
        return ALL_BITS
    return plan.rows[test.comm_free] | plan.rows[plan.keys.get(comm_key(facts.comm), 0)]
