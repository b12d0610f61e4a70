"""Kills in the kernel through the whole system: the policy's text in, the attacker dead, the alert with its evidence out."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import Arena, eventually, killed

pytestmark = pytest.mark.timeout(90)

#: A step is a file of the test's own, which nothing else opens.
ONE_STEP = """
policy "touched" key process response enforce {
    meta { severity: critical }
    open { path = "DECOY" ret >= 0 } as touch
    on match { alert critical; kill }
}
"""
SEQUENCE = """
policy "theft" key process within 1m response enforce {
    open    { path = "DECOY" ret >= 0 } as theft
    connect { family = AF_INET dst.port = PORT } as out
    on match { alert critical; kill; capture net for 1s max 1MiB }
    EXCEPT
}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="xr-inline-", dir="/run"))
    yield path
    shutil.rmtree(path)


def arena_of(folder: Path, policy: str, inline: bool = True, **settings: Any) -> Arena:
    return Arena(folder, policy, tracerd={"inline": "on" if inline else "off"}, **settings)


def reader(arena: Arena) -> subprocess.Popen[bytes]:
    """Reads the decoy, and then says so."""
    script = 'read -r stolen < decoy/shadow; echo "$stolen"'
    return subprocess.Popen([arena.attacker, "-c", script], cwd=arena.dir, stdout=subprocess.PIPE)


def orders(arena: Arena) -> str:
    audit = arena.dir / "state" / "enforcer" / "orders.jsonl"
    return audit.read_text() if audit.exists() else ""


def test_the_last_call_is_the_last_thing_that_happens_and_the_alert_says_by_whom(folder: Path) -> None:
    with arena_of(folder, ONE_STEP) as arena:
        with reader(arena) as thief:
            said, _ = thief.communicate(timeout=20)
        assert (said, thief.returncode) == (b"", -signal.SIGKILL)
        alert = arena.await_alert(lambda found: found["execray"].get("policy") == "touched")
        own = alert["execray"]
        assert own["killed_by"] == "kernel" and own["action"]["kill"] == {"result": "killed", "by": "kernel"}
        (event,) = own["trail"][0]["events"]
        assert event["path"] == str(arena.decoy) and event["capture_flags"] == ["killed"]
        assert alert["process"]["pid"] == thief.pid and alert["process"]["executable"] == str(arena.attacker)
        policyd, tracerd = arena.status("policyd"), arena.status("tracerd")
        assert policyd["kills"] == {"killed": 1} and policyd["inline"]["unexplained"] == 0
        assert policyd["enforcer"]["sent"] == policyd["enforcer"]["fallbacks"] == 0 and not orders(arena)
        assert tracerd["inline"]["killed"] == 1 and tracerd["inline"]["in_force"]


def test_a_sequence_ends_in_its_last_call_and_what_else_is_asked_for_is_done(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        policy = SEQUENCE.replace("PORT", str(port)).replace("EXCEPT", "")
        with arena_of(folder, policy, enforcer={"capture_interface": "lo"}) as arena:
            attack = arena.attack(port)
            attack.step(2)
            assert killed(attack.wait())
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                assert connection.recv(100) == b""  # it connects, and not one byte follows
            alert = arena.await_alert(lambda found: found["execray"].get("policy") == "theft")
            assert alert["execray"]["killed_by"] == "kernel"
            assert [step["alias"] for step in alert["execray"]["trail"]] == ["theft", "out"]
            assert "kill" not in orders(arena) and "capture" in orders(arena)


@pytest.mark.parametrize(
    ("inline", "mode", "response"),
    [(False, "enforce", "enforce"), (True, "audit", "enforce"), (True, "enforce", "audit")],
)
def test_without_all_of_switch_mode_and_response_the_kernel_kills_nobody(
    folder: Path, inline: bool, mode: str, response: str
) -> None:
    policy = ONE_STEP.replace("response enforce", f"response {response}")
    with arena_of(folder, policy, inline, mode=mode) as arena:
        with reader(arena) as thief:
            said, _ = thief.communicate(timeout=20)
        alert = arena.await_alert(lambda found: found["execray"].get("policy") == "touched")
        assert alert["execray"].get("killed_by") != "kernel"
        if "audit" in (mode, response):
            assert said and alert["execray"]["action"]["kill"]["result"] == "would_kill"
        assert arena.status("tracerd")["inline"]["killed"] == 0


def test_an_excepted_process_lives(folder: Path) -> None:
    policy = ONE_STEP.replace("on match", 'except "the tests" { uid = 0 }\n    on match')
    with arena_of(folder, policy) as arena:
        with reader(arena) as thief:
            said, _ = thief.communicate(timeout=20)
        assert said and thief.returncode == 0
        eventually(lambda: arena.status("policyd")["alerts"]["excepted"] == 1)


def test_the_mode_is_audit_at_once_when_it_is_set(folder: Path) -> None:
    with arena_of(folder, ONE_STEP) as arena:
        assert arena.status("tracerd")["inline"]["in_force"]
        with arena.stack.control("policyd") as control:
            control.call("mode", mode="audit")
        eventually(lambda: not arena.status("tracerd")["inline"]["in_force"])
        with reader(arena) as thief:
            assert thief.communicate(timeout=20)[0]
        with arena.stack.control("policyd") as control:
            control.call("mode", mode="enforce")
        eventually(lambda: arena.status("tracerd")["inline"]["in_force"])
        with reader(arena) as thief:
            assert not thief.communicate(timeout=20)[0]


def test_without_policyd_the_kernel_kills_nobody(folder: Path) -> None:
    with arena_of(folder, ONE_STEP) as arena:
        arena.stack.stop("policyd")
        eventually(lambda: not arena.status("tracerd")["inline"]["in_force"])
        with reader(arena) as thief:
            assert thief.communicate(timeout=20)[0]
        assert arena.status("tracerd")["inline"]["killed"] == 0


def test_a_policy_that_is_reloaded_away_kills_nobody(folder: Path) -> None:
    with arena_of(folder, ONE_STEP) as arena:
        (arena.policies / "theft.policy").unlink()
        assert arena.ctl("reload").returncode == 0
        eventually(lambda: arena.status("tracerd")["inline"]["rules"] == 0)
        with reader(arena) as thief:
            assert thief.communicate(timeout=20)[0]


def test_a_protected_program_lives(folder: Path) -> None:
    with arena_of(folder, ONE_STEP, protect_exe=[str(folder / "attacker")]) as arena:
        with reader(arena) as thief:
            assert thief.communicate(timeout=20)[0]
        alert = arena.await_alert(lambda found: found["execray"].get("policy") == "touched")
        assert alert["execray"]["action"]["kill"]["result"] in ("refused", "gone")
        assert arena.status("tracerd")["inline"]["spared"] == 1


def test_kills_of_the_kernel_count_in_the_budget_of_the_others(folder: Path) -> None:
    # by another name it is left to user space: there the budget is spent, too
    with arena_of(folder, ONE_STEP, enforcer={"kills_per_minute": 2}) as arena:
        for _ in range(2):
            with reader(arena) as thief:
                assert not thief.communicate(timeout=20)[0]
        eventually(lambda: arena.status("policyd")["kills"].get("killed") == 2)
        with reader(arena) as thief:
            assert thief.communicate(timeout=20)[0]
        eventually(lambda: arena.status("policyd")["kills"].get("refused") == 1)
        assert arena.status("tracerd")["inline"]["budget"] == 1


def test_explain_says_whether_a_policy_is_inline(folder: Path) -> None:
    with arena_of(folder, ONE_STEP) as arena:
        said = arena.ctl("policy", "explain", str(arena.policies / "theft.policy"))
        assert "Inline     yes" in said.stdout, said.stderr
