"""The rules as bytes: what tracerd, as root, takes from policyd, and what it refuses."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.errors import PeerError
from execray.gate.inline import (
    MAX_INLINE_BYTES,
    InlinePlan,
    InlinePolicy,
    NumberKind,
    NumberTest,
    Part,
    Rule,
    TextTest,
    decode_inline,
    encode_inline,
)
from execray.gate.plan import Input
from execray.schema.catalog import EVENT_BY_NAME

PLAN = InlinePlan(
    (InlinePolicy(7, 2, 5_000_000_000),),
    (
        Rule(0, 0, 4, (), (TextTest(Part.EXACT, b"/a"), TextTest(Part.COMM, b"x" * 15, negate=True))),
        Rule(
            0, 1, 7, (NumberTest(Input.PORT, NumberKind.RANGE, -5, 5), NumberTest(Input.UID, NumberKind.SAME, 3, 1)), ()
        ),
    ),
)


def test_rules_come_over_as_they_are() -> None:
    assert decode_inline(encode_inline(PLAN)) == PLAN
    assert decode_inline(encode_inline(InlinePlan())) == InlinePlan()


def body() -> list[Any]:
    found: list[Any] = msgpack.unpackb(encode_inline(PLAN), raw=False)
    return found


CHANGES: dict[str, tuple[tuple[int, ...], Any]] = {
    "another format": ((0,), 2),
    "a tag of more than 32 bits": ((1, 0, 0), 1 << 32),
    "no steps": ((1, 0, 1), 0),
    "too many steps": ((1, 0, 1), 5),
    "a window of no sign": ((1, 0, 2), -1),
    "no rules": ((2,), []),
    "too many rules": ((2,), [[0, 0, 4, [], [[1, b"/a", False]]]] * 257),
    "a policy that isn't there": ((2, 0, 0), 1),
    "a step that isn't there": ((2, 0, 1), 2),
    "a code that isn't there": ((2, 0, 2), 64),
    "no code": ((2, 0, 2), 0),
    "no tests": ((2, 0, 4), []),
    "only a test that all numbers meet": ((2, 1, 3), [[7, 1, -(1 << 63), (1 << 63) - 1, False], [7, 2, 0, 0, False]]),
    "an exec": ((2, 0, 2), EVENT_BY_NAME["exec"].code),
    "a change of credentials": ((2, 0, 2), EVENT_BY_NAME["cred_change"].code),
    "too many numbers": ((2, 1, 3), [[7, 1, 0, 0, False]] * 7),
    "too many texts": ((2, 0, 4), [[1, b"/a", False]] * 5),
    "a number that isn't there": ((2, 1, 3, 0, 0), 31),
    "a kind that isn't there": ((2, 1, 3, 0, 1), 3),
    "a bound of more than 64 bits": ((2, 1, 3, 0, 3), 1 << 63),
    "a mask of no sign": ((2, 1, 3, 1, 2), -1),
    "a truth that is a number": ((2, 1, 3, 0, 4), 1),
    "a part that isn't there": ((2, 0, 4, 0, 0), 5),
    "no text": ((2, 0, 4, 0, 1), b""),
    "a text that is too long": ((2, 0, 4, 0, 1), b"/" * 129),
    "a name that is too long": ((2, 0, 4, 1, 1), b"x" * 16),
    "a NUL in a text": ((2, 0, 4, 0, 1), b"/\0"),
    "text of another kind": ((2, 0, 4, 0, 1), "/a"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_rules_that_no_policyd_makes_are_refused(what: str) -> None:
    found = body()
    (*way, last), value = CHANGES[what]
    at = found
    for step in way:
        at = at[step]
    at[last] = value
    with pytest.raises(PeerError):
        decode_inline(msgpack.packb(found, use_bin_type=True))


@settings(deadline=None)  # a busy machine
@given(st.binary(min_size=1, max_size=64))
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(PeerError):
        decode_inline(raw)


def test_more_than_a_frame_should_hold_is_neither_made_nor_taken() -> None:
    with pytest.raises(PeerError, match="are over"):
        decode_inline(bytes(MAX_INLINE_BYTES + 1))
