"""Rules by which the kernel itself kills: as objects, and as the bytes in which policyd sends them to tracerd.

A rule is one way to meet one step of a policy, and says all of it: who meets the rule meets the step. That is the opposite of
the gate's plan, whose tests are only necessary. What a rule can't say for sure belongs to user space.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from execray.errors import PeerError
from execray.gate.plan import Input
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import (
    ER_INLINE_CODES,
    ER_INLINE_KIND,
    ER_INLINE_NUMBERS,
    ER_INLINE_PART,
    ER_INLINE_POLICIES,
    ER_INLINE_RULES,
    ER_INLINE_SLACK_NS,
    ER_INLINE_STEPS,
    ER_INLINE_TEXT,
    ER_INLINE_TEXTS,
)

MAX_RULES: Final = ER_INLINE_RULES
MAX_NUMBERS: Final = ER_INLINE_NUMBERS
MAX_TEXTS: Final = ER_INLINE_TEXTS
MAX_TEXT_BYTES: Final = ER_INLINE_TEXT
MAX_POLICIES: Final = ER_INLINE_POLICIES
MAX_STEPS: Final = ER_INLINE_STEPS
#: So long before the end of a sequence's window its last step is left to user space.
SLACK_NS: Final = ER_INLINE_SLACK_NS
COMM_BYTES: Final = 16
MAX_INLINE_BYTES: Final = 256 * 1024
FORMAT: Final = 1

#: Events that the kernel tells before it could judge them, or that a process has no hand in.
_NEVER: Final = frozenset(EVENT_BY_NAME[name].code for name in ("exec", "fork", "exit", "cred_change"))
_I63: Final = 1 << 63
_U64: Final = 1 << 64
_U32: Final = 1 << 32


class NumberKind(enum.IntEnum):
    """How a number is tested."""

    RANGE = ER_INLINE_KIND["ER_INLINE_RANGE"]  # low <= it <= high, signed
    SAME = ER_INLINE_KIND["ER_INLINE_SAME"]  # it & low == high


class Part(enum.IntEnum):
    """What is tested of a text."""

    EXACT = ER_INLINE_PART["ER_INLINE_EXACT"]  # the path
    STARTS = ER_INLINE_PART["ER_INLINE_STARTS"]  # its beginning
    ENDS = ER_INLINE_PART["ER_INLINE_ENDS"]
    COMM = ER_INLINE_PART["ER_INLINE_COMM"]  # the thread's name


@dataclass(frozen=True, slots=True)
class NumberTest:
    """A test that is false where the number isn't known, negated or not."""

    input: Input
    kind: NumberKind
    low: int
    high: int
    negate: bool = False


@dataclass(frozen=True, slots=True)
class TextTest:
    """A test that is false where the path isn't known, negated or not."""

    part: Part
    text: bytes
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """All tests must hold. slot: the policy's place in InlinePlan.policies; step: from 0; code: of the event."""

    slot: int
    step: int
    code: int
    numbers: tuple[NumberTest, ...] = ()
    texts: tuple[TextTest, ...] = ()


@dataclass(frozen=True, slots=True)
class InlinePolicy:
    """One policy. tag: what the record of a kill says. within_ns: from its first step to its last; 0 where it has one."""

    tag: int
    steps: int
    within_ns: int = 0


@dataclass(frozen=True, slots=True)
class InlinePlan:
    """All policies that may kill in the kernel, and their rules."""

    policies: tuple[InlinePolicy, ...] = ()
    rules: tuple[Rule, ...] = ()


def tag_of(policy_hash: str) -> int:
    """Returns by what a record names the policy that killed: the first 32 bits of its hash."""
    return int(policy_hash[:8], 16)


def encode_inline(plan: InlinePlan) -> bytes:
    """Returns the plan's bytes; none for one without rules. Raises ValueError where they are more than MAX_INLINE_BYTES."""
    if not plan.rules:
        return b""
    body = [
        FORMAT,
        [[policy.tag, policy.steps, policy.within_ns] for policy in plan.policies],
        [
            [
                rule.slot,
                rule.step,
                rule.code,
                [[test.input, test.kind, test.low, test.high, test.negate] for test in rule.numbers],
                [[test.part, test.text, test.negate] for test in rule.texts],
            ]
            for rule in plan.rules
        ],
    ]
    raw: bytes = msgpack.packb(body, use_bin_type=True)
    if len(raw) > MAX_INLINE_BYTES:
        raise ValueError(f"rules of {len(raw)} bytes are over {MAX_INLINE_BYTES}")
    return raw


def is_vacuous(test: NumberTest) -> bool:
    """Whether every number meets the test."""
    if test.kind is NumberKind.SAME:
        return (test.low == test.high == 0) and not test.negate
    return (test.low, test.high, test.negate) == (-_I63, _I63 - 1, False)


def decode_inline(raw: bytes) -> InlinePlan:
    """Returns the plan of these bytes. Raises PeerError for anything that encode_inline would not have made.

    They come from policyd, which is less privileged than who takes them. A sound plan may still kill whom policyd wants: so may
    policyd, within the same budget and for the same list of whom not.
    """
    if not raw:
        return InlinePlan()
    if len(raw) > MAX_INLINE_BYTES:
        raise PeerError(f"rules of {len(raw)} bytes are over {MAX_INLINE_BYTES}")
    try:
        body = msgpack.unpackb(raw, use_list=False, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise PeerError(f"the rules are not msgpack: {type(error).__name__}") from error
    match body:
        case (int(version), tuple(policies), tuple(rules)) if version == FORMAT:
            _need(len(policies) <= MAX_POLICIES and 0 < len(rules) <= MAX_RULES, "number")
            found = tuple(map(_policy, policies))
            return InlinePlan(found, tuple(_rule(rule, found) for rule in rules))
    raise PeerError("the rules are of another format")


def _policy(item: object) -> InlinePolicy:
    match item:
        case (int(tag), int(steps), int(within_ns)):
            _need(0 <= tag < _U32 and 1 <= steps <= MAX_STEPS and 0 <= within_ns < _I63, "policy")
            return InlinePolicy(tag, steps, within_ns)
    raise PeerError("a rule's policy is malformed")


def _rule(item: object, policies: tuple[InlinePolicy, ...]) -> Rule:
    match item:
        case (int(slot), int(step), int(code), tuple(numbers), tuple(texts)):
            _need(0 <= slot < len(policies) and 0 <= step < policies[slot].steps, "place")
            _need(0 < code < ER_INLINE_CODES and len(numbers) <= MAX_NUMBERS and len(texts) <= MAX_TEXTS, "size")
            _need(code not in _NEVER, "event")
            rule = Rule(slot, step, code, tuple(map(_number, numbers)), tuple(map(_text, texts)))
            _need(bool(texts) or not all(map(is_vacuous, rule.numbers)), "emptiness: it kills whoever does that")
            return rule
    raise PeerError("a rule is malformed")


_INPUTS: Final = frozenset(map(int, Input))
_KINDS: Final = frozenset(map(int, NumberKind))
_PARTS: Final = frozenset(map(int, Part))


def _number(item: object) -> NumberTest:
    match item:
        case (int(which), int(kind), int(low), int(high), bool(negate)) if which in _INPUTS and kind in _KINDS:
            signed = kind == NumberKind.RANGE
            _need(all(-_I63 <= bound < _I63 if signed else 0 <= bound < _U64 for bound in (low, high)), "number")
            return NumberTest(Input(which), NumberKind(kind), low, high, negate)
    raise PeerError("a rule's test of a number is malformed")


def _text(item: object) -> TextTest:
    match item:
        case (int(part), bytes(text), bool(negate)) if part in _PARTS:
            most = COMM_BYTES - 1 if part == Part.COMM else MAX_TEXT_BYTES
            _need(0 < len(text) <= most and b"\0" not in text, "text")
            return TextTest(Part(part), text, negate)
    raise PeerError("a rule's test of a text is malformed")


def _need(well: bool, what: str) -> None:
    if not well:
        raise PeerError(f"a rule has a {what} that can't be")


def listing(plan: InlinePlan) -> list[Any]:
    """Returns the rules in the order in which the kernel has them: by event, and of each the later steps first."""
    return sorted(plan.rules, key=lambda rule: (rule.code, rule.slot, -rule.step))
