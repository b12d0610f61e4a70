"""What an operator does and sees: reload, status, losses, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import THEFT, Arena, eventually, killed

SECOND = """
policy "touch" response enforce {
    open { path endswith "/tripwire" exe = "ATTACKER" }
    on match { alert; kill }
}
"""


def test_reload_is_all_or_nothing(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path) as arena:
        begun = arena.attack(collector)
        begun.step(2)  # open, connect: a sequence in flight while policies come and go
        eventually(lambda: arena.status("policyd")["engine"]["partials"] >= 1)

        arena.write_policy("broken.policy", 'policy "x" { open { pth = "a" } }')
        done = arena.ctl("reload")
        assert done.returncode == 1
        assert "ER02" in done.stdout + done.stderr and "broken.policy:1:" in done.stdout + done.stderr
        assert [p["name"] for p in json.loads(arena.ctl("policy", "list", "--json").stdout)["policies"]] == ["theft"]

        plans = arena.status("tracerd")["gate"]["generation"]
        arena.write_policy("broken.policy", SECOND)
        done = arena.ctl("reload", "--json")
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["generation"] == 2
        eventually(lambda: arena.status("tracerd")["gate"]["generation"] > plans)  # the sensor takes it a moment later

        (tmp_path / "tripwire").touch()
        with subprocess.Popen(
            [arena.attacker, "-c", "read -r x < tripwire; read -r x"], cwd=tmp_path, stdin=subprocess.PIPE
        ) as tripped:
            assert killed(tripped.wait(10))
        begun.step()
        assert killed(begun.wait())


def test_fifty_reloads_under_load_lose_and_double_no_sequence(tmp_path: Path, collector: int) -> None:
    limits = {"kills_per_minute": 100, "kills_per_minute_per_policy": 100}
    with Arena(tmp_path, enforcer=limits) as arena:
        attacks = [arena.attack(collector) for _ in range(24)]
        for attack in attacks:
            attack.step(2)  # open, connect
        eventually(lambda: arena.status("policyd")["engine"]["partials"] >= len(attacks))
        ending = iter(attacks)
        noise = subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: open('/dev/null').close()"])
        try:
            with arena.stack.control("policyd", timeout_s=20.0) as control:
                for number in range(50):
                    arena.write_policy("touch.policy", SECOND.replace("/tripwire", f"/tripwire{number}"))
                    report = control.call("reload")
                    assert report["ok"] and report["unchanged"] == ["theft"], report
                    if number % 2 and (last := next(ending, None)):
                        last.step()  # the write that completes it
        finally:
            noise.kill()
            noise.wait()
        assert next(ending, None) is None
        assert all(killed(attack.wait()) for attack in attacks)
        arena.await_alert(lambda a: a.get("process", {}).get("pid") == attacks[-1].pid)
        eventually(lambda: len(arena.alerts()) >= len(attacks))
        found = Counter(a["process"]["pid"] for a in arena.alerts() if a["execray"]["kind"] == "match")
        assert found == {attack.pid: 1 for attack in attacks}
        assert arena.status("policyd")["generation"] == 51


def test_a_tail_attaches_its_hooks_shows_real_events_and_leaves_nothing(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        hooks = arena.status("tracerd")["hooks"]
        assert not hooks["chmod"]["needed"] and hooks["open"]["needed"]
        tail = subprocess.Popen(
            [*arena.ctl_command, "events", "--type", "chmod,write", "--exe", str(arena.attacker), "-n", "1", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            eventually(lambda: arena.status("tracerd")["hooks"]["chmod"]["attached"])
            script = 'import os, sys; os.fchmod(os.open(sys.argv[1], os.O_RDONLY), 0o640); os.write(2, b"root:x")'
            # by another program too, which the tail doesn't want
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", script, arena.decoy], check=True, stderr=subprocess.DEVNULL
            )
            subprocess.run([arena.attacker, "-c", "echo root:secret"], check=True, stdout=subprocess.DEVNULL)
            out, _ = tail.communicate(timeout=20)
        finally:
            tail.kill()
            tail.wait()
        record = json.loads(out)
        assert tail.returncode == 0
        assert (record["event"], record["exe"], record["ret"]) == ("write", str(arena.attacker), 12)
        assert "content" not in record  # the policy of this arena asks for it, the tail did not
        eventually(lambda: not arena.status("tracerd")["hooks"]["chmod"]["needed"])
        assert arena.status("policyd")["tails"]["open"] == 0


def test_status_and_doctor_say_how_it_is(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        eventually(lambda: all(h["live"] for h in arena.status("tracerd")["hooks"].values() if h["needed"]))
        done = arena.ctl("status", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        status = json.loads(done.stdout)
        assert {d for d in ("tracerd", "policyd", "enforcer") if d in json.dumps(status)}
        text = arena.ctl("status")
        assert text.returncode == 0 and "\x1b[" not in text.stdout
        doctor = arena.ctl("doctor")
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        assert "er_exec" in doctor.stdout and "er_sys_exit" in doctor.stdout
        assert "verified instructions" in doctor.stdout and "table er_creds" in doctor.stdout
        assert "events dropped in the kernel" in text.stdout and "events dropped in the kernel" in doctor.stdout
        arena.stack.stop("enforcer")
        assert arena.ctl("status").returncode == 3


def test_strangers_are_refused_with_a_hint(tmp_path: Path) -> None:
    with Arena(tmp_path) as arena:
        arena.stack.runtime_dir.chmod(0o755)
        for name in ("policyd", "enforcer", "tracerd"):
            path = arena.stack.runtime_dir / name / "ctl.sock"
            path.parent.chmod(0o755)
            path.chmod(0o666)
            # refused before a word is said
            code = (
                "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]);"
                "print(s.recv(65536).decode())"
            )
            said = subprocess.run(
                ["/usr/bin/python3", "-I", "-S", "-c", code, path],
                user=65534,
                capture_output=True,
                text=True,
                check=True,
            )
            answer = json.loads(said.stdout)
            assert answer["ok"] is False and "not permitted" in answer["error"] and answer["hint"]


def test_a_flood_past_the_ring_is_told_in_status_and_in_an_alert(tmp_path: Path) -> None:
    policy = THEFT.replace('path = "DECOY" ', "")
    with Arena(tmp_path, policy) as arena:
        os.kill(arena.stack.pid("tracerd"), signal.SIGSTOP)
        try:
            code = "import os\nfor i in range(150000):\n    os.close(os.open('/dev/null', 0))\n"
            subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
        finally:
            os.kill(arena.stack.pid("tracerd"), signal.SIGCONT)
        eventually(lambda: arena.status("tracerd")["lost"]["ring"] > 0)
        lost = arena.status("tracerd")["lost"]["ring"]
        eventually(lambda: arena.status("policyd")["lost"].get("ring") == lost)

        def told() -> int:
            return sum(_lost(a) for a in arena.alerts() if a["execray"]["kind"] == "sensor_loss")

        # the first alert comes at once, the rest is added up in the next; a stop writes what is due
        eventually(lambda: told() > 0)
        arena.stack.stop("policyd")
        assert told() == lost


def _lost(alert: dict[str, Any]) -> int:
    assert set(alert["execray"]["lost"]) == {"ring"}
    count: int = alert["execray"]["lost"]["ring"]["count"]
    return count


@pytest.mark.parametrize("name", ["tracerd", "policyd", "enforcer"])
def test_random_bytes_on_every_socket_leave_the_daemons_well(tmp_path: Path, collector: int, name: str) -> None:
    import socket

    with Arena(tmp_path) as arena:
        sockets = list((arena.stack.runtime_dir / name).glob("*.sock"))
        assert sockets
        for path in sockets:
            for junk in (os.urandom(70000), b"{" * 70000 + b"\n", b"\xff" * 8, b'{"v":99}\n', b""):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(5)
                    sock.connect(str(path))
                    try:
                        sock.sendall(junk)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(65536):
                            pass
                    except (BrokenPipeError, ConnectionResetError):
                        continue
        attack = arena.attack(collector)
        attack.step(3)
        assert killed(attack.wait())
        with arena.stack.control(name) as control:
            assert control.call("status")["pid"] == arena.stack.pid(name)
