"""Who a process is and who made it, however it tries to be somebody else: identity, lineage, and the scan at start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from execray.process import start_ticks_of
from execray.schema.event import Event, ProcessId
from tests.support.live import Live, Run
from tests.support.pace import PACE, fewer
from tracerd.processes import Process

EVENTS = ["exec", "fork", "exit"]


def line_of(event: Event) -> list[int]:
    """The pids of its actor's creators, nearest first."""
    out, at = [], event.actor.parent
    while at is not None:
        out.append(at.id[0])
        at = at.parent
    return out


def by_argument(run: Run, argument: bytes) -> Event:
    return next(e for e in run.of("exec", ret=0) if isinstance(v := e.get("argv"), tuple) and argument in v)


def made_by(run: Run, pid: object) -> object:
    """Who the creator of a process is, by the event of its fork."""
    return run.one("fork", child__pid=pid).get("proc.id")


def test_a_chain_of_execs_is_one_process(live: Live) -> None:
    run = live.run(["/bin/sh", "-c", "exec /bin/sh -c 'exec /bin/sh -c \"exec /bin/echo last\"'"])
    ids = {event.get("proc.id") for event in run.of("exec")}
    assert len(ids) == 1 and len(run.of("exec")) == 4
    assert line_of(by_argument(run, b"last"))[0] == os.getpid()
    assert run.one("exit").get("proc.id") in ids


def test_clone_parent_makes_a_sibling_by_name_only(live: Live) -> None:
    """The new process's parent is the caller's, for wait(2) and in /proc; its creator is the caller."""
    run = live.python("""
        if (middle := os.fork()) == 0:
            child = syscall(56, 0x8000 | 17, 0, 0, 0, 0)  # CLONE_PARENT | SIGCHLD
            if child == 0:
                os.execv("/bin/echo", ["echo", "sibling", str(os.getppid())])
            os._exit(0)
        os.waitpid(middle, 0); os.wait()
        print(middle)
    """)
    sibling = by_argument(run, b"sibling")
    middle = int(run.stdout.split()[-1])
    assert sibling.get("argv") == (b"echo", b"sibling", b"%d" % run.pid)
    assert line_of(sibling)[:2] == [middle, run.pid]


def test_in_a_pid_namespace_a_process_is_who_it_is_outside(live: Live) -> None:
    run = live.python("""
        assert syscall(272, 0x20000000) == 0  # unshare: pid
        if (outer := os.fork()) == 0:
            if (inner := os.fork()) == 0:
                os.execv("/bin/echo", ["echo", "deep", str(os.getpid())])
            os.waitpid(inner, 0); os._exit(0)
        print(outer, open(f"/proc/{outer}/stat").read().rpartition(")")[2].split()[19], flush=True)
        os.waitpid(outer, 0)
    """)
    deep = by_argument(run, b"deep")
    outer = next(int(line.split()[0]) for line in run.stdout.splitlines() if not line.startswith("deep"))
    assert deep.get("argv") == (b"echo", b"deep", b"2")
    assert deep.get("pid") != 2
    assert line_of(deep)[:2] == [outer, run.pid]
    assert made_by(run, deep.get("pid")) == run.one("fork", child__pid=deep.get("pid")).get("proc.id")


def test_orphans_keep_their_creator_when_a_subreaper_takes_them(live: Live) -> None:
    run = live.python("""
        libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        if (middle := os.fork()) == 0:
            parent = os.getpid()
            if os.fork() == 0:
                while os.getppid() == parent: time.sleep(0.001)
                os.execv("/bin/echo", ["echo", "orphan", str(os.getppid())])
            os._exit(0)
        os.waitpid(middle, 0); os.wait()
        print(middle)
    """)
    orphan = by_argument(run, b"orphan")
    middle = int(run.stdout.split()[-1])
    assert orphan.get("argv") == (b"echo", b"orphan", b"%d" % run.pid), "it was not re-parented"
    assert line_of(orphan)[:2] == [middle, run.pid]


def test_a_double_fork_with_setsid_leads_back_to_its_starter(live: Live) -> None:
    run = live.python("""
        end, write = os.pipe(); os.set_inheritable(write, True)
        if (first := os.fork()) == 0:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/"); os.execv("/bin/echo", ["echo", "daemon"])
            os._exit(0)
        os.waitpid(first, 0); os.close(write); os.read(end, 1)
        print(first)
    """)
    daemon = by_argument(run, b"daemon")
    first = int(run.stdout.split()[-1])
    assert line_of(daemon)[:3] == [first, run.pid, os.getpid()]


def test_a_thread_that_executes_is_its_process(live: Live) -> None:
    """The thread takes the leader's id, and the others end; what it makes afterwards is the process's."""
    run = live.python("""
        def go():
            os.execv("/bin/sh", ["sh", "-c", "/bin/echo below; :", "thread"])
        threading.Thread(target=go).start()
        threading.Event().wait(20)
    """)
    hopped, below = by_argument(run, b"thread"), by_argument(run, b"below")
    assert hopped.get("proc.id") == run.of("exec")[0].get("proc.id") and hopped.tid == run.pid
    assert line_of(below)[0] == run.pid
    assert [e.get("pid") for e in run.of("exit")].count(run.pid) == 1


#: Forks and executes all the while: each child makes one more, and runs another program, while older ones end.
STORM = f"""
import os, sys, time
os.nice({0 if PACE == 1 else 19})  # else a slow machine never comes to load the sensor
print("on", flush=True)
children = 0
while True:
    if children < {fewer(50)}:  # a slow machine ends fewer than are begun
        children += 1
        if os.fork() == 0:
            if os.fork() == 0:
                os.execv("/bin/sleep", ["sleep", "0.05"])
            os.execv("/bin/sleep", ["sleep", "0.03"])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]: children -= 1
    except ChildProcessError: pass
    time.sleep(0.002)
"""


@pytest.mark.parametrize("attempt", range(5))
def test_a_storm_while_the_sensor_starts_leaves_no_gap(attempt: int) -> None:
    """Whoever is there once it has started is known once, as who it is, with the parent that /proc shows."""
    storm = subprocess.Popen([sys.executable, "-I", "-S", "-c", STORM], stdout=subprocess.PIPE, process_group=0)
    assert storm.stdout is not None
    try:
        assert storm.stdout.readline() == b"on\n"
        with Live([]) as live:
            os.killpg(storm.pid, 19)  # all of them stop, so that /proc and the table speak of one moment
            there = _members(storm.pid)
            live.drain()
            # a child whose parent had gone has another in /proc: its creator is looked for in the table only
            for pid, parent in there.items():
                process = live.table.find(pid)
                assert process is not None, pid
                assert process.start_ns * os.sysconf("SC_CLK_TCK") // 1_000_000_000 == start_ticks_of(pid)
                if parent in there:
                    assert process.parent is not None and process.parent.pid == parent, pid
                assert process.exe == os.fsencode(os.readlink(f"/proc/{pid}/exe"))
                assert process.argv == Path(f"/proc/{pid}/cmdline").read_bytes()
            assert len(there) > 3, "no storm"
            keys: list[ProcessId] = [process.id for process in _all(live)]
            assert len(keys) == len(set(keys))
            assert live.sensor.counter("DROPPED") == 0
    finally:
        os.killpg(storm.pid, 9)
        storm.wait()
        storm.stdout.close()


def _all(live: Live) -> list[Process]:
    return list(live.table._by_pid.values())


def _members(group: int) -> dict[int, int]:
    """The living members of a process group, once all are stopped, with their parents: by /proc."""
    while True:
        found = {}
        running = False
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                running |= fields[0] != "T"
                found[int(entry.name)] = int(fields[1])
        if not running:
            return found
