"""Somebody follows every open of a busy host while attacks happen: all of these are found, and nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.arena import Arena, eventually, killed

pytestmark = pytest.mark.timeout(120)

ATTACKS = 12
FLOOD = "import os\nwhile True: os.close(os.open('/etc/hostname', 0))"
POLICY = """
policy "theft" key process within 1m response enforce {
    open    { path = "DECOY" exe = "ATTACKER" } as theft
    connect { family in [AF_INET, AF_INET6] exe = "ATTACKER" } as out
    on match { alert; kill }
}
"""


@contextmanager
def running(*commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    children: list[subprocess.Popen[bytes]] = []
    try:
        for argv in commands:
            children.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_flood_that_somebody_follows_costs_no_detection(tmp_path: Path, collector: int) -> None:
    limits = {"kills_per_minute": 100, "kills_per_minute_per_policy": 100}
    with Arena(tmp_path, POLICY, enforcer=limits) as arena:
        eventually(lambda: arena.status("tracerd")["gate"]["mode"] == "on")
        flood = [sys.executable, "-I", "-S", "-c", FLOOD]
        tail = [*arena.ctl_command, "events", "--type", "open", "--json"]
        for _ in range(ATTACKS):
            with running(tail):
                eventually(lambda: arena.status("tracerd")["gate"]["followed"] == ["open"], 30)
                with running(*[flood] * (os.cpu_count() or 1)):
                    attack = arena.attack(collector)
                    attack.step(2)
                    assert killed(attack.wait(30))
        eventually(lambda: len(arena.alerts()) >= ATTACKS, 30)
        status = arena.status("tracerd")
        assert not any(status["lost"].values()), status["lost"]
        assert arena.status("policyd")["lost"] == {}
        assert [alert["execray"]["kind"] for alert in arena.alerts()] == ["match"] * ATTACKS
