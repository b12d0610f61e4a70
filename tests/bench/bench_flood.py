"""A flood of calls that match nothing, through the real daemons: what is delivered, what it costs, and what is found amid it.

    python -m tests.bench.bench_flood --json flood.json

C programs, one for each processor, call as fast as they can: of 20 calls 2 open, 6 read, 4 write, 4 close, 3 stat, 1 connects (to
a resolver's port: other connects are what a shipped policy begins with, whose addresses the kernel doesn't test).
First they alone, without the daemons and under the shipped policies; then beside them a program whose calls complete a sequence
every millisecond, of which one in ten raises an alert. policyd counts how long after its last event each was found; one counts as
told when a follower has its alert, which is after it is on disk. Where somebody on the host begins what a shipped policy counts
host-wide, such as by reading password hashes, writes and connects pass for a while: `passed` tells it. Needs root and gcc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from execray.errors import OperatorError
from tests.bench import command
from tests.bench.bench_job import children_cpu_s
from tests.bench.bench_stream import _cpu_s, _lost
from tests.bench.settled import with_shipped
from tests.support.arena import Arena, eventually

SECONDS: Final = 10.0
UNTRACED_SECONDS: Final = 3.0
SEQUENCES: Final = 5000
LATE_MS: Final = "10"  # as policyd counts it
FLOODED: Final = ("open", "read", "write", "connect")
_POLICY: Final = """
policy "pair" key process within 1m {
    throttle 1 per 10ms
    open { path = "DECOY" exe = "SEQUENCER" }
    open { path = "DECOY2" exe = "SEQUENCER" }
}
"""
_FLOOD: Final = """
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct timespec now, end;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int null = open("/dev/null", O_WRONLY), sock = socket(AF_INET, SOCK_DGRAM, 0);
	char bytes[64];
	struct stat st;
	long calls = 0;
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += atol(argv[1]);
	do {
		for (int round = 0; round < 100; round++) {
			for (int pair = 0; pair < 2; pair++) {
				int fd = open("/etc/hostname", O_RDONLY);
				for (int i = 0; i < 3; i++)
					if (pread(fd, bytes, sizeof(bytes), 0) < 0)
						return 1;
				for (int i = 0; i < 2; i++)
					if (write(null, bytes, sizeof(bytes)) < 0)
						return 1;
				close(fd);
				close(-1);
			}
			for (int i = 0; i < 3; i++)
				stat("/etc/hostname", &st);
			if (connect(sock, (struct sockaddr *)&to, sizeof(to)))
				return 1;
			calls += 20;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	printf("%ld\\n", calls);
	return 0;
}
"""
_SEQUENCER: Final = """
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct timespec next;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (long n = atol(argv[3]); n; n--) {
		close(open(argv[1], O_RDONLY));
		close(open(argv[2], O_RDONLY));
		next.tv_nsec += 1000000;
		if (next.tv_nsec >= 1000000000) {
			next.tv_sec++;
			next.tv_nsec -= 1000000000;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, 0);
	}
	return 0;
}
"""
#: Prints for each alert that it is told of how many nanoseconds after the last event that was.
_FOLLOWER: Final = """
import sys, time
from pathlib import Path
from execray.control_client import ControlClient
with ControlClient(Path(sys.argv[1]), 5.0, group="") as client:
    for alert in client.follow("alerts.tail"):
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        print(alert["dropped"] if "dropped" in alert else f"= {now - alert['execray']['time_ns']}", flush=True)
"""


def run() -> dict[str, Any]:
    """Returns what came of the flood, and of the sequences in it. Raises OperatorError without gcc."""
    if shutil.which("gcc") is None:
        raise OperatorError("there is no gcc", "the flood is a C program")
    with tempfile.TemporaryDirectory(prefix="execray-bench-") as name:
        folder = Path(name)
        flood, sequencer = (_compiled(folder, *program) for program in (("flood", _FLOOD), ("sequencer", _SEQUENCER)))
        decoys = [folder / "decoy1", folder / "decoy2"]
        for decoy in decoys:
            decoy.touch()
        untraced = _untraced(flood)
        text = re.sub("DECOY2", str(decoys[1]), _POLICY).replace("DECOY", str(decoys[0]))
        with with_shipped(folder / "arena", ("pair.policy", text.replace("SEQUENCER", str(sequencer)))) as arena:
            return {
                "load": os.getloadavg()[0],
                "untraced": untraced,
                "flood": _flooded(arena, flood),
                "sequences": _sequences(arena, flood, [sequencer, *decoys, str(SEQUENCES)]),
            }


def _compiled(folder: Path, name: str, text: str) -> Path:
    source = folder / f"{name}.c"
    source.write_text(text)
    subprocess.run(["gcc", "-O2", "-o", source.with_suffix(""), source], check=True)
    return source.with_suffix("")


@contextmanager
def _flooding(program: Path, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    children = [
        subprocess.Popen([program, str(int(seconds))], stdout=subprocess.PIPE, text=True)
        for _ in os.sched_getaffinity(0)
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def _calls(children: list[subprocess.Popen[str]]) -> int:
    return sum(int(child.communicate()[0]) for child in children)


def _counts(arena: Arena) -> dict[str, int]:
    gate = arena.status("tracerd")["gate"]
    sums = {what: sum(gate[what].get(name, 0) for name in FLOODED) for what in ("passed", "dropped")}
    return {**sums, "lost": _lost(arena), "delivered": arena.status("policyd")["events"]}


def _untraced(program: Path) -> dict[str, int]:
    """Returns what the machine does of these calls where nobody looks."""
    began, spent = time.monotonic(), children_cpu_s()
    with _flooding(program, UNTRACED_SECONDS) as children:
        calls = _calls(children)
    return _rates(calls, time.monotonic() - began, children_cpu_s() - spent)


def _rates(calls: int, seconds: float, cpu_s: float) -> dict[str, int]:
    # of its processor time: what the machine had time for, had it nothing else to do
    return {"calls_per_s": round(calls / seconds), "calls_per_cpu_s": round(calls / cpu_s)}


def _flooded(arena: Arena, program: Path) -> dict[str, Any]:
    pids = {name: arena.stack.pid(name) for name in ("tracerd", "policyd")}
    before, cpu = _counts(arena), {name: _cpu_s(pid) for name, pid in pids.items()}
    began, spent = time.monotonic(), children_cpu_s()
    with _flooding(program, SECONDS) as children:
        calls = _calls(children)
    took = time.monotonic() - began
    used = {name: round(100 * (_cpu_s(pid) - cpu[name]) / took, 2) for name, pid in pids.items()}
    after = _counts(arena)
    return {
        **_rates(calls, took, children_cpu_s() - spent),
        **{what: after[what] - before[what] for what in before},
        "cpu_percent": used,
    }


def _sequences(arena: Arena, flood: Path, argv: list[str | Path]) -> dict[str, Any]:
    socket = arena.stack.runtime_dir / "policyd" / "ctl.sock"
    before, counts = arena.status("policyd")["alerts"], _counts(arena)
    follower = subprocess.Popen(
        [sys.executable, "-c", _FOLLOWER, socket], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        with _flooding(flood, SEQUENCES / 1000 + 5):
            time.sleep(1.0)  # until the flood is at its height
            began = time.monotonic()
            subprocess.run(argv, check=True)
            took = time.monotonic() - began
            eventually(lambda: _stands_still(arena), 30)
    finally:
        follower.terminate()
    lines = follower.communicate()[0].splitlines()
    told = sorted(int(line[2:]) / 1e6 for line in lines if line.startswith("= "))
    after = arena.status("policyd")["alerts"]
    lag = {bound: count - before["lag_ms"][bound] for bound, count in after["lag_ms"].items() if bound != "max"}
    return {
        "sequences": SEQUENCES,
        "seconds": round(took, 2),
        "detected": after["matches"] - before["matches"],
        "lag_ms": lag,
        "lag_max_ms": after["lag_ms"]["max"],
        "late": sum(count for bound, count in lag.items() if bound == "more" or int(bound) > int(LATE_MS)),
        **{what: count - counts[what] for what, count in _counts(arena).items() if what != "delivered"},
        "told": len(told),
        "untold": sum(int(line) for line in lines if not line.startswith("= ")),
        **(
            {f"p{part}_ms": round(told[int(part / 100 * (len(told) - 1))], 2) for part in (50, 99, 100)} if told else {}
        ),
    }


def _stands_still(arena: Arena) -> bool:
    """Whether no match came in the last half second."""
    matches = arena.status("policyd")["alerts"]["matches"]
    time.sleep(0.5)
    return bool(arena.status("policyd")["alerts"]["matches"] == matches)


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    flood, found, untraced = result["flood"], result["sequences"], result["untraced"]
    cpu = flood["cpu_percent"]
    return "\n".join(
        [
            f"load of the machine before: {result['load']:.1f}",
            f"flood: {flood['calls_per_s']:,} calls/s, {flood['calls_per_cpu_s']:,} a second of its processor time; "
            f"without the daemons {untraced['calls_per_s']:,} and {untraced['calls_per_cpu_s']:,}",
            f"       {flood['dropped']:,} events dropped, {flood['passed']:,} passed; "
            f"{flood['delivered']:,} events of the whole host delivered, {flood['lost']} lost",
            f"       tracerd {cpu['tracerd']:.1f} %, policyd {cpu['policyd']:.1f} % of a processor (bound: 1 % together)",
            f"one sequence a millisecond amid it: {found['detected']:,} of {found['sequences']:,} detected, "
            f"{found['seconds']} s, {found['dropped']:,} events dropped, {found['passed']:,} passed, {found['lost']} lost",
            f"       from the last event to the match: {_within(found['lag_ms'])}; the latest after {found['lag_max_ms']} ms, "
            f"{found['late']:,} after {LATE_MS} ms (bound: none)",
            f"       to a follower of alerts, ms: p50 {found.get('p50_ms')}, p99 {found.get('p99_ms')}, "
            f"latest {found.get('p100_ms')} of {found['told']:,}; {found['untold']:,} not told",
        ]
    )


def _within(lag: dict[str, int]) -> str:
    return ", ".join(
        f"{count:,} {'later' if bound == 'more' else f'in {bound} ms'}" for bound, count in lag.items() if count
    )


if __name__ == "__main__":
    command.main(__doc__, run, table)
