"""The gate never drops an event that the engine would have needed, on random policies and streams; and what if it did.

`make properties` runs the first of these for as long as one likes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from execray.gate.addresses import place_of
from execray.gate.verdict import PathState
from execray.schema.field import PATH_UNSURE
from policyd.gate import known, needs, plan, spans, twin, ways
from policyd.program import And, Not, Or
from tests.properties.gate import address_case, compare_awaited, compare_reloads, compare_stateless, gate_case
from tests.properties.shrink import Compare, shrink

CASES = 600
CHUNK = 200
#: Cases after which a planted fault must have been seen.
PATIENCE = 1_500


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
@pytest.mark.parametrize("compare", [compare_stateless, compare_awaited])
def test_the_engine_finds_the_same_in_what_passes(compare: Compare, first: int) -> None:
    for number in range(first, first + CHUNK):
        found = compare(gate_case(f"gate:{number}"))
        if found is not None:
            pytest.fail(f"case {number}\n\n{shrink(found, compare, tries=2_000)}", pytrace=False)


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_the_engine_finds_the_same_of_addresses(first: int) -> None:
    for number in range(first, first + CHUNK):
        found = compare_stateless(address_case(f"address:{number}"))
        if found is not None:
            pytest.fail(f"case {number}\n\n{shrink(found, compare_stateless, tries=2_000)}", pytrace=False)


def test_a_new_plan_in_the_midst_of_a_stream_loses_nothing() -> None:
    matches = 0
    for number in range(300):
        whole, gated, shown = compare_reloads(f"flip:{number}")
        assert whole == gated, f"{number}\n{shown}"
        matches += len(whole)
    assert matches > 100


# ---- planted faults: each is one that the gate could well have, and the comparison above must see it


def not_as_its_opposite(expr: Any) -> Any:
    return PATH_NEED(expr.item if isinstance(expr, Not) else expr)


def or_as_and(expr: Any) -> Any:
    return PATH_NEED(And(expr.items) if isinstance(expr, Or) else expr)


def missing_when_unsure(event: Any) -> Any:
    state, path = PATH_OF(event)
    return (PathState.MISSING, b"") if state is PathState.UNKNOWN and event.flags & PATH_UNSURE else (state, path)


def one_way_of_several(table: Any, number: int) -> Any:
    found = {(step, bit.asked.code): (step, bit) for step, bit in BITS_OF(table, number)}
    return list(found.values())


def begun_by_the_last_alternative(policy: Any) -> Any:
    return frozenset(sorted(FIRST_STEPS(policy))[:1])


def half_as_long(policy: Any) -> int:
    return (LONGEST_NS(policy) or 0) // 2 - plan.SLACK_NS


def every_number_but_the_last(expr: Any, name: str) -> Any:
    return tuple((low, high - 1) for low, high in SPANS(expr, name) if low < high) or SPANS(expr, name)


def nothing_is_missing(self: Any, code: int, first: int, end: int, bits: Any) -> Any:
    return dataclasses.replace(CODE(self, code, first, end, bits), path_missing=0)


def whole_places(constant: Any) -> Any:
    may, _ = PLACES_OF(constant)
    return may, may


def v4_by_itself(address: bytes) -> int:
    return PLACE_OF(address.rjust(16, b"\0"))


PATH_NEED, PATH_OF, BITS_OF = needs.path_need, twin.path_of, ways.bits_of
FIRST_STEPS, LONGEST_NS, SPANS = ways.first_steps, ways.longest_ns, spans.spans
PLACES_OF, PLACE_OF = spans.places_of, place_of
CODE = plan._Builder._code


@pytest.mark.parametrize(
    ("where", "name", "fault", "compare"),
    [
        pytest.param(needs, "path_need", not_as_its_opposite, compare_stateless, id="not over a prefix"),
        pytest.param(needs, "path_need", or_as_and, compare_stateless, id="an or taken for an and"),
        pytest.param(twin, "path_of", missing_when_unsure, compare_stateless, id="truncation read as a miss"),
        pytest.param(known, "bits_of", one_way_of_several, compare_stateless, id="or over fields cut"),
        pytest.param(plan._Builder, "_code", nothing_is_missing, compare_stateless, id="missing meets nothing"),
        pytest.param(ways, "spans", every_number_but_the_last, compare_stateless, id="a bound off by one"),
        pytest.param(needs, "_fits_nameless", lambda word: False, compare_stateless, id="pipes meet nothing"),
        pytest.param(ways, "first_steps", begun_by_the_last_alternative, compare_awaited, id="no predecessor"),
        pytest.param(plan, "longest_ns", half_as_long, compare_awaited, id="expired too early"),
        pytest.param(plan, "of_process", lambda policy: True, compare_awaited, id="cell of another process"),
    ],
)
def test_a_planted_fault_is_seen(where: Any, name: str, fault: Callable[..., Any], compare: Compare) -> None:
    with mock.patch.object(where, name, fault):
        seen = next((number for number in range(PATIENCE) if compare(gate_case(f"gate:{number}"))), None)
    assert seen is not None


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        pytest.param(spans, "places_of", whole_places, id="not in over a part of a place"),
        pytest.param(twin, "place_of", v4_by_itself, id="IPv4 where it isn't looked for"),
        pytest.param(spans, "V4_PLACES", (0, 0), id="IPv4 taken for one within IPv6"),
    ],
)
def test_a_planted_fault_in_addresses_is_seen(where: Any, name: str, fault: Any) -> None:
    with mock.patch.object(where, name, fault):
        assert any(compare_stateless(address_case(f"address:{number}")) for number in range(PATIENCE))
