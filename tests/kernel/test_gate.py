"""bpf/gate.bpf.c: the gate's core, run in the kernel on one question at a time, decides as its twin does."""

from __future__ import annotations

import os
from random import Random

import pytest

from execray.gate.memory import Memory
from tests.support.gates import KernelGate, random_facts, random_plan

#: EXECRAY_GATE_QUESTIONS=1000000 for the long form.
QUESTIONS = int(os.environ.get("EXECRAY_GATE_QUESTIONS", "20000"))
_PER_PLAN = 200
#: Fewer than there are processes: what begins in others counts for the whole host.
_CELLS = 8


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (5, 14),
    reason="before Linux 5.14 there are no programs that run without a hook",
)
def test_the_kernel_decides_as_the_twin_does() -> None:
    random = Random(os.environ.get("EXECRAY_GATE_SEED", "gate"))
    passed = begun = 0
    with KernelGate(_CELLS) as kernel:
        for _ in range(QUESTIONS // _PER_PLAN):
            plan = random_plan(random)
            kernel.load(plan, since_ns=5)
            memory, now_ns = Memory(plan, 5, _CELLS), 5
            for _ in range(_PER_PLAN):
                facts, pid = random_facts(random), random.randrange(1, 2 * _CELLS)
                now_ns += random.choice((0, 0, 1, 3))
                if random.random() < 0.05:
                    kernel.ended(pid)
                    memory.ended(pid)
                expected = memory.passes(facts, pid, now_ns)
                assert kernel.ask(facts, pid, now_ns) == expected, (plan, facts, pid, now_ns)
                passed += expected
            begun += memory.begun
    assert QUESTIONS * 0.1 < passed < QUESTIONS * 0.9
    assert begun > QUESTIONS * 0.01
