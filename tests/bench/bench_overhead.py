"""What the sensor costs the watched: system calls untraced, with the hook attached for something else, and recorded.

    python -m tests.bench.bench_overhead --json overhead.json

A small C program times its own calls, pinned to one processor; the sensor is attached and detached between runs, in turns, and
ratios of medians are reported. Recorded events are drained on the other processor. Needs root and gcc.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import command
from tests.support.live import Live

ROUNDS = 7
CALLS = 100_000
#: name -> (C statement, the event that records it)
WORK = {
    "open+close": ('close(open("/etc/hostname", 0));', "open"),
    "write": ("if (write(null, page, 64) < 0) return 1;", "write"),
    "close(-1)": ("close(-1);", "open"),
}
_SOURCE = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static char page[4096];
int main(int argc, char **argv)
{
	struct timespec a, b;
	int null = open("/dev/null", O_WRONLY);
	long n = atol(argv[1]);
	for (long i = 0; i < n / 10; i++) { %s }
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long i = 0; i < n; i++) { %s }
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%%f\\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / n);
	return page[0] + null < 0;
}
"""


def _build(folder: Path, name: str, statement: str) -> Path:
    source = folder / f"{name.replace('(', '').replace(')', '')}.c"
    source.write_text(_SOURCE % (statement, statement))
    program = source.with_suffix("")
    subprocess.run(["gcc", "-O2", "-w", "-o", program, source], check=True)
    return program


def _time(program: Path) -> float:
    out = subprocess.run(["taskset", "-c", "0", program, str(CALLS)], capture_output=True, text=True, check=True)
    return float(out.stdout)


@contextmanager
def _drained(live: Live) -> Iterator[None]:
    """Empties the ring in the background, on the other processor."""
    done = threading.Event()

    def drain() -> None:
        os.sched_setaffinity(0, {1} & os.sched_getaffinity(0) or os.sched_getaffinity(0))
        while not done.wait(0.005):
            ring = live.sensor.ring
            while ring.next() is not None:
                pass
            ring.release()

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run() -> dict[str, Any]:
    """Returns for each call the nanoseconds untraced, and the ratios to it."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as folder:
        programs = {name: _build(Path(folder), name, statement) for name, (statement, _) in WORK.items()}
        with Live([], ring_bytes=1 << 24) as live, _drained(live):
            for name, (_, event) in WORK.items():
                ways = {"untraced": [], "other": ["setuid"], "recorded": [event]}
                times: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(ROUNDS):
                    for way, wanted in ways.items():
                        live.want(wanted)
                        times[way].append(_time(programs[name]))
                median = {way: statistics.median(values) for way, values in times.items()}
                result[name] = {
                    "untraced_ns": round(median["untraced"], 1),
                    "attached": round(median["other"] / median["untraced"], 2),
                    "recorded": round(median["recorded"] / median["untraced"], 2),
                }
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = ["a system call                    untraced ns   hook attached, other call wanted   recorded"]
    lines += [f"{n:32} {r['untraced_ns']:11.0f} {r['attached']:34.2f} {r['recorded']:10.2f}" for n, r in result.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
