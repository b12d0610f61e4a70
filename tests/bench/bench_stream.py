"""Real events from the kernel to the engine: how many a second arrive without loss, and what the three daemons need for it.

    python -m tests.bench.bench_stream --json stream.json

A small C program opens files at a set rate; a policy asks for opens. At each rate: events that reached policyd, events lost at
any hop, the processor time and memory of tracerd and policyd. Needs root and gcc. No policy wants these opens: they arrive with
the kernel gate off, and are dropped in the kernel with it on.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import command
from tests.support.arena import Arena, eventually

RATES = (5_000, 20_000, 40_000)
SECONDS = 6
_POLICY = """
policy "watch" { open { path = "DECOY" exe = "ATTACKER" } write { content contains "root:" } }
"""
_SOURCE = """
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	long n = atol(argv[1]), rate = atol(argv[2]);
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 0; i < n; i++) {
		close(open("/etc/hostname", 0));
		if (i % 32)
			continue;
		for (;;) {
			clock_gettime(CLOCK_MONOTONIC, &now);
			long gone = (now.tv_sec - start.tv_sec) * 1000000000L + now.tv_nsec - start.tv_nsec;
			long due = i * (1000000000L / rate);
			if (gone >= due)
				break;
			struct timespec wait = { 0, due - gone };
			nanosleep(&wait, 0);
		}
	}
	return 0;
}
"""


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _lost(arena: Arena) -> int:
    return sum(arena.status("tracerd")["lost"].values())


def run() -> dict[str, Any]:
    """Returns for each rate, without and with the gate, what arrived, what was lost, and what it took."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder:
        source = Path(folder) / "opener.c"
        source.write_text(_SOURCE)
        subprocess.run(["gcc", "-O2", "-o", source.with_suffix(""), source], check=True)
        for rate in RATES:
            for gate in ("off", "on"):
                work = Path(folder) / f"{rate}-{gate}"
                work.mkdir()
                with Arena(work, _POLICY, tracerd={"gate": gate}) as arena:
                    result[f"{rate} {gate}"] = _one(arena, source.with_suffix(""), rate, arrive=gate == "off")
    return result


def _one(arena: Arena, program: Path, rate: int, *, arrive: bool) -> dict[str, Any]:
    pids = {name: arena.stack.pid(name) for name in ("tracerd", "policyd")}
    before, lost = arena.status("policyd")["events"], _lost(arena)
    cpu = {name: _cpu_s(pid) for name, pid in pids.items()}
    start = time.monotonic()
    subprocess.run([program, str(rate * SECONDS), str(rate)], check=True)
    took = time.monotonic() - start
    if arrive:
        eventually(lambda: arena.status("policyd")["events"] - before >= rate * SECONDS - _lost(arena) + lost, 30)
    return {
        "sent": rate * SECONDS,
        "seconds": round(took, 2),
        "arrived": arena.status("policyd")["events"] - before,
        "lost": _lost(arena) - lost,
        "cpu_percent": {name: round(100 * (_cpu_s(pid) - cpu[name]) / took) for name, pid in pids.items()},
        "rss_mib": {name: round(_rss_mib(pid)) for name, pid in pids.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people. More than was sent arrives: the rest of the machine opens files too."""
    lines = ["events/s, gate      sent   arrived   lost   CPU % tracerd, policyd   MiB tracerd, policyd"]
    for rate, r in result.items():
        cpu, rss = r["cpu_percent"], r["rss_mib"]
        lines.append(
            f"{rate:>14} {r['sent']:9} {r['arrived']:9} {r['lost']:6} {cpu['tracerd']:14} {cpu['policyd']:9}"
            f" {rss['tracerd']:14} {rss['policyd']:8}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
