"""The gate's memory in the kernel: a step that waits passes only where its policy has begun, and surely there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from execray.gate.hashes import comm_key, exact_key
from execray.gate.plan import (
    ALL_BITS,
    CELL_SLOTS,
    ROW_ALL,
    ROW_NONE,
    CodeTest,
    GatePlan,
    Input,
    NumberKind,
    NumberTest,
)
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.layout import ER_GATE_CELLS, GATE_CELL, GATE_CELL_KEY
from tests.support.built import build
from tests.support.live import PRELUDE, Live, Run
from tests.support.pace import patient

OPEN, KILL, UNSHARE = (EVENT_BY_NAME[name].code for name in ("open", "kill", "unshare"))
OWN, HOST = 1, CELL_SLOTS + 1
SECOND = 1_000_000_000
COMM = b"gate-state"
#: The step that waits.
WAIT = "os.kill(os.getpid(), 0)"


def plan_of(begin: Path, slot: int = OWN, window_ns: int | None = 60 * SECOND, waits: int = KILL) -> GatePlan:
    """A policy of two steps: an open of a file by a thread of our own name begins it, and any kill waits for that.

    By name, for other processes open files whose path nobody can tell, and these could be any.
    """
    codes = (
        CodeTest(OPEN, 0, 1, 2, ROW_NONE, ROW_NONE, ROW_NONE, ROW_NONE),
        CodeTest(waits, 1, 2, 3, 3, 3, 3, ROW_ALL),
    )
    rows = (0, ALL_BITS, 1, 1 << 64)
    keys = {exact_key(os.fsencode(begin)): 2, comm_key(COMM): 2}
    return GatePlan(codes, frozenset(), rows, keys, first=2, slots={0: slot, 64: slot}, windows={slot: window_ns})


@pytest.fixture(scope="module")
def gated() -> Iterator[Live]:
    with Live([]) as live:
        yield live


@pytest.fixture
def begin(tmp_path: Path) -> Path:
    file = tmp_path / "begin"
    file.write_text("x")
    return file


def load(live: Live, plan: GatePlan, ends: Mapping[int, int] | None = None) -> None:
    """Loads a plan; ends: of what is known to have begun before."""
    assert not live.sensor.want([OPEN, KILL], False, plan=plan)
    assert live.sensor.gate.settle(live.sensor.gate.generation, ends or {})


def begins(file: Path) -> str:
    """What a child does to begin it. In one line, so that it may stand anywhere."""
    return f"(syscall(157, 15, buf({COMM!r}), 0, 0, 0), open({str(file)!r}).close())"


def kills(run: Run) -> int:
    return len(run.of("kill"))


@pytest.mark.parametrize("slot", [OWN, HOST])
def test_a_step_that_waits_passes_once_its_policy_has_begun_and_not_before(gated: Live, begin: Path, slot: int) -> None:
    load(gated, plan_of(begin, slot))
    run = gated.python(f"{WAIT}; {WAIT}; {begins(begin)}; {WAIT}")
    assert kills(run) == 1
    assert len(run.of("open")) == 1


@pytest.mark.parametrize("slot", [OWN, HOST])
def test_a_failed_call_that_waits_passes_once_its_policy_has_begun(gated: Live, begin: Path, slot: int) -> None:
    # an open that fails waits, one that succeeds begins
    ret = NumberTest(Input.RET, NumberKind.RANGES, (0,), 4)
    code = CodeTest(OPEN, 0, 1, 3, 4, 4, 4, ROW_ALL, (ret,))
    rows = (0, ALL_BITS, 0b01, 0b11, 0b10, 0b01)  # a result below 0 leaves the second bit, another one the first
    keys = {exact_key(os.fsencode(begin)): 2}
    slots = {0: slot, 1: slot}
    load(gated, GatePlan((code,), frozenset(), rows, keys, first=2, slots=slots, windows={slot: 60 * SECOND}))
    fail = f"syscall(257, -100, buf({os.fsencode(begin.parent / 'none')!r}), 0, 0)"
    run = gated.python(f"{fail}; {fail}; open({str(begin)!r}).close(); {fail}")
    assert [int(str(event.get("ret"))) < 0 for event in run.of("open")] == [False, True]


def test_what_began_in_one_process_began_in_no_other(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    run = gated.python(f"""
        {begins(begin)}
        child = os.fork()
        if not child:
            {WAIT}
            os._exit(0)
        os.waitpid(child, 0)
        {WAIT}
    """)
    assert [event.actor.id[0] for event in run.of("kill")] == [run.pid]


@pytest.mark.parametrize(
    ("name", "call"), [("setgid", "syscall(119, 4, 5, 6)"), ("unshare", "syscall(272, 0x10000000)")]
)
def test_what_a_call_that_waits_gave_is_no_right_without_a_call(gated: Live, begin: Path, name: str, call: str) -> None:
    code, noticed = EVENT_BY_NAME[name].code, EVENT_BY_NAME["cred_change"].code
    plan = replace(plan_of(begin, waits=code), open_codes=frozenset({noticed}))
    assert not gated.sensor.want([OPEN, code, noticed], False, plan=plan)
    assert gated.sensor.gate.settle(gated.sensor.gate.generation, {})
    # a new user namespace gives capabilities, so they are given up first
    run = gated.python(
        f"assert syscall(117, 7, 7, 7) == 0 if {code == UNSHARE} else True; assert {call} == 0; os.getgid()"
    )
    assert not run.of(name)
    assert not run.of("cred_change")


def test_what_began_for_the_host_began_in_every_process(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin, HOST))
    assert kills(gated.python(WAIT)) == 0
    gated.python(f"{begins(begin)}")
    assert kills(gated.python(WAIT)) == 1


def test_a_window_ends(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin, HOST, 2 * SECOND))
    run = gated.python(f"""
        began = time.clock_gettime_ns(7)
        {begins(begin)}
        while time.clock_gettime_ns(7) < began + 2_500_000_000:
            time.sleep(0.01)
            {WAIT}
        {begins(begin)}
        {WAIT}
    """)
    first, again = (event.time_ns for event in run.of("open"))
    times = [event.time_ns - first for event in run.of("kill")]
    assert max(time_ns for time_ns in times if time_ns < again - first) > 1.7 * SECOND
    assert not [time_ns for time_ns in times if 2.1 * SECOND < time_ns < again - first]
    assert times[-1] > again - first


def test_a_policy_without_a_window_never_ends(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin, OWN, None))
    assert kills(gated.python(f"{WAIT}; {begins(begin)}; {WAIT}")) == 1


def test_any_thread_may_begin_what_another_goes_on_with(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    run = gated.python(f"""
        thread = threading.Thread(target=lambda: {begins(begin)})
        thread.start()
        thread.join()
        {WAIT}
    """)
    assert kills(run) == 1


def test_what_the_last_subscriber_said_holds_for_no_other(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    gated.sensor.gate.unsettle()
    assert gated.sensor.gate_status()["settled"] is False
    assert kills(gated.python(WAIT)) == 1
    assert gated.sensor.gate.settle(gated.sensor.gate.generation, {})
    assert kills(gated.python(WAIT)) == 0


def test_what_the_last_subscriber_said_ends_with_its_window(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin, HOST, 2 * SECOND))
    gated.sensor.gate.unsettle()
    run = gated.python(f"""
        began = time.clock_gettime_ns(7)
        {WAIT}
        while time.clock_gettime_ns(7) < began + 2_500_000_000:
            time.sleep(0.01)
        {WAIT}
    """)
    assert kills(run) == 1


def test_what_began_survives_an_exec_by_another_thread_than_the_leader(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    run = gated.python(f"""
        argv = [sys.executable, "-I", "-S", "-c", "import os; {WAIT}"]
        def other():
            {begins(begin)}
            os.execv(argv[0], argv)
        threading.Thread(target=other).start()
        while True:
            time.sleep(1)
    """)
    (opened,) = run.of("open")
    assert opened.tid != run.pid
    assert [event.actor.id[0] for event in run.of("kill")] == [run.pid]


def test_the_end_of_a_process_and_not_that_of_a_thread_forgets_what_began_there(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    code = (
        f"{PRELUDE}\nthread = threading.Thread(target=lambda: {begins(begin)})\n"
        f"thread.start()\nthread.join()\nprint(flush=True)\nsys.stdin.readline()\n{WAIT}"
    )
    argv = ["/usr/bin/env", "python3", "-I", "-S", "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdin is not None
            child.stdout.readline()
            assert child.pid in cells(gated)
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert [event.type.name for event in gated.collect(child.pid) if event.type.name == "kill"]
        finally:
            child.kill()
    assert child.pid not in cells(gated)


def cells(live: Live) -> set[int]:
    return {GATE_CELL_KEY.unpack(key)[0] for key in list(live.sensor.gate.cells.keys())}


def test_without_room_for_a_process_it_counts_for_the_host(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    gate = gated.sensor.gate
    made = [GATE_CELL_KEY.pack((1 << 31) + number, gate.value) for number in range(ER_GATE_CELLS)]
    try:
        for number, key in enumerate(made):
            try:
                gate.cells.update(key, bytes(GATE_CELL.size))
            except OSError:
                made = made[:number]
                break
        assert kills(gated.python(WAIT)) == 0
        before = gated.sensor.gate_status()["cells_full"]
        assert kills(gated.python(f"{begins(begin)}; {WAIT}")) == 1
        assert kills(gated.python(WAIT)) == 1
        assert gated.sensor.gate_status()["cells_full"] > before
    finally:
        for key in made:
            gate.cells.delete(key)


def test_cells_of_former_plans_are_taken_out_some_at_a_time(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    gate = gated.sensor.gate
    cells = [GATE_CELL_KEY.pack((1 << 31) + number, gate.value) for number in range(600)]

    def left() -> int:
        return sum(gate.cells.lookup(key) is not None for key in cells)

    try:
        for key in cells:
            gate.cells.update(key, bytes(GATE_CELL.size))
        gate.sweep()
        assert left() == 600
        load(gated, plan_of(begin, window_ns=61 * SECOND))
        gate.sweep()
        assert 0 < left() < 600
        gate.sweep()
        assert left() == 0
    finally:
        for key in cells:
            gate.cells.delete(key)


def test_until_it_is_known_what_had_begun_before_a_plan_everything_had(gated: Live, begin: Path) -> None:
    assert not gated.sensor.want([OPEN, KILL], False, plan=plan_of(begin))
    gate = gated.sensor.gate
    assert gated.sensor.gate_status()["settled"] is False
    assert kills(gated.python(WAIT)) == 1
    assert not gate.settle(gate.generation - 1, {})
    assert kills(gated.python(WAIT)) == 1
    assert gate.settle(gate.generation, {OWN: time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 60 * SECOND})
    assert kills(gated.python(WAIT)) == 1
    assert gate.settle(gate.generation, {})
    assert kills(gated.python(WAIT)) == 0


def test_what_began_under_one_plan_is_nothing_to_the_next_but_one(gated: Live, begin: Path) -> None:
    plan = plan_of(begin)
    load(gated, plan)
    code = f"""
        {begins(begin)}
        print(flush=True)
        sys.stdin.readline()
        {WAIT}
    """
    argv = [sys.executable, "-I", "-S", "-c", PRELUDE + "\n".join(line.strip() for line in code.splitlines())]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdin is not None
            child.stdout.readline()
            assert child.pid in cells(gated)
            load(gated, plan)  # the same one: nothing changes
            assert child.pid in cells(gated)
            load(gated, plan_of(begin, window_ns=61 * SECOND))
            gated.sensor.sweep()
            load(gated, plan)  # in the half that the first one was in
            assert child.pid not in cells(gated)
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert not [event for event in gated.collect(child.pid) if event.type.name == "kill"]
        finally:
            child.kill()


def test_an_event_that_passes_anyway_begins_what_it_begins(gated: Live, begin: Path) -> None:
    plan = plan_of(begin)
    load(gated, GatePlan(**{**{n: getattr(plan, n) for n in plan.__slots__}, "open_codes": frozenset({OPEN})}))
    run = gated.python(f"open('/dev/null').close(); {WAIT}; {begins(begin)}; {WAIT}")
    assert kills(run) == 1
    assert len(run.of("open")) > 1


def test_a_probe_arrives_although_nothing_awaits_it(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    assert not kills(gated.python(WAIT))
    before = gated.decoder.heartbeats.get(KILL)
    fails = f"try: os.kill({0x7FFFFFFF}, 0)\nexcept ProcessLookupError: pass"  # as probes do
    code = f"import os, sys\nprint(flush=True)\nsys.stdin.readline()\n{fails}"
    argv = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None and child.stdin is not None
            child.stdout.readline()
            gated.sensor.set_heartbeat_thread(child.pid, child.pid)
            child.communicate(b"\n", timeout=patient(10))
        finally:
            child.kill()
            gated.sensor.set_heartbeat_thread(0, 0)
    gated.drain()
    assert gated.decoder.heartbeats.get(KILL) != before


def test_what_rests_is_counted_as_dropped(gated: Live, begin: Path) -> None:
    load(gated, plan_of(begin))
    before = gated.sensor.gate_status()["dropped"].get("kill", 0)
    gated.python(f"for _ in range(500): {WAIT}")
    assert gated.sensor.gate_status()["dropped"]["kill"] >= before + 500


#: Two threads of many processes: one begins once, the other waits all the time.
RACE = """
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile int spins, calls, done;
static const char *path;
static void *begin(void *none)
{
	while (calls < 5)
		;
	for (volatile int i = 0; i < spins; i++)
		;
	close(open(path, O_RDONLY));
	done = 1;
	return none;
}
int main(int argc, char **argv)
{
	path = argv[1];
	for (int number = 0; number < atoi(argv[2]); number++) {
		pid_t child = fork();
		if (!child) {
			pthread_t thread;
			spins = number * 37 % 4000;
			pthread_create(&thread, NULL, begin, NULL);
			for (int left = 20; left && calls < 3000; calls++, left -= done) {
				kill(getpid(), 0);
				if (calls > 50)
					sched_yield();
			}
			pthread_join(thread, NULL);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	return 0;
}
"""


def test_of_two_threads_at_once_the_later_passes(tmp_path: Path, begin: Path) -> None:
    race = build(RACE, tmp_path / os.fsdecode(COMM))
    with Live([], gate="shadow") as live:
        load(live, plan_of(begin))
        run = live.run([race, begin, "60"])
        # Linux 7.3 preempts programs, and counts what none has seen meanwhile.
        skipped = sum(live.sensor.misses().values())
    began = {event.actor.id: event.time_ns for event in run.of("open", path=os.fsencode(begin))}
    assert 60 - skipped <= len(began) <= 60
    calls = [event for event in run.of("kill") if event.actor.id in began]
    dropped = [event for event in calls if event.flags & Flag.GATE_DROP]
    later = [event for event in calls if event.time_ns > began[event.actor.id]]
    assert len(dropped) > 200 and len(later) > 200, (len(dropped), len(later))
    assert not [event.to_json() for event in later if event.flags & Flag.GATE_DROP]
