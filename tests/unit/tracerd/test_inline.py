"""tracerd/inline.py: rules as the kernel's table, the budget, and who is spared."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

import pytest

from execray.config import Config, EnforcerConfig
from execray.errors import OperatorError
from execray.gate.inline import InlinePlan, InlinePolicy, NumberKind, NumberTest, Part, Rule, TextTest
from execray.gate.plan import Input
from execray.guard import BUDGET_WINDOW_NS
from execray.schema.layout import ER_INLINE_HOST, INLINE_NUMBER, INLINE_PLAN_AT, INLINE_RULE, INLINE_TEXT
from tracerd.bpf import Map
from tracerd.inline import Limits, Tokens, table_of


class FakeMap:
    """A hash map of the kernel's."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}

    def update(self, key: bytes, value: bytes) -> None:
        self.held[key] = value

    def lookup(self, key: bytes) -> bytes | None:
        return self.held.get(key)

    def take(self, slot: int, count: int) -> int:
        """What the kernel does: returns how many it got."""
        mine = [key for key in self.held if struct.unpack("<I", key)[0] >> 16 == slot]
        for key in mine[:count]:
            del self.held[key]
        return len(mine[:count])


@pytest.fixture
def taken() -> Iterator[FakeMap]:
    yield FakeMap()


def test_rules_lie_by_event_and_of_each_the_later_steps_first() -> None:
    text = TextTest(Part.ENDS, b"/b", negate=True)
    number = NumberTest(Input.RET, NumberKind.RANGE, -1, 5, negate=True)
    rules = (Rule(0, 0, 7, (number,)), Rule(1, 0, 4, (), (text,)), Rule(0, 1, 7, (number, number), (text,)))
    table = table_of(InlinePlan((InlinePolicy(9, 2, 77), InlinePolicy(8, 1)), rules), 3)
    member = {name: table[at : at + size] for name, (at, size) in INLINE_PLAN_AT.items()}
    first, end = (struct.unpack("<64H", member[name]) for name in ("first", "end"))
    assert (first[4], end[4], first[7], end[7]) == (0, 1, 1, 3)
    assert all(first[code] == end[code] for code in range(64) if code not in (4, 7))
    stored = [INLINE_RULE.unpack_from(member["rule"], at * INLINE_RULE.size) for at in range(3)]
    assert [rule[:7] for rule in stored] == [(8, 1, 0, 1, 0, 0, 1), (9, 0, 1, 2, 77, 2, 1), (9, 0, 0, 2, 77, 1, 0)]
    assert INLINE_NUMBER.unpack_from(stored[1][7])[:5] == (Input.RET, 1, 1, (1 << 64) - 1, 5)
    part, negate, length, raw = INLINE_TEXT.unpack_from(stored[1][8])
    assert (part, negate, length, raw.rstrip(b"\0")) == (Part.ENDS, 1, 2, b"/b")


def test_what_was_taken_comes_back_after_a_minute_and_not_before(taken: FakeMap) -> None:
    now = 0
    tokens = Tokens(cast(Map, taken), Limits(3, 2, frozenset(), frozenset()), lambda: now)
    tokens.policies(2)
    assert (taken.take(ER_INLINE_HOST, 9), taken.take(0, 9), taken.take(1, 9), taken.take(2, 9)) == (3, 2, 2, 0)
    tokens.refill()
    now = BUDGET_WINDOW_NS - 1
    tokens.refill()
    assert not taken.held
    now += 1
    tokens.refill()
    assert (taken.take(ER_INLINE_HOST, 9), taken.take(0, 9), taken.take(1, 9)) == (3, 2, 2)


def test_a_policy_in_anothers_place_has_what_that_one_left(taken: FakeMap) -> None:
    tokens = Tokens(cast(Map, taken), Limits(30, 10, frozenset(), frozenset()))
    tokens.policies(1)
    assert taken.take(0, 4) == 4
    tokens.policies(1)
    assert taken.take(0, 9) == 6


def test_limits_are_those_of_all_kills() -> None:
    config = Config(
        protect_exe=("/usr/sbin/sshd", ""), protect_comm=("init", ""), enforcer=EnforcerConfig(kills_per_minute=5)
    )
    limits = Limits.of(config)
    assert (limits.per_minute, limits.per_policy) == (5, 10)
    assert limits.exes == {b"sshd"} and limits.comms == {b"sshd", b"init"}


def test_names_are_cut_as_the_kernel_cuts_those_of_threads() -> None:
    config = Config(protect_exe=("/usr/lib/a-program-of-many-letters",), protect_comm=("a-thread-of-many-letters",))
    limits = Limits.of(config)
    assert limits.exes == {b"a-program-of-many-letters"}
    assert limits.comms == {b"a-program-of-ma", b"a-thread-of-man"}


def test_more_names_than_the_kernel_can_spare_are_an_error() -> None:
    with pytest.raises(OperatorError, match="the most that the kernel can spare"):
        Limits.of(Config(protect_comm=tuple(f"c{number}" for number in range(1024))))
