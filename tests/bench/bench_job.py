"""What whole jobs pay for being watched by the shipped policies: a C build, a pip install, a small web server under load.

    python -m tests.bench.bench_job --json job.json
    JOB_ROUNDS=32 python -m tests.bench.bench_job      # ten minutes, for an interval half as wide

Each job runs without the daemons, twice with them, and without them again, so that what changes on the host by and by is on both
sides; the gate on, in audit mode, their priority that of their units. The very first run isn't counted. Told are the medians, and
between what their ratio would lie in 95 of 100 such benches: on a host shared with others a run takes a tenth more or less than
the next. The bound is 1.02 of the wall clock.
So a turn under each set of daemons is accounted for as well (tests/bench/accounted.py): the time of our programs in the kernel
and of the daemons on a processor, beside the job's own. That is what a job pays that keeps all processors busy, but for caches
that others have emptied.
The daemons are as `make install` would have them: compiled (.execray/compiled) where this machine can.
Packages are installed from wheels that the bench makes, without a network. Needs root; gcc and make, and pip, for a job each.
"""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from execray.process import stat_fields
from tests.bench import command
from tests.bench.accounted import Taken, counted, taken
from tests.bench.settled import with_shipped
from tests.support.arena import Arena

ROUNDS: Final = 8  # of two runs, without and with; even
FILES: Final = 200
REQUESTS: Final = 1500
PACKAGES: Final = 12
MODULES: Final = 60  # of each package
BOUND: Final = 1.02
_DRAWS: Final = 4000
_C: Final = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int f{n}(const char *text)
{{
	char *copy = strdup(text);
	int sum = {n};
	for (size_t i = 0; i < strlen(copy); i++)
		sum += copy[i] * (int)i;
	printf("%d\\n", sum);
	free(copy);
	return sum;
}}
"""
_MAKEFILE: Final = "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nall: $(OBJECTS)\n%.o: %.c\n\t@gcc -O1 -c -o $@ $<\n"
_MODULE: Final = '''"""Module {n}."""
def f{n}(values):
    """Sums them up, {n} more than they are."""
    return sum(value * {n} for value in values) + {n}
class C{n}:
    names = [f"name{{number}}" for number in range({n})]
'''
_SERVER: Final = """
import http.server, sys
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
_CLIENT: Final = """
import sys, urllib.request
for number in range(int(sys.argv[2])):
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/page{number % 10}.html", timeout=10) as page:
        page.read()
"""


def _build(folder: Path) -> Callable[[], None]:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file{number}.c").write_text(_C.format(n=number))
    (folder / "Makefile").write_text(_MAKEFILE)

    def job() -> None:
        for made in folder.glob("*.o"):
            made.unlink()
        subprocess.run(["make", "-s", "-j2"], cwd=folder, check=True)

    return job


def _install(folder: Path) -> Callable[[], None]:
    wheels, target = folder / "wheels", folder / "target"
    wheels.mkdir(parents=True)
    for number in range(PACKAGES):
        _wheel(wheels, f"package{number}")
    pip = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "-q", "install", "--no-index"]
    pip += ["--no-cache-dir", "--root-user-action=ignore", "--find-links", str(wheels), "--target", str(target)]

    def job() -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run([*pip, *(f"package{number}" for number in range(PACKAGES))], check=True)

    return job


def _wheel(folder: Path, name: str) -> None:
    about = f"{name}-1.0.dist-info"
    files = {f"{name}/module{number}.py": _MODULE.format(n=number) for number in range(MODULES)}
    files |= {
        f"{name}/__init__.py": "",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{about}/RECORD"
    files[record] = "".join(f"{file},,\n" for file in (*files, record))
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


def _web(folder: Path) -> Callable[[], None]:
    folder.mkdir()
    for number in range(10):
        (folder / f"page{number}.html").write_text(f"<p>{number}</p>" * 500)

    def job() -> None:
        serve = [*_on(0), sys.executable, "-c", _SERVER]
        with subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = server.stdout.readline().strip()
                subprocess.run([*_on(1), sys.executable, "-c", _CLIENT, port, str(REQUESTS)], check=True)
            finally:
                server.kill()

    return job


def _on(number: int) -> list[str]:
    """Returns the command that keeps a program on one of our processors: who moves when is most of the noise."""
    ours = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(ours[number % len(ours)])]


def run() -> dict[str, Any]:
    """Returns for each job the medians in seconds and their ratio, and what came of the events; what a missing tool forbids."""
    rounds = _rounds()
    missing = [tool for tool in ("gcc", "make") if shutil.which(tool) is None]
    skipped = [f"build: no {tool}" for tool in missing]
    if importlib.util.find_spec("pip") is None:
        skipped.append("install: no pip")
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as name:
        folder = Path(name)
        jobs = {"web": _web(folder / "web")}
        if not missing:
            jobs["build"] = _build(folder / "build")
        if "install: no pip" not in skipped:
            jobs["install"] = _install(folder / "install")
        runs = _Runs(jobs)
        runs.all("")  # fills the page cache
        daemons: list[_Spent] = []
        accounts: list[dict[str, float]] = []
        for number in range(rounds // 2):
            runs.all("without")
            with with_shipped(folder / f"{number}") as arena:
                before = _spent(arena)
                runs.all("with")
                runs.all("with")
                daemons.append(_spent(arena) - before)
                accounts.append(runs.accounted([arena.stack.pid(name) for name in ("tracerd", "policyd")]))
                gate = _gate(arena)
                compiled = _compiled(arena)
            runs.all("without")
    result = {
        job: {**_ratio(found), "accounted": round(statistics.median(each[job] for each in accounts), 4)}
        for job, found in runs.times.items()
    }
    return {**result, "gate": gate, "daemons": _per_round(daemons), "compiled": compiled, "skipped": skipped}


def _rounds() -> int:
    """Returns how many rounds JOB_ROUNDS asks for. Exits with one line where that is no number of two or more."""
    asked = os.environ.get("JOB_ROUNDS", "")
    if asked and not (asked.isdecimal() and int(asked) >= 2):
        sys.exit(f"JOB_ROUNDS={asked}: not a number of rounds\nhint: an even one, as JOB_ROUNDS=32")
    return int(asked) if asked else ROUNDS


class _Runs:
    """What each job took, in seconds of the wall clock, in either way."""

    def __init__(self, jobs: Mapping[str, Callable[[], None]]) -> None:
        self._jobs = jobs
        self.times: dict[str, dict[str, list[float]]] = {job: {"without": [], "with": []} for job in jobs}

    def all(self, way: str) -> None:
        """Runs every job once; in a way that isn't one of both, without noting it."""
        for job, work in self._jobs.items():
            os.sync()  # what the job before has left to be written is no part of this one
            began = time.monotonic()
            work()
            if way:
                self.times[job][way].append(time.monotonic() - began)

    def accounted(self, daemons: Sequence[int]) -> dict[str, float]:
        """Runs every job once; returns for each what it and the daemons took, by what it takes without our programs."""
        shares = {}
        with counted():
            for job, work in self._jobs.items():
                before, used = taken(daemons), children_cpu_s()
                work()
                own_s = children_cpu_s() - used
                ours: Taken = taken(daemons) - before
                shares[job] = (own_s + ours.daemons_s) / (own_s - ours.programs_s)
        return shares


def children_cpu_s() -> float:
    """Returns the processor time of all children that have ended: the daemons, which haven't, are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True, slots=True)
class _Spent:
    """What the daemons have used of processors, in seconds, and for how much, since they began."""

    tracerd_s: float
    policyd_s: float
    events: int
    batches: int

    def __sub__(self, other: _Spent) -> _Spent:
        return _Spent(
            self.tracerd_s - other.tracerd_s,
            self.policyd_s - other.policyd_s,
            self.events - other.events,
            self.batches - other.batches,
        )


def _spent(arena: Arena) -> _Spent:
    status = arena.status("tracerd")
    tracerd_s, policyd_s = (_used_s(arena.stack.pid(name)) for name in ("tracerd", "policyd"))
    return _Spent(tracerd_s, policyd_s, status["events"], status["batches"])


def _used_s(pid: int) -> float:
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _per_round(found: Sequence[_Spent]) -> dict[str, Any]:
    """Returns medians for one turn of all jobs; two were run under each set of daemons."""
    events = statistics.median(spent.events for spent in found)
    return {
        "events": round(events / 2),
        "batches": round(statistics.median(spent.batches for spent in found) / 2),
        "tracerd_s": round(statistics.median(spent.tracerd_s for spent in found) / 2, 3),
        "policyd_s": round(statistics.median(spent.policyd_s for spent in found) / 2, 3),
        "us_per_event": round(1e6 * statistics.median((s.tracerd_s + s.policyd_s) / s.events for s in found), 1),
    }


def _compiled(arena: Arena) -> dict[str, bool]:
    """Returns whether decoder and engine were machine code, by what the daemons say."""
    decoder, engine = arena.status("tracerd")["decoder"], arena.status("policyd")["engine"]
    return {"decoder": decoder["compiled"], "engine": engine["compiled"]}


def _gate(arena: Arena) -> dict[str, Any]:
    status = arena.status("tracerd")
    sums = {what: sum(status["gate"][what].values()) for what in ("passed", "dropped")}
    return {**sums, "lost": sum(status["lost"].values())}


def _ratio(found: dict[str, list[float]]) -> dict[str, Any]:
    median = {way: statistics.median(seconds) for way, seconds in found.items()}
    low, high = _interval(found["with"], found["without"])
    return {
        **{f"{way}_s": round(seconds, 3) for way, seconds in median.items()},
        "ratio": round(median["with"] / median["without"], 3),
        "interval": [round(low, 3), round(high, 3)],
        "spread": {way: [round(min(seconds), 3), round(max(seconds), 3)] for way, seconds in found.items()},
        "runs": found,
        "bound": BOUND,
    }


def _interval(others: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    """Returns between what the ratio of medians lies in 95 of 100 draws, with replacement, of runs that were side by side.

    The percentile bootstrap (Efron 1979).
    """
    draw = random.Random(6)  # the same figures from the same runs
    indexes = range(len(base))
    ratios = []
    for _ in range(_DRAWS):
        chosen = draw.choices(indexes, k=len(base))
        ratios.append(statistics.median(others[i] for i in chosen) / statistics.median(base[i] for i in chosen))
    ratios.sort()
    return ratios[_DRAWS // 40], ratios[-_DRAWS // 40]


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = [
        f"{'job':8}{'without s':>22}{'with s':>22}{'ratio':>8}{'95 of 100':>18}{'accounted':>12}   (medians; bound {BOUND})"
    ]
    for job in (name for name in ("build", "install", "web") if name in result):
        found = result[job]
        cells = [
            f"{found[f'{way}_s']:.2f} ({found['spread'][way][0]:.2f}-{found['spread'][way][1]:.2f})"
            for way in ("without", "with")
        ]
        between = "{:.3f} to {:.3f}".format(*found["interval"])
        lines.append(f"{job:8}{cells[0]:>22}{cells[1]:>22}{found['ratio']:8.3f}{between:>18}{found['accounted']:12.4f}")
    gate = result["gate"]
    lines.append(f"gate, last run: {gate['dropped']:,} events dropped, {gate['passed']:,} passed, {gate['lost']} lost")
    spent = result["daemons"]
    lines.append(
        f"daemons, all jobs once: tracerd {spent['tracerd_s']:.2f} s, policyd {spent['policyd_s']:.2f} s for "
        f"{spent['events']:,} events in {spent['batches']:,} batches, {spent['us_per_event']:.0f} us an event"
    )
    lines.append(
        ", ".join(f"{name} {'compiled' if was else 'not compiled'}" for name, was in result["compiled"].items())
    )
    return "\n".join([*lines, *result["skipped"]])


if __name__ == "__main__":
    command.main(__doc__, run, table)
