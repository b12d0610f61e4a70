"""Ranges of addresses: never fewer than the engine takes, and exactly these where the kernel may go by them alone."""

from __future__ import annotations

import ipaddress
import itertools
from random import Random

import pytest

from execray.gate.addresses import V4_PLACES, addresses_at, place_at, place_of
from execray.schema.kinds import Kind
from policyd import program
from policyd.engine.conditions import predicate
from policyd.gate.spans import EVERY, places_of, spans
from policyd.program import And, Constant, Expr, FieldRef, Network, Not, Op, Or

DST = FieldRef("dst.ip", Kind.IP)
CONSTANTS = [
    "0.0.0.0/0", "127.0.0.0/8", "10.0.0.0/31", "255.255.255.255", "1.2.3.4", "::/0", "::/8", "::/64", "::/80", "::1", "::",
    "::ffff:0:0/96", "::ffff:1.2.3.4", "::fffe:0:0/95", "0:0:0:5::/65", "0:0:0:1::/64", "0:0:1::/48", "1::/64", "1::/63",
    "1::1", "2001:db8::/32", "2001:db8::/64", "2001:db8::/65", "2001:db8::1", "fe80::/10", "ffff::/16", "8000::/1",
]  # fmt: skip


def constant_of(text: str) -> bytes | Network:
    return ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text).packed


def ends_of(text: str) -> list[int]:
    network = ipaddress.ip_network(text)
    return [int(network.network_address), int(network.broadcast_address)]


def every_edge() -> list[bytes]:
    """Addresses on both sides of all that tells any apart."""
    four, six = (
        set[int](),
        {0, 1, (1 << 48) - 1, 1 << 48, 1 << 64, 1 << 111, 1 << 112, (1 << 112) + (1 << 64), (1 << 128) - 1},
    )
    for text in CONSTANTS:
        (six if ":" in text else four).update(end + off for end in ends_of(text) for off in (-1, 0, 1))
    six |= {0xFFFF << 32 | number for number in four if 0 <= number < 1 << 32}
    return [number.to_bytes(4) for number in sorted(four) if 0 <= number < 1 << 32] + [
        number.to_bytes(16) for number in sorted(six) if 0 <= number < 1 << 128
    ]


ADDRESSES = every_edge()


def inside(place: int, found: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= place <= high for low, high in found)


def holds(expr: Expr, address: bytes) -> bool:
    match expr:
        case Not(item):
            return not holds(item, address)
        case And(items):
            return all(holds(item, address) for item in items)
        case Or(items):
            return any(holds(item, address) for item in items)
        case program.Test():
            return predicate(expr)(address)
    raise AssertionError(expr)


@pytest.mark.parametrize("op", [Op.EQ, Op.IN, Op.NE])
@pytest.mark.parametrize("text", CONSTANTS)
def test_an_address_that_meets_a_test_is_in_its_range_and_one_that_is_surely_meant_meets_it(text: str, op: Op) -> None:
    constant = constant_of(text)
    values: tuple[Constant, ...] = (constant,)
    test = program.Test(DST, op, values)
    one, other = spans(test, "dst.ip"), spans(Not(test), "dst.ip")
    may, must = places_of(constant)
    met = 0
    for address in ADDRESSES:
        yes = predicate(test)(address)
        met += yes
        assert inside(place_of(address), one if yes else other)
        member = yes is not (op is Op.NE)
        assert not inside(place_of(address), must) or member
        assert inside(place_of(address), may) or not member
    assert met > 0


def test_conditions_of_several_tests_lose_no_address() -> None:
    random = Random("addresses")

    def draw(depth: int) -> Expr:
        roll = random.random()
        if depth and roll < 0.5:
            return random.choice((And, Or))(tuple(draw(depth - 1) for _ in range(2)))
        chosen = tuple(map(constant_of, random.sample(CONSTANTS, random.randrange(1, 4))))
        test = program.Test(DST, random.choice((Op.IN, Op.EQ, Op.NE)), chosen)
        return Not(test) if random.random() < 0.4 else test

    for _ in range(300):
        expr = draw(2)
        found = spans(expr, "dst.ip")
        assert all(inside(place_of(address), found) for address in ADDRESSES if holds(expr, address))


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("127.0.0.0/8", True), ("1.2.3.4", True), ("0.0.0.0/0", True), ("::1", True), ("2001:db8::/64", True),
        ("fe80::/10", True), ("2001:db8::1", False), ("2001:db8::/65", False), ("::ffff:1.2.3.4", False), ("::/0", False),
    ],
)  # fmt: skip
def test_what_is_meant_is_known_for_sure_but_for_parts_of_a_place_and_ipv4_within_ipv6(text: str, exact: bool) -> None:
    may, must = places_of(constant_of(text))
    assert (may == must) is exact


def test_the_order_of_places_is_that_of_addresses() -> None:
    random = Random("order")
    numbers = sorted(random.getrandbits(random.choice((20, 47, 49, 64, 66, 113, 128))) for _ in range(20_000))
    places = [place_at(number) for number in numbers]
    assert places == sorted(places)
    assert all(low <= at <= high for at, (low, high) in zip(numbers, map(addresses_at, places), strict=True))
    assert place_at(0) == EVERY[0][0] and place_at((1 << 128) - 1) == EVERY[0][1]
    assert place_of(b"\x7f\0\0\1") == place_of(b"\0" * 10 + b"\xff\xff\x7f\0\0\1")
    assert V4_PLACES[1] - V4_PLACES[0] == (1 << 32) - 1


def test_of_too_many_addresses_more_pass_and_none_is_told_for_sure() -> None:
    many: tuple[Constant, ...] = tuple(number.to_bytes(4) for number in range(0, 200 << 16, 2 << 16))
    test = program.Test(DST, Op.IN, many)
    assert all(inside(place_of(one), spans(test, "dst.ip")) for one in many if isinstance(one, bytes))
    assert spans(Not(test), "dst.ip") == EVERY


def test_what_is_no_constant_or_of_another_field_says_nothing() -> None:
    other = FieldRef("src.ip", Kind.IP)
    loop = ipaddress.ip_network("127.0.0.0/8")
    tests = [program.Test(DST, Op.EQ, other), program.Test(other, Op.IN, (loop,)), program.Test(DST, Op.EXISTS)]
    assert [spans(test, "dst.ip") for test in tests] == [EVERY] * 3
    assert [spans(Not(test), "dst.ip") for test in tests] == [EVERY, EVERY, ()]
    assert len(set(itertools.chain(ADDRESSES))) == len(ADDRESSES)
