"""Kernel tests load real BPF. They may be skipped only without root, and not at all under EXECRAY_REQUIRE_KERNEL=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.gate.inline import InlinePlan
from tests.support.inline_kills import LIMITS, Killing
from tests.support.live import Live


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0 and os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1":
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """A sensor with the hooks of what the module lists in EVENTS, the bytes of writes included.

    UNSEEN in the module: the test's own calls are left out, as a daemon's are. To look at reads takes reads.
    """
    with Live([], content=True) as sensor:
        me = sensor.table.find(os.getpid())
        if getattr(request.module, "UNSEEN", False) and me is not None:
            sensor.sensor.hide(me.pid, me.start_ns)
        sensor.want(request.module.EVENTS)
        yield sensor


@pytest.fixture(scope="module")
def deadly() -> Iterator[Live]:
    """A sensor that may kill."""
    with Live([], kills=LIMITS) as live:
        yield live


@pytest.fixture
def arena(deadly: Live, tmp_path: Path) -> Iterator[Killing]:
    """The same, with no rules, and a folder with a file to ask for."""
    found = Killing(deadly, tmp_path)
    found.decoy.write_text("x")
    try:
        yield found
    finally:
        found.load(InlinePlan(), leased=False)


@pytest.fixture(scope="module")
def gated() -> Iterator[Live]:
    """A sensor whose gate may be given one plan after another."""
    with Live([], ring_bytes=1 << 24) as live:
        yield live
