"""Each trick against real daemons: what was detected stays detected, and what was missed is a known miss."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.evasion.bench import Bench
from tests.evasion.misses import surprise
from tests.evasion.table import TRICKS, Trick

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        os.geteuid() != 0 and os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1",
        reason="needs root",
    ),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as running:
        yield running


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.id)
def test_a_trick_fares_as_it_is_known_to(bench: Bench, trick: Trick) -> None:
    outcome = bench.run(trick)
    if outcome.cant and trick.lacking:
        pytest.skip(f"can't be done here, for lack of {trick.lacking}: {outcome.cant}")
    assert not surprise(outcome), f"{outcome.verdict} {' '.join(outcome.detected_by)}"
