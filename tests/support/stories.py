"""Short stories for tests of the engine: a machine with some policies, processes that open files, and what comes of it."""

from __future__ import annotations

from policyd.engine.machine import Machine
from policyd.engine.outputs import Excepted, Match, Output
from policyd.engine.partials import Limits
from policyd.program import CompiledPolicy
from tests.support.playbook import Play
from tests.support.programs import eq, step

A = step("open", eq("path", "/a"), alias="a")
B = step("open", eq("path", "/b"), alias="b")
C = step("open", eq("path", "/c"), alias="c")


def machine(*policies: CompiledPolicy, limits: Limits | None = None) -> Machine:
    fresh = Machine(limits)
    fresh.load(policies, 1)
    return fresh


def excepted(outputs: list[Output]) -> list[Excepted]:
    return [output for output in outputs if isinstance(output, Excepted)]


def matches(outputs: list[Output]) -> list[Match]:
    return [output for output in outputs if isinstance(output, Match)]


def trails(outputs: list[Output]) -> list[list[tuple[str | None, int]]]:
    return [[(e.step.alias, e.events[0].id) for e in match.trail] for match in matches(outputs)]


def events(outputs: list[Output]) -> list[list[int]]:
    """For each match the events of its trail, whatever their number."""
    return [[event.id for evidence in match.trail for event in evidence.events] for match in matches(outputs)]


class Story:
    """Opens of one-letter paths, at seconds, by one process."""

    def __init__(self) -> None:
        self.play = Play()
        self.proc = self.play.process()

    def opens(self, *names: str) -> Story:
        for name in names:
            path, _, at = name.partition("@")
            self.play.event("open", self.proc, path=f"/{path}", at=float(at) if at else None)
        return self

    def told_to(self, engine: Machine) -> list[Output]:
        return engine.feed(self.play.batch())
