"""bpf/include/execray/image.h: what is fixed with a program's image, and how a child was made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from execray.schema.event import Event
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, Run, sleeper
from tracerd.processes import Process

EVENTS = ["exec", "fork", "exit", "open", "create"]
CLONE = CONSTANTS["CLONE_"]
NEW = ("NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWUSER", "NEWPID", "NEWNET")


def last_exec(run: Run) -> Event:
    return run.of("exec", ret=0)[-1]


def test_a_programs_file_is_as_old_as_its_times_say(live: Live, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    os.utime(program, ns=(0, time.time_ns() - 3_600_000_000_000))
    truth = program.stat()  # since Linux 6.13 this marks the time within the inode
    before = time.time_ns()
    event = live.run([program]).one("exec")
    after = time.time_ns()
    for field, then in (("exe.file.mtime_age", truth.st_mtime_ns), ("exe.file.ctime_age", truth.st_ctime_ns)):
        age = event.get(field)
        assert isinstance(age, int) and before - then - 1_000_000 <= age <= after - then + 1_000_000, field
    os.utime(program, ns=(0, time.time_ns() + 3_600_000_000_000))
    ahead = live.run([program]).one("exec")
    age = ahead.get("exe.file.mtime_age")
    assert isinstance(age, int) and -3_601_000_000_000 < age < -3_500_000_000_000


def test_of_an_exec_that_failed_there_is_no_file(live: Live) -> None:
    event = live.python("syscall(59, buf(b'/nonexistent'), 0, 0)").one("exec", filename=b"/nonexistent")
    fields = (
        "exe.file.uid",
        "exe.file.mode",
        "exe.file.mtime_age",
        "exe.file.ctime_age",
        "exe.overlay_upper",
        "interp",
    )
    assert {event.get(field) for field in fields} == {None}


def test_a_script_has_its_interpreter_and_a_program_has_none(live: Live, tmp_path: Path) -> None:
    script, long = tmp_path / "script", tmp_path / ("d" * 240)
    script.write_text("#!/bin/sh -e\nexit 0\n")
    script.chmod(0o755)
    event = live.run([script]).one("exec")
    assert (event.get("interp"), event.get("filename")) == (b"/bin/sh", os.fsencode(script))
    assert event.get("exe") == os.fsencode(os.path.realpath("/bin/sh"))
    assert live.run(["/bin/true"]).one("exec").get("interp") is None
    assert not long.exists()


def test_a_script_of_a_script_has_the_last_interpreter(live: Live, tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    inner.write_text("#!/bin/sh\nexit 0\n")
    outer.write_text(f"#!{inner}\n")
    for one in (inner, outer):
        one.chmod(0o755)
    assert live.run([outer]).one("exec").get("interp") == b"/bin/sh"


def test_a_file_of_an_overlay_is_in_its_upper_layer_where_it_was_put_there_or_changed(
    live: Live, tmp_path: Path
) -> None:
    if "overlay" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no overlayfs")
    for name in ("lower", "upper", "work", "at"):
        (tmp_path / name).mkdir()
    for name in ("below", "changed"):
        shutil.copy("/bin/true", tmp_path / "lower" / name)
    run = live.python(
        """
        import subprocess, shutil
        here = sys.argv[1].encode()
        assert syscall(272, 0x00020000) == 0 and syscall(165, buf(b"none"), buf(b"/"), 0, 0x44000, 0) == 0
        options = b"lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work" % (here, here, here)
        # what lies on a file system that can be no upper layer needs one that can
        assert syscall(165, buf(b"tmpfs"), buf(here + b"/work"), buf(b"tmpfs"), 0, 0) == 0
        os.makedirs(here + b"/work/u"); os.makedirs(here + b"/work/w")
        options = b"lowerdir=%s/lower,upperdir=%s/work/u,workdir=%s/work/w" % (here, here, here)
        assert syscall(165, buf(b"overlay"), buf(here + b"/at"), buf(b"overlay"), 0, buf(options)) == 0
        shutil.copy("/bin/true", here + b"/at/made"); os.chmod(here + b"/at/changed", 0o700)
        for name in (b"below", b"changed", b"made"):
            print(name.decode(), os.path.exists(here + b"/work/u/" + name), flush=True)
            subprocess.run([here + b"/at/" + name], check=True)
        """,
        tmp_path,
    )
    for line in run.stdout.splitlines():
        name, upper = line.split()
        event = run.one("exec", filename=os.fsencode(tmp_path / "at" / name))
        assert event.get("exe.overlay_upper") is (upper == "True"), name
    assert len(run.stdout.splitlines()) == 3
    assert live.run(["/bin/true"]).one("exec").get("exe.overlay_upper") is False


TERMINAL = """
import fcntl, subprocess
master, slave = os.openpty()
def start(name, terminal, descriptors):
    if (pid := os.fork()) == 0:
        os.setsid()
        if terminal:
            fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
        other = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(slave if fd in descriptors else other, fd)
        os.execv("/bin/sh", [name, "-c", "/bin/true"])
    os.waitpid(pid, 0)
"""


def test_interactive_is_who_has_its_terminal_for_input_and_errors(live: Live) -> None:
    cases = {
        "whole": (True, (0, 1, 2), True),
        "piped": (True, (0, 2), True),
        "fed": (True, (1, 2), False),
        "quiet": (True, (0, 1), False),
        "detached": (False, (0, 1, 2), False),
    }
    calls = [f"start({name!r}, {terminal}, {fds})" for name, (terminal, fds, _) in cases.items()]
    run = live.python(TERMINAL + "\n".join(calls))
    for name, (_, _, expected) in cases.items():
        shell = next(e for e in run.of("exec") if e.get("argv") == (name.encode(), b"-c", b"/bin/true"))
        assert shell.get("interactive") is expected, name
        below = [e for e in run.of("exit") if e.get("parent.proc.id") == shell.get("proc.id")]
        assert {e.get("interactive") for e in below} <= {expected}, name
    assert {e.get("interactive") for e in run.of("fork") if e.actor.id[0] == run.pid} == {False}


def test_the_number_within_a_pid_namespace_is_what_the_process_calls_itself(live: Live) -> None:
    run = live.python(
        """
        def mark(name):
            syscall(257, -100, buf(name.encode()), 0, 0)
            print(name, syscall(39), open("/proc/self/status").read().split("NSpid:")[1].split("\\n")[0].split()[-1], flush=True)
        mark("outside")
        assert syscall(272, 0x20000000) == 0
        if (first := os.fork()) == 0:
            mark("first")
            if (second := os.fork()) == 0:
                mark("second"); os.execv("/bin/true", ["true"])
            os.waitpid(second, 0); os._exit(0)
        os.waitpid(first, 0)
        """
    )
    numbers = {}
    for line in run.stdout.splitlines():
        name, own, last = line.split()
        event = run.one("open", rawpath=name.encode())
        numbers[name] = event.get("ns_pid")
        assert numbers[name] == int(own), (name, last)
    assert numbers == {"outside": run.pid, "first": 1, "second": 2}
    assert run.of("exec", ret=0)[-1].get("ns_pid") == 2


def test_a_process_from_before_has_what_one_that_was_seen_to_start_has(live: Live) -> None:
    with sleeper() as child:
        seen = live.await_exec(child.pid)
        with Live([]) as other:
            scanned = other.table.find(child.pid)
        assert scanned is not None and scanned is not seen
        assert scanned.ns_nr == seen.ns_nr == child.pid
        assert (scanned.interactive, scanned.bounding) == (seen.interactive, seen.bounding)
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert seen.bounding == int(status.split("CapBnd:")[1].split()[0], 16)
        live.table.exited(*seen.id)
        again = live.table.get(*seen.id)
        assert (again.ns_nr, again.bounding) == (seen.ns_nr, seen.bounding)


@pytest.mark.parametrize("alone", ["", *NEW])
def test_clone_flags_say_which_namespaces_are_the_childs_own(live: Live, alone: str) -> None:
    flag = CLONE.get(f"CLONE_{alone}", 0)
    run = live.python(
        f"""
        kinds = ("mnt", "cgroup", "uts", "ipc", "user", "pid_for_children", "net")
        before = [os.readlink("/proc/self/ns/" + kind) for kind in kinds]
        pid = syscall(56, {flag} | 17, 0, 0, 0, 0)  # clone with SIGCHLD
        assert pid >= 0, pid
        if pid == 0:
            now = [os.readlink("/proc/thread-self/ns/" + kind) for kind in kinds]
            print(*(int(one != other) for one, other in zip(before, now)), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        """
    )
    told = run.of("fork")[-1].get("clone_flags")
    truth = [int(word) for word in run.stdout.split()]
    assert isinstance(told, int) and truth == [int(alone == name) for name in NEW]
    assert [int(bool(told & CLONE[f"CLONE_{name}"])) for name in NEW] == truth
    assert not told & (CLONE["CLONE_VM"] | CLONE["CLONE_FILES"] | CLONE["CLONE_FS"] | CLONE["CLONE_SIGHAND"])


def test_clone_flags_say_what_is_shared(live: Live) -> None:
    flags = [CLONE[f"CLONE_{name}"] for name in ("FS", "FILES", "PARENT")]
    run = live.python(
        f"""
        for flags in {flags}:
            pid = syscall(56, flags | 17, 0, 0, 0, 0)
            if pid == 0:
                os._exit(0)
            if not flags & 0x8000:  # a sibling is the parent's to wait for
                os.waitpid(pid, 0)
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {{}}), 0)
        """
    )
    told = [event.get("clone_flags") for event in run.of("fork") if event.actor.id[0] == run.pid]
    assert told[:3] == flags
    assert isinstance(told[3], int) and told[3] & CLONE["CLONE_VM"]


def test_what_is_made_by_an_open_is_told_once_and_what_was_there_is_not(live: Live, tmp_path: Path) -> None:
    run = live.python(
        """
        os.chdir(sys.argv[1])
        flags = os.O_CREAT | os.O_WRONLY
        for path, extra in (("f", 0), ("f", 0), ("g", os.O_EXCL), (".", os.O_TMPFILE - os.O_CREAT)):
            fd = os.open(path, (flags + extra) & ~(os.O_CREAT if path == "." else 0), 0o640)
            print(fd, os.fstat(fd).st_ino); os.close(fd)
        try: os.open("g", flags | os.O_EXCL)
        except FileExistsError: pass
        print(syscall(85, buf(b"h"), 0o600))
        """,
        tmp_path,
    )
    made = run.of("create")
    assert [event.get("rawpath") for event in made] == [b"f", b"g", b".", b"h"]
    assert [event.get("path") for event in made[:2]] == [os.fsencode(tmp_path / name) for name in "fg"]
    assert {event.get("mode") for event in made[:3]} == {0o640} and made[0].get("file.uid") == 0
    words = run.stdout.split()
    assert [event.get("fd") for event in made] == [int(words[at]) for at in (0, 4, 6, 8)]
    truth = [int(words[at]) for at in (1, 5, 7)]
    assert [int(bytes(event.get("file.id") or b"").split(b":")[2]) for event in made[:3]] == truth  # type: ignore[arg-type]  # a file's id is text
    opened = [event for event in run.of("open") if event.get("created")]
    assert [(e.get("rawpath"), e.get("file.id"), e.get("ret")) for e in opened] == [
        (e.get("rawpath"), e.get("file.id"), e.get("fd")) for e in made
    ]


def test_what_is_made_is_told_also_where_opens_are_not_wanted(tmp_path: Path) -> None:
    with Live(["create"]) as live:
        run = live.python(
            "os.close(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)); os.open(sys.argv[1], 0)", tmp_path / "f"
        )
    assert run.one("create").get("path") == os.fsencode(tmp_path / "f")
    assert not run.of("open")


RACE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>
static volatile int done, next, began;
static void on(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}
static void *closer(void *unused) {
    on(1);
    began = 1;
    while (!done) close(next);
    return unused;
}
int main(int argc, char **argv) {
    pthread_t thread;
    char name[16];
    if (argc != 2 || chdir(argv[1])) return 1;
    next = dup(0);
    close(next);
    on(0);
    pthread_create(&thread, 0, closer, 0);
    while (!began) sched_yield();
    for (int i = 0; i < 2000; i++) {
        sprintf(name, "%d", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) return 2;
        close(fd);
    }
    done = 1;
    return pthread_join(thread, 0);
}
"""


def test_what_is_made_is_told_also_where_another_thread_closes_it_at_once(tmp_path: Path) -> None:
    """Between the call and the hook at its end the descriptor is anyone's of the process."""
    source, program = tmp_path / "race.c", tmp_path / "race"
    source.write_text(RACE)
    subprocess.run(["cc", "-O1", "-pthread", "-o", program, source], check=True, timeout=30)
    (tmp_path / "d").mkdir()
    with Live(["create"]) as live:
        made = live.run([program, tmp_path / "d"]).of("create")
    names = {event.get("rawpath") for event in made}
    assert names == {b"%d" % number for number in range(2000)}
    closed = [event for event in made if event.get("path") is None]
    assert all(Flag.UNREADABLE in event.flags for event in closed)
    assert {event.get("flags") for event in made if event not in closed} <= {os.O_CREAT | os.O_WRONLY}


def privileged(process: Process) -> bool | None:
    return process.privileged


HOSTS_KEYS = 1 << 16 | 1 << 17 | 1 << 21  # CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_ADMIN


def bounded_without(live: Live, dropped: int) -> Process:
    """Runs a program after PR_CAPBSET_DROP of one capability; returns it, whose set is what /proc says, in a container."""
    code = (
        f"import ctypes, os; ctypes.CDLL(None).prctl(24, {dropped}, 0, 0, 0); os.execv('/bin/sleep', ['sleep', '30'])"
    )
    live.drain()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) as child:
        process = live.await_exec(child.pid)
        if not (process.argv or b"").startswith(b"sleep\0"):  # both may have come at once
            process = live.await_exec(child.pid)
        process.container = b"c" * 64
        status = Path(f"/proc/{child.pid}/status").read_text()
        child.kill()
    assert process.bounding == int(status.split("CapBnd:")[1].split()[0], 16)
    assert not process.bounding & 1 << dropped
    return process


def test_a_container_is_privileged_by_what_is_within_its_reach(live: Live) -> None:
    live.drain()
    with sleeper() as child:
        process = live.await_exec(child.pid)
        assert privileged(process) is None
        process.container = b"c" * 64
        assert process.bounding is not None
        assert privileged(process) is (process.bounding & HOSTS_KEYS == HOSTS_KEYS)


@pytest.mark.parametrize("dropped", [16, 17, 21], ids=["CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_ADMIN"])
def test_a_container_denied_one_of_the_hosts_keys_is_not_privileged(live: Live, dropped: int) -> None:
    assert privileged(bounded_without(live, dropped)) is False


def test_a_container_denied_a_harmless_capability_is_privileged_all_the_same(live: Live) -> None:
    process = bounded_without(live, 28)  # CAP_LEASE
    assert process.bounding is not None
    assert privileged(process) is (process.bounding & HOSTS_KEYS == HOSTS_KEYS)


def test_an_environment_is_what_the_program_was_given(live: Live) -> None:
    run = live.python("os.execve('/bin/cat', ['cat', '/proc/self/environ'], {'LD_PRELOAD': '', 'A': 'b c', 'E': '=x'})")
    assert (
        last_exec(run).get("env") == (b"LD_PRELOAD=", b"A=b c", b"E==x") == tuple(run.stdout.encode().split(b"\0")[:-1])
    )
    assert live.python("os.execve('/bin/true', ['true'], {})").of("exec")[-1].get("env") is None


def test_arguments_come_first_and_an_environment_without_room_is_cut_and_says_so(live: Live) -> None:
    code = "os.execve('/bin/true', ['true', 'x' * {argv}], dict([('LONG', 'y' * {env}), ('Z', '1')]))"
    cases = {
        (100, 20000): (True, False),
        (16384 - 8, 5): (True, False),
        (20000, 5): (True, True),
        (9000, 100): (False, False),
    }
    for (argv, env), expected in cases.items():
        event = last_exec(live.python(code.format(argv=argv, env=env)))
        told = Flag.CONTENT_TRUNCATED in event.flags, Flag.ARGV_TRUNCATED in event.flags
        assert told == expected, (argv, env)
        found = event.get("env")
        if not expected[0]:
            assert found == (b"LONG=" + b"y" * env, b"Z=1")
        elif argv == 20000:
            assert found == ()  # nothing is left of it, and `truncated(env)` holds
        elif argv == 100:
            assert isinstance(found, tuple) and found[0] == b"LONG=" + b"y" * (16384 - len("true") - 102 - 5)
    many = last_exec(live.python("os.execve('/bin/true', ['true'], {f'V{n}': '' for n in range(300)})"))
    found = many.get("env")
    assert isinstance(found, tuple) and len(found) == 256 and Flag.CONTENT_TRUNCATED in many.flags


def test_an_environment_stays_where_it_was_not_asked_for(tmp_path: Path) -> None:
    with Live(["exec"]) as live:
        assert live.run(["/bin/true"]).one("exec").get("env") is None
