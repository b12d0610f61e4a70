"""What whole jobs pay for being watched by the shipped policies: a C build, and a small web server under load.

    python -m tests.bench.bench_job --json job.json

Each job runs with the daemons and without them in turn, the gate on, in audit mode; the first run of each isn't counted. The
bound is 1.02 of the wall clock. The job's own processor time is told as well: it is less disturbed by other work on the host.
Needs root, gcc and make.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.bench import command
from tests.support.arena import Arena, eventually

ROUNDS: Final = 5
FILES: Final = 200
REQUESTS: Final = 1500
BOUND: Final = 1.02
_SHIPPED: Final = Path("policies")
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


def _web(folder: Path) -> Callable[[], None]:
    folder.mkdir()
    for number in range(10):
        (folder / f"page{number}.html").write_text(f"<p>{number}</p>" * 500)

    def job() -> None:
        with subprocess.Popen([sys.executable, "-c", _SERVER], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                port = server.stdout.readline().strip()
                subprocess.run([sys.executable, "-c", _CLIENT, port, str(REQUESTS)], check=True)
            finally:
                server.kill()

    return job


def run() -> dict[str, Any]:
    """Returns for each job the medians in seconds and their ratio, and what came of the events; what a missing tool forbids."""
    missing = [tool for tool in ("gcc", "make") if shutil.which(tool) is None]
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as name:
        folder = Path(name)
        jobs = {"web": _web(folder / "web")} | ({} if missing else {"build": _build(folder / "build")})
        times: dict[str, dict[str, list[float]]] = {job: {"without": [], "with": []} for job in jobs}
        cpu: dict[str, dict[str, list[float]]] = {job: {"without": [], "with": []} for job in jobs}
        gate: list[dict[str, Any]] = []
        for number in range(ROUNDS + 1):
            for way in ("without", "with"):
                with ExitStack() as stack:
                    arena = stack.enter_context(_watching(folder / f"{number}")) if way == "with" else None
                    for job, work in jobs.items():
                        began, used = time.monotonic(), _cpu_s()
                        work()
                        times[job][way].append(time.monotonic() - began)
                        cpu[job][way].append(_cpu_s() - used)
                    if arena is not None:
                        gate.append(_gate(arena))
    result: dict[str, Any] = {
        job: {**_ratio(found), "cpu_ratio": _ratio(cpu[job])["ratio"]} for job, found in times.items()
    }
    return {**result, "gate": gate[-1], "skipped": [f"build: no {tool}" for tool in missing]}


def _cpu_s() -> float:
    """Returns the processor time of all children that have ended: the daemons, which haven't, are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watching(folder: Path) -> Arena:
    (folder / "shipped").mkdir(parents=True, mode=0o755)
    for policy in _SHIPPED.glob("*.policy"):
        shutil.copy(policy, folder / "shipped")
    settings = {"policy_dirs": [str(folder / "shipped")]}
    return Settled(folder, policyd=settings, tracerd={"heartbeat_s": 1.0}, mode="audit")


class Settled(Arena):
    """Daemons that know what had begun when they came: from then on the gate drops all that it can."""

    def await_watching(self, timeout_s: float = 30.0) -> None:
        super().await_watching(timeout_s)
        assert self.status("policyd")["policies"], "no policy was loaded"
        eventually(lambda: self.status("tracerd")["gate"].get("settled", True), timeout_s)


def _gate(arena: Arena) -> dict[str, Any]:
    status = arena.status("tracerd")
    sums = {what: sum(status["gate"][what].values()) for what in ("passed", "dropped")}
    return {**sums, "lost": sum(status["lost"].values())}


def _ratio(found: dict[str, list[float]]) -> dict[str, Any]:
    # the first round fills the page cache
    median = {way: statistics.median(seconds[1:]) for way, seconds in found.items()}
    return {
        **{f"{way}_s": round(seconds, 3) for way, seconds in median.items()},
        "ratio": round(median["with"] / median["without"], 3),
        "spread": {way: [round(min(s[1:]), 3), round(max(s[1:]), 3)] for way, s in found.items()},
        "bound": BOUND,
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = [f"{'job':8}{'without s':>22}{'with s':>22}{'ratio':>8}{'of its CPU':>12}   (medians; bound {BOUND})"]
    for job in (name for name in ("build", "web") if name in result):
        found = result[job]
        cells = [
            f"{found[f'{way}_s']:.2f} ({found['spread'][way][0]:.2f}-{found['spread'][way][1]:.2f})"
            for way in ("without", "with")
        ]
        lines.append(f"{job:8}{cells[0]:>22}{cells[1]:>22}{found['ratio']:8.3f}{found['cpu_ratio']:12.3f}")
    gate = result["gate"]
    lines.append(f"gate, last run: {gate['dropped']:,} events dropped, {gate['passed']:,} passed, {gate['lost']} lost")
    return "\n".join([*lines, *result["skipped"]])


if __name__ == "__main__":
    command.main(__doc__, run, table)
