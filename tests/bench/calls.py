"""C programs that time their own calls, and ways of being watched that take turns in them.

On one processor and at real-time priority (`chrt -f 1`, where that is permitted: other work on the machine drowns these figures
otherwise). A process runs a block of calls whenever it is told to, so that the ways can take turns in one process: where its
pages lie makes a call dearer or cheaper by a fifth, and that is another thing in each process; and what a call takes wanders
by a tenth and more from one second to the next.
"""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

_SOURCE: Final = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static char page[4096];
static inline void run(void)
{
	char *argv[] = {"/bin/true", NULL};
	pid_t pid = fork();
	if (!pid) { execv(argv[0], argv); _exit(1); }
	waitpid(pid, NULL, 0);
}
/* A block of calls for each byte that comes. */
static int in_turns(long n)
{
	struct timespec a, b;
	int null = open("/dev/null", O_WRONLY);
	char go;
	while (read(0, &go, 1) == 1) {
		clock_gettime(CLOCK_MONOTONIC, &a);
		for (long i = 0; i < n; i++) { %s }
		clock_gettime(CLOCK_MONOTONIC, &b);
		printf("%%f\\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / n);
		fflush(stdout);
	}
	return page[0] + null < 0;
}
int main(int argc, char **argv)
{
	int null = open("/dev/null", O_WRONLY);
	long n = atol(argv[1]);
	if (argc > 2)
		return in_turns(n);
	for (long i = 0; i < n; i++) { %s }
	return page[0] + null < 0;
}
"""


def build(folder: Path, index: int, statement: str) -> Path:
    """Compiles a program whose calls these are. Raises CalledProcessError, OSError."""
    source = folder / f"work{index}.c"
    source.write_text(_SOURCE % (statement, statement))
    program = source.with_suffix("")
    subprocess.run(["gcc", "-O2", "-w", "-o", program, source], check=True)
    return program


def priority() -> list[str]:
    """The command that gives real-time priority, or nothing where that is refused."""
    if shutil.which("chrt") and subprocess.run(["chrt", "-f", "1", "true"], check=False).returncode == 0:
        return ["chrt", "-f", "1"]
    return []


#: By name; told the pid of the program, which waits meanwhile.
Ways = Mapping[str, Callable[[int], AbstractContextManager[object]]]


def compare(program: Path, calls: int, ways: Ways, turns: int, blocks: int = 3) -> dict[str, float]:
    """Returns nanoseconds a call for each way: what the first took, times the median of its ratios to the same turn's first way.

    The ways take turns, in a random order; in its turn a way runs so many blocks of so many calls, of which the median counts.
    """
    found: list[dict[str, float]] = []
    with _in_turns(program, calls) as (pid, block):
        block()
        for _ in range(turns):
            turn = {}
            for way in random.sample(list(ways), len(ways)):
                with ways[way](pid):
                    turn[way] = statistics.median(block() for _ in range(blocks))
            found.append(turn)
    first = next(iter(ways))
    base = statistics.median(turn[first] for turn in found)
    return {way: base * statistics.median(turn[way] / turn[first] for turn in found) for way in ways}


@contextmanager
def _in_turns(program: Path, calls: int) -> Iterator[tuple[int, Callable[[], float]]]:
    """Starts the program; gives its pid, and what runs one block of calls and returns nanoseconds a call."""
    argv: list[str | Path] = ["taskset", "-c", "0", *priority(), program, str(calls), "turns"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        told, answers = child.stdin, child.stdout
        assert told and answers

        def block() -> float:
            told.write("x")
            told.flush()
            return float(answers.readline())

        yield child.pid, block  # taskset and chrt become the program
