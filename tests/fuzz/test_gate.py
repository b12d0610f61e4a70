"""The gate's core under AddressSanitizer and UBSan, on random plans, sound ones and ones that are only noise."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from random import Random

import pytest

from execray.gate.memory import Memory
from execray.gate.plan import GatePlan
from execray.gate.verdict import Facts, PathState
from execray.schema.layout import GATE_BYTES, GATE_CASE_AT, GATE_CASE_BYTES
from tests.support.gates import CODES, random_facts, random_path, random_plan
from tests.support.native_gate import CELLS, ask, build, question
from tracerd.gate_table import table_of

#: EXECRAY_GATE_QUESTIONS=1000000 for the long form.
QUESTIONS = int(os.environ.get("EXECRAY_GATE_QUESTIONS", "20000"))
_PER_PLAN = 1000


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("gate"))


def test_the_native_core_decides_as_the_twin_does(native: Path, tmp_path: Path) -> None:
    random = Random("native")
    for _ in range(QUESTIONS // _PER_PLAN):
        plan = random_plan(random)
        asked = [(random_facts(random), random.randrange(1, 24), at // 4 + 1) for at in range(_PER_PLAN)]
        found = ask(native, tmp_path, table_of(plan, 1, 0), [question(plan, *one) for one in asked])
        memory = Memory(plan, 0, CELLS)
        assert found == "".join("01"[memory.passes(*one)] for one in asked)


def test_a_table_of_noise_is_read_within_its_bounds(native: Path, tmp_path: Path) -> None:
    random = Random("noise")
    for _ in range(max(2, QUESTIONS // 5000)):
        table = bytearray(random.randbytes(GATE_BYTES))
        struct.pack_into("<Q", table, 8, 0)  # no code is open
        asked = [question(GatePlan(named=4095), random_facts(random)) for _ in range(200)]
        assert len(ask(native, tmp_path, bytes(table), asked)) == 200


def test_names_of_every_length_are_read_within_their_bounds(native: Path, tmp_path: Path) -> None:
    plan = GatePlan()
    paths = [b"/" + b"n" * n for n in range(1, 256)] + [random_path(Random(n)) for n in range(50)]
    asked = [question(plan, Facts(CODES[0], PathState.KNOWN, path)) for path in paths]
    assert ask(native, tmp_path, table_of(plan, 1, 0), asked) == "0" * len(asked)
    assert GATE_CASE_AT["path"][0] + 16 < GATE_CASE_BYTES
