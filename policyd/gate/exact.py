"""Which policies the kernel can finish itself: those of which everything that decides is exact there.

A way to meet a step becomes a rule only where each of its tests is the condition's own, both ways. Ways that ask for more are
left out of the rules, and so to user space, which looks at every event again. A policy of which no way is left isn't inline.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from execray.gate.inline import (
    COMM_BYTES,
    MAX_NUMBERS,
    MAX_POLICIES,
    MAX_RULES,
    MAX_STEPS,
    MAX_TEXT_BYTES,
    MAX_TEXTS,
    SLACK_NS,
    InlinePlan,
    InlinePolicy,
    NumberKind,
    NumberTest,
    Part,
    Rule,
    TextTest,
    encode_inline,
    is_vacuous,
    tag_of,
)
from execray.gate.plan import ADDRESSES, Input
from execray.schema.catalog import EVENT_BY_CODE, EventType
from policyd.engine.conditions import FALSE, TRUE, constants_of, predicate, without
from policyd.engine.planning import ACTOR, SlotKey, is_missing, normal, slot_of
from policyd.gate.spans import places_of
from policyd.gate.ways import has_path, input_of, is_gated
from policyd.program import And, CompiledPolicy, Expr, FieldRef, Handler, KeyKind, Kill, Not, Op, Or, Overlap, Response
from policyd.program import Test as Tested

Tests: TypeAlias = "tuple[NumberTest | TextTest, ...]"

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1
#: Of 64 bits and without a sign, which the kernel's comparison has.
_UNSIGNED: Final = frozenset({Input.REQUEST})
#: Ways of one step.
_MAX_WAYS: Final = 64
_O_PATH: Final = 0o10000000
_O_ACCMODE: Final = 3


class NotInlineError(Exception):
    """Why a policy can't be finished in the kernel, in words."""


class _Inexact(Exception):
    """A test that the kernel doesn't know for sure. Its text names the field."""


@dataclass(frozen=True, slots=True)
class InlineBuilt:
    """The rules of the loaded policies, and as bytes. left_out: the policies for which there was no room."""

    plan: InlinePlan = field(default_factory=InlinePlan)
    raw: bytes = b""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """How one policy is finished in the kernel. rules: with slot 0. inexact: fields of the ways that are left to user space."""

    policy: InlinePolicy
    rules: tuple[Rule, ...]
    inexact: tuple[str, ...] = ()


def build_inline(policies: Iterable[CompiledPolicy]) -> InlineBuilt:
    """Returns the rules of those policies that say `response enforce` and that the kernel can finish."""
    chosen: list[InlinePolicy] = []
    rules: list[Rule] = []
    left_out: list[str] = []
    for policy in policies:
        if policy.response is not Response.ENFORCE:
            continue
        try:
            found = finished(policy)
        except NotInlineError:
            continue
        if len(chosen) == MAX_POLICIES or len(rules) + len(found.rules) > MAX_RULES:
            left_out.append(policy.name)
            continue
        slot = len(chosen)
        chosen.append(found.policy)
        rules += [Rule(slot, rule.step, rule.code, rule.numbers, rule.texts) for rule in found.rules]
    plan = InlinePlan(tuple(chosen), tuple(rules))
    return InlineBuilt(plan, encode_inline(plan), tuple(left_out))


def finished(policy: CompiledPolicy) -> Finished:
    """Returns how the kernel finishes the policy. Raises NotInlineError."""
    steps = _chain(policy)
    kills = _killing(policy.handlers)
    if len(steps) > 1 and any(item != TRUE for item in kills.items):
        raise NotInlineError("where its `if` is false, a sequence is used up without a kill")
    last = And((*(Not(exemption.condition) for exemption in policy.exemptions), kills))
    rules: list[Rule] = []
    inexact: list[str] = []
    for place, number in enumerate(steps):
        condition = policy.steps[number].condition
        ends = place == len(steps) - 1
        whole = And((condition, last)) if ends else condition
        found: list[Rule] = []
        known = len(inexact)
        for code in filter(is_gated, policy.steps[number].codes):
            ways = _ways(normal(whole), EVENT_BY_CODE[code], inexact)
            found += [rule for tests in ways if (rule := _rule(place, code, tests, inexact)) is not None]
        if not any(map(is_gated, policy.steps[number].codes)):
            names = " and ".join(EVENT_BY_CODE[code].name for code in policy.steps[number].codes)
            raise NotInlineError(f"it has a step on {names}, which isn't decided on where calls return")
        if not found:
            why = ", ".join(f"`{name}`" for name in dict.fromkeys(inexact)) or "what it asks for"
            raise NotInlineError(f"the kernel doesn't know {why} for sure")
        if ends and place and (len(inexact) > known or not all(map(is_gated, policy.steps[number].codes))):
            # the engine may then have used up a sequence of which the kernel thinks that it waits
            why = ", ".join(f"`{name}`" for name in dict.fromkeys(inexact[known:])) or "some of its events"
            raise NotInlineError(f"the last step of a sequence must be exact in all its ways, and {why} isn't")
        rules += found
    if len(rules) > MAX_RULES:
        raise NotInlineError(f"it has more than {MAX_RULES} ways")
    within = policy.within_ns if len(steps) > 1 else None
    return Finished(
        InlinePolicy(tag_of(policy.hash), len(steps), within or 0), tuple(rules), tuple(dict.fromkeys(inexact))
    )


def inline_lines(policy: CompiledPolicy) -> list[str]:
    """Returns what `policy explain` says of it."""
    try:
        found = finished(policy)
    except NotInlineError as error:
        return [f"no: {error}"]
    lines = ["yes, under `response enforce`" if policy.response is not Response.ENFORCE else "yes"]
    if found.inexact:
        lines.append(f" where {', '.join(found.inexact)} would decide, it is left to user space")
    return lines


def _chain(policy: CompiledPolicy) -> list[int]:
    """Returns the steps of a policy that is a plain sequence. Raises NotInlineError."""
    steps: list[int] = []
    place = 0
    while not policy.states[place].accepting:
        state = policy.states[place]
        if len(state.transitions) != 1 or state.repeats or len(steps) == MAX_STEPS:
            raise NotInlineError(f"it isn't a plain sequence of at most {MAX_STEPS} steps")
        steps.append(state.transitions[0].step)
        place = state.transitions[0].target
    whole = [policy.steps[number] for number in steps]
    if policy.key is not KeyKind.PROCESS:
        raise NotInlineError("its key isn't the process")
    if policy.untils or policy.mode.overlap is not Overlap.LATEST:
        raise NotInlineError("what ends it, or how often it may run at once, is decided in user space")
    if any(step.times is not None or step.within_ns is not None for step in whole):
        raise NotInlineError("a step has a count or a time of its own")
    if len(steps) > 1 and (policy.within_ns is None or policy.within_ns <= 2 * SLACK_NS):
        raise NotInlineError(f"it has no `within`, or one of {2 * SLACK_NS // 1_000_000} ms or less")
    return steps


def _killing(handlers: Iterable[Handler]) -> Or:
    """Returns what must hold for a match to be a kill. Raises NotInlineError."""
    kills = [h for h in handlers if h.step is None and any(isinstance(action, Kill) for action in h.actions)]
    if not kills:
        raise NotInlineError("no handler of a match kills")
    kills = [handler for handler in kills if not handler.labels]
    if not kills:
        raise NotInlineError("it kills only by way of a block")
    return Or(tuple(TRUE if handler.condition is None else handler.condition for handler in kills))


def _rule(step: int, code: int, tests: Tests, inexact: list[str]) -> Rule | None:
    numbers = tuple(dict.fromkeys(test for test in tests if isinstance(test, NumberTest)))
    texts = tuple(dict.fromkeys(test for test in tests if isinstance(test, TextTest)))
    anything = not texts and all(map(is_vacuous, numbers))
    if anything or len(numbers) > MAX_NUMBERS or len(texts) > MAX_TEXTS:
        inexact.append("anything" if anything else "so many tests at once")
        return None
    return Rule(0, step, code, numbers, texts)


def _ways(expr: Expr, kind: EventType, inexact: list[str]) -> list[Tests]:
    """Returns conjunctions of exact tests, each of which is enough. inexact: takes in what the others ask for."""
    expr = without(expr, lambda ref: is_missing(ref, kind))
    return [] if expr == FALSE else _disjuncts(expr, kind, inexact)


def _disjuncts(expr: Expr, kind: EventType, inexact: list[str]) -> list[Tests]:
    match expr:
        case And(items):
            parts = [_disjuncts(item, kind, inexact) for item in items]
            ways: list[Tests] = [()]
            for part in parts:
                if len(ways) * len(part) > _MAX_WAYS:
                    inexact.append("so many ways")
                    return []
                ways = [one + other for one, other in itertools.product(ways, part)]
            return ways
        case Or(items):
            return [way for item in items for way in _disjuncts(item, kind, inexact)]
        case _:
            negated, test = (True, expr.item) if isinstance(expr, Not) else (False, expr)
            try:
                if not isinstance(test, Tested):
                    raise _Inexact(getattr(test.field, "name", "that") if hasattr(test, "field") else "that")
                return _exact(test, negated, kind)
            except _Inexact as error:
                inexact.append(str(error))
                return []


def _exact(test: Tested, negated: bool, kind: EventType) -> list[Tests]:
    """Returns the ways in which a test holds, or doesn't. Raises _Inexact."""
    ref = test.field
    name = f"{ref.alias}.{ref.name}" if ref.alias else ref.name
    slot = slot_of(ref, kind)
    if slot is None or ref.index is not None or test.ignore_case or isinstance(test.value, FieldRef):
        raise _Inexact(name)
    if test.op in (Op.TRUNCATED, Op.MATCH, Op.CONTAINS) or (test.op is Op.EXISTS and negated):
        raise _Inexact(name)
    if ref.name == "access" and slot == SlotKey(kind.code, "flags"):
        return _access(test, negated)
    if slot.slot != ref.name:
        raise _Inexact(name)
    which = input_of(slot, kind.code)
    each: list[NumberTest | TextTest]
    if which is not None:
        each = _numbers(test, which, name)
    elif slot == SlotKey(ACTOR, "comm"):
        each = [TextTest(Part.COMM, text) for text in _texts(test, {Op.EQ, Op.IN, Op.NE}, name, COMM_BYTES - 1)]
    elif slot == SlotKey(kind.code, "path") and _is_path_known(kind):
        each = list(_paths(test, name))
    else:
        raise _Inexact(name)
    # `!=` and `every` are of all constants what the others are of one
    flipped = (test.op is Op.NE) is not negated
    together = (test.all and test.op not in (Op.IN, Op.EQ, Op.NE)) is not flipped
    shown = [_flip(one) for one in each] if flipped else each
    return [tuple(shown)] if together else [(one,) for one in shown]


def _is_path_known(kind: EventType) -> bool:
    """Whether the kernel has the path of all such events: of what was opened, not a name that is still to be resolved."""
    named = kind.name not in ("open", "write") and any(name for call in kind.system_calls for name in call.names)
    return has_path(kind.code) and not named


def _flip(test: NumberTest | TextTest) -> NumberTest | TextTest:
    if isinstance(test, NumberTest):
        return NumberTest(test.input, test.kind, test.low, test.high, not test.negate)
    return TextTest(test.part, test.text, not test.negate)


def _numbers(test: Tested, which: Input, name: str) -> list[NumberTest | TextTest]:
    """Returns a test for each constant; of `!=`, as if it were `=`."""
    if test.op is Op.EXISTS:
        return [NumberTest(which, NumberKind.RANGE, _LOWEST, _HIGHEST)]
    if which in ADDRESSES:
        return _addresses(test, which, name)
    ordered = test.op in (Op.LT, Op.LE, Op.GT, Op.GE)
    if test.op is Op.TRUE:
        return [NumberTest(which, NumberKind.RANGE, 0, 0, negate=True)]
    found: list[NumberTest | TextTest] = []
    for constant in constants_of(test):
        if not isinstance(constant, int) or not _LOWEST < constant < _HIGHEST:
            raise _Inexact(name)
        if which in _UNSIGNED and (ordered or constant < 0):
            raise _Inexact(name)
        found.append(_number(test.op, which, int(constant), name))
    if not found:
        raise _Inexact(name)
    return found


def _addresses(test: Tested, which: Input, name: str) -> list[NumberTest | TextTest]:
    meant = [places_of(constant) for constant in constants_of(test) if not isinstance(constant, int)]
    if not meant or any(may != must for may, must in meant) or test.op not in (Op.EQ, Op.IN, Op.NE):
        raise _Inexact(name)
    return [NumberTest(which, NumberKind.RANGE, *span) for (span,), _ in meant]


def _number(op: Op, which: Input, number: int, name: str) -> NumberTest:
    match op:
        case Op.HAS | Op.HASANY if number > 0:
            any_bit = op is Op.HASANY
            return NumberTest(which, NumberKind.SAME, number, 0 if any_bit else number, negate=any_bit)
        case Op.EQ | Op.IN | Op.NE:
            low, high = number, number
        case Op.LT:
            low, high = _LOWEST, number - 1
        case Op.LE:
            low, high = _LOWEST, number
        case Op.GT:
            low, high = number + 1, _HIGHEST
        case Op.GE:
            low, high = number, _HIGHEST
        case _:
            raise _Inexact(name)
    return NumberTest(which, NumberKind.RANGE, low, high)


def _access(test: Tested, negated: bool) -> list[Tests]:
    """`access` is a question to the flags: 0 to 2 in their lowest bits read, write or do both; 3, and O_PATH, neither."""
    holds = predicate(test)
    found: list[Tests] = []
    for mode, access in enumerate((1, 2, 3, 0)):
        if holds(access) is not negated:
            found.append((NumberTest(Input.FLAGS, NumberKind.SAME, _O_PATH | _O_ACCMODE, mode),))
    if holds(0) is not negated:
        found.append((NumberTest(Input.FLAGS, NumberKind.SAME, _O_PATH, _O_PATH),))
    return found


_PARTS: Final = {
    Op.EQ: Part.EXACT,
    Op.IN: Part.EXACT,
    Op.NE: Part.EXACT,
    Op.STARTSWITH: Part.STARTS,
    Op.ENDSWITH: Part.ENDS,
}


def _paths(test: Tested, name: str) -> Iterable[TextTest]:
    if test.op is Op.EXISTS:
        return [TextTest(Part.STARTS, b"/")]
    return [TextTest(_PARTS[test.op], text) for text in _texts(test, set(_PARTS), name, MAX_TEXT_BYTES)]


def _texts(test: Tested, known: set[Op], name: str, most: int) -> Sequence[bytes]:
    constants = [constant for constant in constants_of(test) if isinstance(constant, bytes)]
    fits = all(0 < len(constant) <= most and b"\0" not in constant for constant in constants)
    if test.op not in known or not constants or len(constants) != len(constants_of(test)) or not fits:
        raise _Inexact(name)
    return constants
