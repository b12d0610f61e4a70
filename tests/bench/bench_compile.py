"""How long compiling takes: 1,000 policies cold, one changed among them, and `policy check` of one file, start-up included.

    python -m tests.bench.bench_compile --json compile.json

`cold` is a new process that reads and compiles all policies and builds what the engine runs; of `one changed`, the parts are
reading and compiling, building, and the swap. `policy check` runs in turn with Python alone, so that what the machine does
besides falls on both alike; bytecode is there, as in an installation. Medians; `cpu` is processor time.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policyd.engine.machine import Machine
from policyd.store import PolicyStore
from tests.bench import command
from tests.bench.bench_reload import policy_text

POLICIES = 1000
ROUNDS = 15
STARTS = 11
GOALS = {"cold_ms": 3000, "one_changed_ms": 50, "check_ms": 150}
_COLD = (
    "import sys; from pathlib import Path; from policyd.engine.machine import Machine; from policyd.store import PolicyStore\n"
    "store = PolicyStore((Path(sys.argv[1]),), frozenset({0, int(sys.argv[2])}))\n"
    "found = store.compile(); assert found.ok, found.rendered\n"
    "machine = Machine(); machine.swap(machine.prepare(found.policies, 1))\n"
)
_ONE = """path "leak" key process within 90s {
    open { path = "/etc/shadow", access has READ } as secret
    connect { dst.port != 53 }
}
"""


def _process(arguments: Sequence[str], cache: Path) -> tuple[float, float]:
    """Runs Python; returns the wall and processor time that it took, in ms."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(cache)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=env, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall * 1000, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def _alternating(runs: dict[str, Sequence[str]], cache: Path, rounds: int) -> dict[str, float]:
    """Returns the medians of several commands, run in turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for arguments in runs.values():
        _process(arguments, cache)  # writes the bytecode
    for _ in range(rounds):
        for name, arguments in runs.items():
            taken[name].append(_process(arguments, cache))
    figures: dict[str, float] = {}
    for name, times in taken.items():
        figures[f"{name}_ms"] = round(statistics.median(wall for wall, _ in times), 1)
        figures[f"{name}_cpu_ms"] = round(statistics.median(cpu for _, cpu in times), 1)
    return figures


def _one_changed(folder: Path, paths: Sequence[Path]) -> dict[str, float]:
    store, machine = PolicyStore((folder,), frozenset({0, os.geteuid()})), Machine()
    candidate = store.compile()
    machine.swap(machine.prepare(candidate.policies, 1))
    store.commit(candidate)
    parts: dict[str, list[float]] = {"compile": [], "build": [], "swap": []}
    cpus: list[float] = []
    gc.freeze()
    gc.disable()  # as the reloader does
    try:
        for version in range(1, ROUNDS + 1):
            changed = version * 37 % len(paths)
            paths[changed].write_text(policy_text(changed, version))
            began, cpu = time.perf_counter(), time.process_time()
            candidate = store.compile()
            compiled = time.perf_counter()
            fresh = machine.prepare(candidate.policies, version + 1)
            built = time.perf_counter()
            machine.swap(fresh)
            store.commit(candidate)
            ended = time.perf_counter()
            cpus.append((time.process_time() - cpu) * 1000)
            for name, ms in zip(parts, (compiled - began, built - compiled, ended - built), strict=True):
                parts[name].append(ms * 1000)
    finally:
        gc.enable()
        gc.unfreeze()
    figures = {f"one_changed_{name}_ms": round(statistics.median(times), 1) for name, times in parts.items()}
    total = [sum(times) for times in zip(*parts.values(), strict=True)]
    figures["one_changed_cpu_ms"] = round(statistics.median(cpus), 1)
    return {"one_changed_ms": round(statistics.median(total), 1), **figures}


def run() -> dict[str, Any]:
    """Returns the figures."""
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as name:
        folder, cache = Path(name) / "policies", Path(name) / "cache"
        folder.mkdir(mode=0o755)
        paths = [folder / f"{number:05}.policy" for number in range(POLICIES // 2)]
        for number, path in enumerate(paths):
            path.write_text(policy_text(number, 0))
            path.chmod(0o644)
        one = Path(name) / "one.policy"
        one.write_text(_ONE)
        cold = _alternating({"cold": ["-c", _COLD, str(folder), str(os.geteuid())]}, cache, 3)
        check = ["-m", "execray.ctl.main", "policy", "check", str(one)]
        starts = _alternating({"check": check, "python": ["-c", "pass"]}, cache, STARTS)
        return {"policies": POLICIES, **cold, **_one_changed(folder, paths), **starts}


def table(result: dict[str, Any]) -> str:
    """Returns the figures for people."""
    lines = [f"{'':<42} {'ms':>8} {'cpu':>8} {'goal':>8}"]
    rows = (
        (f"{result['policies']} policies, cold", "cold"),
        ("one of them changed", "one_changed"),
        ("  reading and compiling", "one_changed_compile"),
        ("  building", "one_changed_build"),
        ("  the swap", "one_changed_swap"),
        ("policy check of one file", "check"),
        ("  Python alone", "python"),
    )
    for label, name in rows:
        cpu, goal = result.get(f"{name}_cpu_ms", ""), GOALS.get(f"{name}_ms", "")
        lines.append(f"{label:<42} {result[f'{name}_ms']:>8} {cpu:>8} {goal:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
