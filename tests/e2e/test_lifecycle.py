"""Daemons come and go, in any order; what is left finds together again, and an attack is stopped once."""

from __future__ import annotations

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from deploy.foreground.stack import DAEMONS
from tests.support.arena import Arena, Attack, eventually, killed

pytestmark = pytest.mark.timeout(120)


def await_whole(arena: Arena) -> None:
    """Until each daemon has found the other two."""

    def whole() -> bool:
        tracerd, policyd = arena.status("tracerd"), arena.status("policyd")
        ours = {arena.stack.pid(name) for name in DAEMONS}
        return (
            ours <= set(tracerd["hidden"])
            and tracerd["subscriber"]
            and all(hook["live"] for hook in tracerd["hooks"].values() if hook["needed"])
            and policyd["stream"]["live"]
            and policyd["enforcer"]["connected"]
        )

    eventually(whole, 15)


def outcomes(arena: Arena, pid: int) -> list[str]:
    """Results in the enforcer's audit log of the orders on a process, captures left out."""
    file = arena.dir / "state" / "enforcer" / "orders.jsonl"
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    ordered = {
        line["order"]["order_id"]
        for line in lines
        if line["what"] == "order" and line["order"]["process"]["pid"] == pid and line["order"]["action"] == "kill"
    }
    return [line["outcome"]["result"] for line in lines if line.get("outcome", {}).get("order_id") in ordered]


def finish(arena: Arena, attack: Attack) -> None:
    """Takes the last step, and shows that it was seen and killed exactly once."""
    attack.step()
    assert killed(attack.wait())
    alert = arena.await_alert(lambda alert: alert.get("process", {}).get("pid") == attack.pid)
    kill = alert["execray"]["action"]["kill"]
    assert (kill["result"], kill["by"]) == ("killed", "enforcer")
    eventually(lambda: bool(outcomes(arena, attack.pid)))
    assert outcomes(arena, attack.pid) == ["killed"]
    found = [a for a in arena.alerts() if a.get("process", {}).get("pid") == attack.pid]
    assert [a["execray"]["kind"] for a in found] == ["match"]


def attack_once(arena: Arena, port: int) -> None:
    attack = arena.attack(port)
    attack.step(2)
    finish(arena, attack)


@pytest.mark.parametrize("order", list(itertools.permutations(DAEMONS)), ids="-".join)
def test_any_order_of_starting_works(tmp_path: Path, collector: int, order: tuple[str, ...]) -> None:
    arena = Arena(tmp_path)
    arena.stack.order = order
    with arena:
        await_whole(arena)
        attack_once(arena, collector)


def test_each_daemon_that_is_killed_comes_back_and_an_attack_is_stopped_once(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path) as arena:
        await_whole(arena)
        for name in DAEMONS:
            arena.stack.stop(name, signal.SIGKILL)
            arena.stack.start(name)
            await_whole(arena)
            attack_once(arena, collector)


def test_all_daemons_killed_at_once_come_back(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path) as arena:
        await_whole(arena)
        attack_once(arena, collector)
        for name in DAEMONS:
            os.kill(arena.stack.pid(name), signal.SIGKILL)
        for name in DAEMONS:
            arena.stack.stop(name)
        for name in reversed(DAEMONS):
            arena.stack.start(name)
        await_whole(arena)
        attack_once(arena, collector)


@pytest.mark.parametrize("name", ["enforcer", "tracerd"])
def test_sequence_that_began_before_a_daemon_was_killed_ends_after_it_is_back(
    tmp_path: Path, collector: int, name: str
) -> None:
    """policyd holds what is under way; neither of the others may take it along."""
    with Arena(tmp_path) as arena:
        await_whole(arena)
        attack = arena.attack(collector)
        attack.step(2)
        eventually(lambda: arena.status("policyd")["engine"]["partials"] >= 1)
        arena.stack.stop(name, signal.SIGKILL)
        arena.stack.start(name)
        await_whole(arena)
        finish(arena, attack)


def test_what_happened_while_policyd_was_dead_is_found_when_it_is_back(tmp_path: Path, collector: int) -> None:
    """tracerd keeps events for it; the process that did the last step is killed late, but once."""
    with Arena(tmp_path) as arena:
        await_whole(arena)
        arena.stack.stop("policyd", signal.SIGKILL)
        eventually(lambda: not arena.status("tracerd")["subscriber"])
        attack = arena.attack(collector)
        attack.step(3)
        assert attack.process.stdout is not None
        arena.stack.start("policyd")
        assert killed(attack.wait())
        alert = arena.await_alert(lambda alert: alert.get("process", {}).get("pid") == attack.pid)
        assert alert["execray"]["action"]["kill"]["result"] == "killed"
        eventually(lambda: bool(outcomes(arena, attack.pid)))
        assert outcomes(arena, attack.pid) == ["killed"]
