"""Events that are only followed have their part of the ring: however many they are, they push out nothing that a policy wants."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.gate.hashes import exact_key
from execray.gate.plan import ROW_ALL, ROW_NONE, CodeTest, GatePlan
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.event import Event
from tests.support.live import Live

RING = 1 << 20
OPEN, KILL = (EVENT_BY_NAME[name].code for name in ("open", "kill"))
FLOOD = "for number in range(10_000): open('/etc/hostname').close()\n"
WANTED = 20
EVENT_FLAG = int(Flag.GATE_DROP)


@pytest.fixture(scope="module")
def small() -> Iterator[Live]:
    with Live([], ring_bytes=RING) as live:
        yield live


def plan_for(path: Path, open_codes: frozenset[int] = frozenset()) -> GatePlan:
    """What the one policy wants: opens of a file."""
    code = CodeTest(OPEN, 0, 1, 2, ROW_NONE, 0, 0, ROW_ALL)
    return GatePlan((code,), open_codes, (0, (1 << 4096) - 1, 1), {exact_key(os.fsencode(path)): 2})


def flooded(live: Live, wanted: Path) -> list[Event]:
    """Returns the opens that came out when a flood of others was followed by some that the policy wants, and nobody read."""
    live.drain()
    code = f"{FLOOD}for number in range({WANTED}): open({str(wanted)!r}).close()\n"
    run_to_its_end([sys.executable, "-I", "-S", "-c", code])
    return [event for event in live.drain() if event.type.name == "open"]


def run_to_its_end(argv: list[str]) -> None:
    pid = os.posix_spawn(argv[0], argv, dict(os.environ))
    assert os.waitpid(pid, 0)[1] == 0


def count(events: list[Event], path: Path) -> int:
    return sum(event.get("path") == os.fsencode(path) for event in events)


def test_a_flood_that_is_followed_pushes_out_nothing_that_a_policy_wants(small: Live, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted"
    wanted.touch()
    assert not small.sensor.want([OPEN], False, plan=plan_for(wanted), followed=[OPEN])
    lost, refused = small.sensor.counter("DROPPED"), small.sensor.gate_status()["refused"]
    found = flooded(small, wanted)
    assert count(found, wanted) == WANTED
    assert small.sensor.counter("DROPPED") == lost
    status = small.sensor.gate_status()
    assert status["followed"] == ["open"] and status["refused"] - refused >= 1000
    # it had its part of the ring, and was told of as long as there was room
    assert count(found, Path("/etc/hostname")) >= 50


def test_without_a_part_of_its_own_the_flood_takes_all(small: Live, tmp_path: Path) -> None:
    """What the test above would say if it could not fail: the same with the plan open for all opens."""
    wanted = tmp_path / "wanted"
    wanted.touch()
    assert not small.sensor.want([OPEN], False, plan=plan_for(wanted, frozenset({OPEN})))
    lost = small.sensor.counter("DROPPED")
    assert count(flooded(small, wanted), wanted) == 0
    assert small.sensor.counter("DROPPED") - lost >= WANTED


def test_what_is_followed_is_sent_whether_or_not_a_policy_asks_for_its_kind(small: Live, tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "nothing")
    for followed, kinds in (((), set()), ((OPEN,), {"open"}), ((KILL,), {"kill"}), ((OPEN, KILL), {"open", "kill"})):
        assert not small.sensor.want([OPEN, KILL], False, plan=plan, followed=followed)
        run = small.python("import os; open('/etc/hostname').close(); os.kill(os.getpid(), 0)")
        assert {event.type.name for event in run.events} & {"open", "kill"} == kinds


def test_who_is_gone_is_followed_by_nothing(small: Live, tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "nothing")
    assert not small.sensor.want([OPEN], False, plan=plan, followed=[OPEN, KILL])
    assert small.sensor.gate_status()["followed"] == ["open"]  # of what is not even wanted, nothing
    assert not small.sensor.want([OPEN], False, plan=plan)
    assert small.sensor.gate_status()["followed"] == []
    assert not small.python("open('/etc/hostname').close()").of("open")


def test_in_shadow_mode_everything_is_sent_and_flagged_whoever_follows(tmp_path: Path) -> None:
    with Live([], ring_bytes=1 << 22, gate="shadow") as live:
        assert not live.sensor.want([OPEN], False, plan=plan_for(tmp_path / "nothing"), followed=[OPEN])
        run = live.python("open('/etc/hostname').close()")
        flags = {int(event.flags) & EVENT_FLAG for event in run.of("open", path=b"/etc/hostname")}
        assert flags == {EVENT_FLAG} and live.sensor.gate_status()["refused"] == 0
