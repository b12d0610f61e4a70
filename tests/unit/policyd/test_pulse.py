"""When policyd counts as alive: by what it took, what it wrote, and what it can do nothing about."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from policyd import pulse
from policyd.pulse import Pulse


@dataclass
class Stream:
    taken: int = 0
    turns: int = 0
    feeding: bool = False
    link: Any = field(default_factory=lambda: SimpleNamespace(connected=True, frame_at=0.0))


@dataclass
class Writer:
    written: int = 0
    busy_s: float = 0.0


class World:
    """A pulse under a manager that waits 10 s, and what it looks at."""

    def __init__(self, heartbeat_s: float = 1.0) -> None:
        self.stream, self.writer, self.now = Stream(), Writer(), 100.0
        self.stream.link.frame_at = self.now
        self.pulse = Pulse(
            cast(Any, self.stream), cast(Any, self.writer), heartbeat_s=heartbeat_s, patience_s=10.0, outcome_s=1.0
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(pulse.time, "monotonic", lambda: made.now)  # type: ignore[attr-defined]
    return made


def test_each_frame_counts_once(world: World) -> None:
    world.stream.taken += 1
    assert not world.pulse.missing()
    world.stream.turns += 1  # the loops turn, but tracerd has just spoken: a frame is due
    assert world.pulse.missing() == "nothing was taken from the event stream"


def test_silent_tracerd_is_not_our_fault_while_the_loops_turn(world: World) -> None:
    world.now += 5
    assert world.pulse.missing()
    world.stream.turns += 1
    assert not world.pulse.missing()
    assert world.pulse.missing()  # they don't


def test_absent_tracerd_is_not_our_fault_while_the_loops_turn(world: World) -> None:
    world.stream.link.connected = False
    assert world.pulse.missing()
    world.stream.turns += 1
    assert not world.pulse.missing()


def test_reader_that_waits_for_the_writer_lives_by_what_is_written(world: World) -> None:
    world.stream.feeding = True
    world.stream.turns += 1
    assert world.pulse.missing()
    world.writer.written += 1
    assert not world.pulse.missing()


def test_writer_that_hangs_counts_for_more_than_all_else(world: World) -> None:
    world.stream.taken += 1
    world.writer.busy_s = 5.9  # half the patience, and as long as an outcome may take
    assert not world.pulse.missing()
    world.stream.taken += 1
    world.writer.busy_s = 6.1
    assert "writer is busy" in world.pulse.missing()


def test_slow_heartbeat_is_no_reason_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(heartbeat_s=30.0)
    monkeypatch.setattr(pulse.time, "monotonic", lambda: world.now)  # type: ignore[attr-defined]
    world.now += 4  # connected, and the next heartbeat is due in 26 s
    world.stream.turns += 1
    assert not world.pulse.missing()
