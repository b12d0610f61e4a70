"""An address's place in C and in Python: the same number; and what if it weren't."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from random import Random

import pytest

from execray.gate.addresses import place_at
from tests.support.native_gate import ROOT, planted

ADDRESSES = 100_000
_HALF = (1 << 64) - 1


def addresses() -> list[int]:
    """Addresses of 128 bits: at and beside each power of two, and random ones."""
    random = Random("places")
    edges = [max(0, (1 << bit) + off) for bit in range(128) for off in (-1, 0, 1)]
    mapped = [0xFFFF << 32 | random.getrandbits(32) for _ in range(1000)]
    drawn = [random.getrandbits(random.randrange(1, 129)) for _ in range(ADDRESSES)]
    return [*edges, *mapped, *drawn, (1 << 128) - 1]


def places(folder: Path, sources: Path, asked: list[int]) -> list[int]:
    program = folder / "places"
    flags = ["-O1", "-Wall", "-Werror", "-fsanitize=address,undefined", f"-I{sources / 'include'}"]
    subprocess.run(["gcc", *flags, "-o", program, ROOT / "tests/fuzz/address_native.c"], check=True)
    raw = b"".join(struct.pack("<QQ", one >> 64, one & _HALF) for one in asked)
    done = subprocess.run([program], input=raw, capture_output=True, check=True)
    return list(map(int, done.stdout.split()))


def test_the_kernel_puts_an_address_where_the_plan_has_it(tmp_path: Path) -> None:
    asked = addresses()
    assert places(tmp_path, ROOT / "bpf", asked) == list(map(place_at, asked))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        pytest.param("place ^ ER_GATE_SIGN", "place", id="numbers without a sign"),
        pytest.param("lower > ER_GATE_ODD_PLACE", "0", id="a lower half among the upper ones"),
        pytest.param("upper < ER_GATE_ODD_PLACE", "0", id="an upper half among the lower ones"),
    ],
)
def test_a_mistake_in_the_place_of_an_address_is_seen(tmp_path: Path, right: str, wrong: str) -> None:
    asked = addresses()
    sources = planted(tmp_path, "include/execray/gate_address.h", right, wrong)
    assert places(tmp_path, sources, asked) != list(map(place_at, asked))
