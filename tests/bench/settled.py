"""The daemons as a host runs them: with the units' priority, and behind a gate that drops all that it can."""

from __future__ import annotations

import configparser
import os
import shutil
from pathlib import Path
from typing import Any, Final

from deploy.foreground.stack import DAEMONS
from tests.support.arena import Arena, eventually

_SHIPPED: Final = Path("policies")
_UNITS: Final = Path("deploy/systemd")


class Settled(Arena):
    """Daemons with the niceness of their units, that know what had begun when they came."""

    def await_watching(self, timeout_s: float = 30.0) -> None:
        for name in DAEMONS:
            _renice(self.stack.pid(name), _niceness(name))
        super().await_watching(timeout_s)
        assert self.status("policyd")["policies"], "no policy was loaded"
        eventually(lambda: self.status("tracerd")["gate"].get("settled", True), timeout_s)


def with_shipped(folder: Path, *more: tuple[str, str]) -> Settled:
    """Returns daemons in audit mode under the shipped policies and those given by file name and text, to be entered."""
    policies = folder / "shipped"
    policies.mkdir(parents=True, mode=0o755)
    for policy in _SHIPPED.glob("*.policy"):
        shutil.copy(policy, policies)
    for name, text in more:
        (policies / name).write_text(text)
    settings: dict[str, Any] = {"policyd": {"policy_dirs": [str(policies)]}, "tracerd": {"heartbeat_s": 1.0}}
    return Settled(folder, mode="audit", **settings)


def _niceness(name: str) -> int:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(_UNITS / f"execray-{name}.service", encoding="utf-8")
    return unit.getint("Service", "Nice")


def _renice(pid: int, niceness: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
