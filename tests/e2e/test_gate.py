"""The gate in the running system: what no policy wants is dropped in the kernel, and the attack is still found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import Arena, eventually, killed

pytestmark = pytest.mark.timeout(90)

NOBODYS = 20_000  # more than the host's own forks and executions meanwhile, which always pass
WORK = "import sys\nfor number in range(int(sys.argv[1])): open('/etc/hostname').close()"
POLICY = """
policy "theft" key process within 1m response enforce {
    open    { path = "DECOY" exe = "ATTACKER" } as theft
    connect { family in [AF_INET, AF_INET6] exe = "ATTACKER" } as out
    on match { alert; kill }
}
"""


def counted(arena: Arena, what: str) -> int:
    gate: dict[str, Any] = arena.status("tracerd")["gate"]
    return int(gate[what].get("open", 0))


@pytest.mark.parametrize("mode", ["on", "shadow"])
def test_what_no_policy_wants_is_dropped_and_what_one_wants_is_found(tmp_path: Path, collector: int, mode: str) -> None:
    with Arena(tmp_path, POLICY, tracerd={"gate": mode}) as arena:
        eventually(lambda: arena.status("tracerd")["gate"]["mode"] == mode)
        before = arena.status("policyd")["events"]
        dropped = counted(arena, "dropped")
        subprocess.run([sys.executable, "-c", WORK, str(NOBODYS)], check=True)
        attack = arena.attack(collector)
        attack.step(2)
        assert killed(attack.wait())
        arena.await_alert(lambda alert: alert.get("process", {}).get("pid") == attack.pid)
        assert counted(arena, "dropped") - dropped >= NOBODYS
        status = arena.status("policyd")
        assert status["gate"]["needed"] == 0 and not status["gate"]["open"]
        # with the gate on, policyd never gets to see them
        assert (status["events"] - before >= NOBODYS) is (mode == "shadow")
        assert status["lost"] == {}
