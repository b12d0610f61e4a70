"""The daemons as a host runs them: compiled where it can be, with the priority of their units and slice, behind a gate that
drops all that it can.
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from deploy.compiled.__main__ import renew
from deploy.compiled.modules import made, obstacle
from deploy.foreground.stack import DAEMONS
from execray.errors import OperatorError
from tests.support.arena import Arena, eventually

_SHIPPED: Final = Path("policies")
_UNITS: Final = Path("deploy/systemd")
_TREE: Final = Path(__file__).parents[2]


class Settled(Arena):
    """Daemons with the niceness of their units and the share of their slice, that know what had begun when they came."""

    #: Where a share of the processors can be given: without it, what counts between two sessions is not niceness at all
    #: (/proc/sys/kernel/sched_autogroup_enabled), which is so on no host that systemd runs.
    slice: Path | None = None

    def __enter__(self) -> Self:
        others = os.environ.get("PYTHONPATH", "")
        self.stack.environment["PYTHONPATH"] = f"{as_installed()}:{others}".rstrip(":")
        self.slice = _make_slice(_setting("execray.slice", "Slice", "CPUWeight"))
        try:
            return super().__enter__()
        except BaseException:
            self._end_slice()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._end_slice()

    def await_watching(self, timeout_s: float = 30.0) -> None:
        for name in DAEMONS:
            self.as_unit(name)
        super().await_watching(timeout_s)
        assert self.status("policyd")["policies"], "no policy was loaded"
        eventually(lambda: self.status("tracerd")["gate"].get("settled", True), timeout_s)

    def as_unit(self, name: str) -> None:
        """Gives a daemon that has just started what its unit would have given it."""
        if self.slice is not None:
            (self.slice / "cgroup.procs").write_text(str(self.stack.pid(name)), encoding="ascii")
        _renice(self.stack.pid(name), _setting(f"execray-{name}.service", "Service", "Nice"))

    def _end_slice(self) -> None:
        if self.slice is not None:
            eventually(self._is_empty)
            self.slice.rmdir()

    def _is_empty(self) -> bool:
        assert self.slice is not None
        return not (self.slice / "cgroup.procs").read_text(encoding="ascii")


@cache
def as_installed() -> Path:
    """Returns the tree with what `make install` would run: engine and decoder as machine code, where this machine can make it."""
    if made(_TREE) or obstacle() is not None:
        return _TREE
    compiled = _TREE / ".execray" / "compiled"
    try:
        renew(compiled)
    except OperatorError as error:  # an interpreter without the tools: BENCH_PY goes with COMPILED=yes
        print(f"the daemons run as Python: {error}", file=sys.stderr)
        return _TREE
    return compiled


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


def _setting(unit: str, section: str, name: str) -> int:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.read(_UNITS / unit, encoding="utf-8")
    return found.getint(section, name)


def _renice(pid: int, niceness: int) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)


def _make_slice(weight: int) -> Path | None:
    """Makes a cgroup with that weight below the root, as systemd does; None where processors are not shared out by cgroups."""
    for root, file, value in (
        ("/sys/fs/cgroup/cpu", "cpu.shares", weight * 1024 // 100),
        ("/sys/fs/cgroup", "cpu.weight", weight),
    ):
        if not (Path(root) / "cgroup.procs").exists():
            continue
        made = Path(tempfile.mkdtemp(prefix="execray-bench-", dir=root))
        if (made / file).exists():
            (made / file).write_text(str(value), encoding="ascii")
            return made
        made.rmdir()
    return None
