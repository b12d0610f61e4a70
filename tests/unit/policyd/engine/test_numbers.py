"""Which system calls are asked of the sensor for `syscall` steps."""

from __future__ import annotations

import pytest

from execray.schema.numbers import MAX_NUMBER
from policyd.compiler import compile_source
from policyd.engine.generation import Generation


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        ("syscall { nr = 101 }", {101}),
        ("syscall { nr in [1, 2, 59] arg0 = 1 }", {1, 2, 59}),
        ("syscall { nr in [10..12] }", {10, 11, 12}),
        ("syscall { nr = 1 or nr = 2 and uid = 0 }", {1, 2}),
        ("syscall { nr < 3 and nr != 1 }", {0, 2}),
        ("syscall { not nr >= 2 }", {0, 1}),
        ("syscall { nr = 5 and nr = 6 }", set()),
        ("open {} syscall { nr = 7 } syscall { nr = 8 }", {7, 8}),
        ("open { ret = 7 }", set()),
        ("syscall { nr = 9 or uid = 0 }", set(range(MAX_NUMBER))),
    ],
)
def test_only_numbers_that_can_meet_a_step_are_asked_for(steps: str, numbers: set[int]) -> None:
    compilation = compile_source(f'policy "p" within 5s {{ {steps} }}', "p.policy")
    assert compilation.ok, compilation.diagnostics
    assert Generation(compilation.policies, 1, 64).needs().numbers == numbers
