"""The gate's verdict on plans written by hand: keys, numbers, and what isn't known."""

from __future__ import annotations

from execray.gate.hashes import (
    MAX_DEPTH,
    comm_key,
    component_key,
    exact_key,
    leaf_key,
    mix,
    path_keys,
    prefix_key,
    suffix_key,
)
from execray.gate.plan import CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.gate.verdict import Facts, PathState, candidates

OPEN = 4
KNOWN = PathState.KNOWN


def test_a_hash_is_what_the_kernel_computes() -> None:
    # Worked out by hand from the contract: ((h ^ w) * M mod 2^64) turned left by 29.
    product = (5 ^ 9) * 0x9E3779B97F4A7C15 % 2**64
    assert mix(5, 9) == (product * 2**29 | product >> 35) % 2**64


def test_a_path_has_the_keys_of_all_its_parts_and_no_others() -> None:
    path = b"/etc/ssh/sshd_config"
    wanted = {exact_key(path), prefix_key(b"/"), prefix_key(b"/etc"), prefix_key(b"/etc/ssh"), leaf_key(b"sshd_config")}
    wanted |= {component_key(name) for name in (b"etc", b"ssh", b"sshd_config")}
    wanted |= {suffix_key(b"config"), suffix_key(path[-16:])}
    assert set(path_keys(path, (6, 16))) == wanted
    assert prefix_key(path) not in wanted


def test_the_root_has_no_parts() -> None:
    assert list(path_keys(b"/", (1, 2))) == [exact_key(b"/"), suffix_key(b"/")]


def test_a_suffix_is_not_that_of_a_shorter_path() -> None:
    assert suffix_key(b"\0a") not in set(path_keys(b"a", (1, 2)))
    assert suffix_key(b"a") != suffix_key(b"\0a")


def plan() -> GatePlan:
    """Bit 0 asks for /a, bit 1 for no path and a result below 0, bit 2 for the thread `x` and anything that is written."""
    numbers = (
        NumberTest(Input.RET, NumberKind.RANGES, (0,), 2),
        NumberTest(Input.FLAGS, NumberKind.BITS, (3,), 4),
    )
    rows = (0, (1 << 4096) - 1, 0b111, 0b101, 0b011, 0b111, 0b110, 0b011, 0b001, 0b100, 0b111)
    code = CodeTest(OPEN, 0, 1, all=10, path_free=6, path_nameless=6, path_missing=6, comm_free=7, numbers=numbers)
    keys = {exact_key(b"/a"): 8, comm_key(b"x"): 9}
    return GatePlan(codes=(code,), open_codes=frozenset({1}), rows=rows, keys=keys)


def bits(**facts: object) -> int:
    found = candidates(plan(), Facts(OPEN, **facts))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_every_test_takes_bits_away() -> None:
    numbers = {Input.RET: 0, Input.FLAGS: 0}
    assert bits(state=KNOWN, path=b"/a", comm=b"y", numbers=numbers) == 0b001
    assert bits(state=KNOWN, path=b"/b", comm=b"y", numbers=numbers) == 0
    assert bits(state=KNOWN, path=b"/b", comm=b"y", numbers={Input.RET: -1, Input.FLAGS: 0}) == 0b010
    assert bits(state=KNOWN, path=b"/b", comm=b"x", numbers={Input.RET: 5, Input.FLAGS: 2}) == 0b100


def test_what_is_not_known_takes_nothing_away() -> None:
    assert bits() == 0b111
    assert bits(comm=b"y") == 0b011
    assert bits(state=KNOWN, path=b"/x" * (MAX_DEPTH + 1)) == 0b111
    assert bits(state=KNOWN, path=b"/x" * MAX_DEPTH) == 0b110
    assert bits(state=PathState.MISSING) == 0b110


def test_a_code_without_tests_passes_when_it_is_open_and_else_not() -> None:
    assert candidates(plan(), Facts(1)) is None
    assert candidates(plan(), Facts(5)) == 0
