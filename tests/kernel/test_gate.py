"""bpf/gate.bpf.c: the gate's core, run in the kernel on one question at a time, decides as its twin does."""

from __future__ import annotations

import os
from random import Random

import pytest

from execray.gate.verdict import candidates
from tests.support.gates import KernelGate, random_facts, random_plan

#: EXECRAY_GATE_QUESTIONS=1000000 for the long form.
QUESTIONS = int(os.environ.get("EXECRAY_GATE_QUESTIONS", "20000"))
_PER_PLAN = 200


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (5, 14),
    reason="before Linux 5.14 there are no programs that run without a hook",
)
def test_the_kernel_decides_as_the_twin_does() -> None:
    random = Random(os.environ.get("EXECRAY_GATE_SEED", "gate"))
    passed = 0
    with KernelGate() as kernel:
        for _ in range(QUESTIONS // _PER_PLAN):
            plan = random_plan(random)
            kernel.gate.load(plan)
            for _ in range(_PER_PLAN):
                facts = random_facts(random)
                found = candidates(plan, facts)
                expected = found is None or found != 0
                assert kernel.ask(facts) == expected, (plan, facts)
                passed += expected
    assert QUESTIONS * 0.1 < passed < QUESTIONS * 0.9
