"""What every event says of its actor beside ids and program: session, login, terminal, place, container, entry, namespaces."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from execray.process import NS_PER_TICK, stat_fields
from execray.schema.catalog import Flag
from execray.schema.event import Event
from execray.schema.kinds import CONSTANTS
from tests.support.cgroups import cgroup, hierarchies
from tests.support.live import Live, Run, sleeper
from tests.support.pace import patient

EVENTS = ["exec", "fork", "exit", "open"]
ID = "0123456789abcdef" * 4
#: In a probing child: an event with a name of one's own choice.
MARK = """
def mark(name):
    syscall(257, -100, buf(name.encode()), 0, 0)
"""


def at(run: Run, name: str) -> Event:
    """The event that mark() made."""
    return run.one("open", rawpath=name.encode())


def test_session_and_group_follow_setsid_and_setpgid(live: Live) -> None:
    run = live.python(
        MARK
        + """
if (pid := os.fork()) != 0:  # the first may lead a group, and then can't begin a session
    os.waitpid(pid, 0); os._exit(0)
os.setsid(); mark("before")
if (pid := os.fork()) == 0:
    os.setpgid(0, 0); mark("group")
    os._exit(0)
os.waitpid(pid, 0)
if (pid := os.fork()) == 0:
    os.setsid(); mark("session")
    if (grandchild := os.fork()) == 0:
        mark("member"); os._exit(0)
    os.waitpid(grandchild, 0); os._exit(0)
os.waitpid(pid, 0)
"""
    )
    before, group, session, member = (at(run, name) for name in ("before", "group", "session", "member"))
    assert before.get("session.id") == before.get("pgrp.id") == before.get("proc.id")
    assert group.get("session.id") == before.get("session.id")
    assert group.get("pgrp.id") == group.get("proc.id")
    assert session.get("session.id") == session.get("pgrp.id") == session.get("proc.id")
    assert member.get("session.id") == session.get("proc.id") != member.get("proc.id")
    assert member.get("entry.id") == before.get("entry.id")


def test_a_session_outlives_its_leader(live: Live) -> None:
    run = live.python(
        MARK
        + """
go_read, go = os.pipe(); end, end_write = os.pipe()
if (leader := os.fork()) == 0:
    os.setsid()
    if os.fork() == 0:
        os.read(go_read, 1); mark("orphan")
        os._exit(0)
    mark("leader"); os._exit(0)
os.waitpid(leader, 0)
os.write(go, b"x"); os.close(end_write)
os.read(end, 1)  # until the orphan has ended too
"""
    )
    assert at(run, "orphan").get("session.id") == at(run, "leader").get("proc.id")


def test_leaders_programs_are_those_that_they_run_now(live: Live) -> None:
    run = live.python(
        MARK
        + """
go_read, go = os.pipe(); end, end_write = os.pipe()
if (leader := os.fork()) == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
        os.read(go_read, 1); mark("member")
        os._exit(0)
    os.set_inheritable(go, True)
    os.execv("/bin/sh", ["sh", "-c", f"printf x >&{go}; wait"])
os.close(go); os.close(end_write)
os.waitpid(leader, 0)
os.read(end, 1)  # until the member has ended too
"""
    )
    member = at(run, "member")
    assert member.get("session.leader.exe") == os.fsencode(os.path.realpath("/bin/sh"))
    assert member.get("pgrp.leader.exe") == member.get("exe") == os.fsencode(os.path.realpath(sys.executable))


def test_leaders_are_named_by_pid_and_program(live: Live) -> None:
    run = live.python(MARK + "os.setsid(); os.fork() or (os.setpgid(0, 0), mark('member'))")
    member = at(run, "member")
    python = os.fsencode(os.path.basename(os.path.realpath(sys.executable)))
    assert member.get("session.leader.pid") == run.pid != member.get("pid") == member.get("pgrp.leader.pid")
    assert member.get("session.leader.name") == member.get("pgrp.leader.name") == python


def test_age_is_the_time_since_the_processs_start_whatever_it_runs(live: Live) -> None:
    run = live.python(
        MARK
        + """
def told(name):
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    mark(name)
    print(before, time.clock_gettime_ns(time.CLOCK_BOOTTIME), open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    sys.stdout.flush()
told("first")
if (pid := os.fork()) == 0:
    told("child"); os.execv("/bin/true", ["true"])
os.waitpid(pid, 0)
""",
    )
    for name, line in zip(("first", "child"), run.stdout.splitlines(), strict=True):
        before, after, ticks = map(int, line.split())
        age = at(run, name).get("proc.age")
        assert isinstance(age, int)
        assert before - (ticks + 1) * NS_PER_TICK < age <= after - ticks * NS_PER_TICK
    child = [event for event in run.events if event.actor.id == at(run, "child").actor.id]
    ages = [event.get("proc.age") for event in child]
    for event in child:  # its creator began before it
        older, younger = event.get("parent.proc.age"), event.get("proc.age")
        assert isinstance(older, int) and isinstance(younger, int)
        assert older - younger == event.actor.id[1] - at(run, "first").actor.id[1] > 0
    assert child[-1].type.name == "exit" and ages == sorted(ages, key=lambda age: age if isinstance(age, int) else -1)


def test_a_users_name_is_what_the_system_calls_the_one_behind_it(live: Live) -> None:
    run = live.python(
        MARK
        + """
open("/proc/self/loginuid", "w").write("4294967295"); mark("root")
syscall(117, 2, 2, 2); mark("other")
syscall(117, 0, 0, 0)
""",
    )
    assert at(run, "root").get("user.name") == os.fsencode(pwd.getpwuid(0).pw_name)
    assert at(run, "other").get("user.name") == os.fsencode(pwd.getpwuid(2).pw_name)
    run = live.python(MARK + "open('/proc/self/loginuid', 'w').write('4000000001'); mark('nobody')")
    assert (at(run, "nobody").get("user.id"), at(run, "nobody").get("user.name")) == (4000000001, None)


def test_ids_and_capabilities_are_those_of_proc(live: Live) -> None:
    run = live.python(
        MARK
        + """
def say(name):
    mark(name)
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    print(*status["Uid"].split(), *status["Gid"].split(), int(status["CapEff"], 16), int(status["CapPrm"], 16), flush=True)
say("root")
assert syscall(114, 31, 32) == 0  # setregid
assert syscall(123, 33) >= 0  # setfsgid
assert syscall(113, -1, 21) == 0  # setreuid: a saved id stays
say("other")
""",
    )
    names = ["uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid", "caps.effective", "caps.permitted"]
    for name, line in zip(("root", "other"), run.stdout.splitlines(), strict=True):
        assert [at(run, name).get(field) for field in names] == [int(number) for number in line.split()]
    assert at(run, "other").get("caps.effective") == 0 != at(run, "root").get("caps.effective")
    assert isinstance(held := at(run, "root").get("caps.permitted"), int) and held & CONSTANTS["CAP_"]["CAP_KILL"]


def test_login_uid_is_what_was_written_and_begins_an_entry(live: Live) -> None:
    run = live.python(
        MARK
        + """
mark("before"); print(open("/proc/self/loginuid").read())
open("/proc/self/loginuid", "w").write("4321"); mark("login")
if (pid := os.fork()) == 0:
    syscall(117, 500, 500, 500); mark("child"); os._exit(0)
os.waitpid(pid, 0)
""",
    )
    before, login, child = (at(run, name) for name in ("before", "login", "child"))
    inherited = int(run.stdout)
    assert before.get("loginuid") == (None if inherited == 0xFFFFFFFF else inherited)
    assert before.get("user.id") == (0 if inherited == 0xFFFFFFFF else inherited)
    assert (login.get("loginuid"), login.get("user.id"), login.get("uid")) == (4321, 4321, 0)
    assert (child.get("loginuid"), child.get("user.id"), child.get("uid")) == (4321, 4321, 500)
    assert login.get("entry.id") == child.get("entry.id") == login.get("proc.id") != before.get("entry.id")
    assert {event.get("entry.kind") for event in (login, child)} == {b"login"}
    assert child.get("entry.exe") == os.fsencode(os.path.realpath(sys.executable))


def test_user_id_is_the_uid_where_nobody_logged_in(live: Live) -> None:
    run = live.python(
        MARK
        + """
open("/proc/self/loginuid", "w").write("4294967295"); syscall(117, 500, 500, 500); mark("nobody")
""",
    )
    assert at(run, "nobody").get("loginuid") is None
    assert at(run, "nobody").get("user.id") == 500


def test_the_terminal_is_that_of_proc(live: Live) -> None:
    run = live.python(
        MARK
        + """
import fcntl
master, slave = os.openpty()
if (pid := os.fork()) == 0:
    os.setsid(); mark("none")
    fcntl.ioctl(slave, 0x540E, 0); mark("terminal")  # TIOCSCTTY
    number = open("/proc/self/stat").read().rpartition(")")[2].split()[4]
    print(number, os.fstat(slave).st_rdev)
    sys.stdout.flush(); os._exit(0)
os.waitpid(pid, 0)
""",
    )
    number, device = map(int, run.stdout.split())
    assert (at(run, "none").get("tty.nr"), at(run, "none").get("tty.present")) == (0, False)
    assert (at(run, "terminal").get("tty.nr"), at(run, "terminal").get("tty.present")) == (number, True)
    assert number == device


def test_working_directory_is_resolved_and_that_of_the_start(live: Live, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    code = f"import os; os.chdir('/'); os.execv({sys.executable!r}, ['x', '-c', ''])"
    run = live.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path / "link")
    first, second = run.of("exec")
    assert first.get("cwd") == os.fsencode(tmp_path / "real")
    assert second.get("cwd") == b"/"


def test_a_working_directory_past_the_walk_is_cut_and_says_so(live: Live, tmp_path: Path) -> None:
    run = live.python(
        f"""
        os.chdir({str(tmp_path)!r})
        for _ in range(150):
            os.mkdir("d"); os.chdir("d")
        os.execv("/bin/true", ["true"])
        """
    )
    event = run.of("exec")[-1]
    cwd = event.get("cwd")
    assert isinstance(cwd, bytes) and cwd.endswith(b"/d/d") and len(cwd) == 2 * 128
    assert Flag.CWD_TRUNCATED in event.flags and Flag.PATH_TRUNCATED not in event.flags


def test_namespaces_are_those_of_proc(live: Live) -> None:
    run = live.python(
        MARK
        + """
def say(name):
    mark(name)
    print(*(os.stat("/proc/self/ns/" + kind).st_ino for kind in ("pid", "mnt", "net", "user")), flush=True)
say("outside")
assert syscall(272, 0x00020000 | 0x40000000 | 0x10000000 | 0x20000000) == 0  # unshare: mnt, net, user, pid
say("inside")
if (pid := os.fork()) == 0:
    say("deeper"); os._exit(0)
os.waitpid(pid, 0)
""",
    )
    told = [tuple(at(run, n).get(f"ns.{k}") for k in ("pid", "mnt", "net", "user")) for n in ("outside", "inside")]
    truth = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert told == truth[:2]
    assert told[0][0] == told[1][0] and all(told[0][i] != told[1][i] for i in (1, 2, 3))
    # what /proc shows in the new pid namespace is the old one's processes: the numbers are those of its parent's mount
    deeper = at(run, "deeper")
    assert deeper.get("ns.pid") not in (None, told[0][0])
    assert deeper.get("ns.mnt") == told[1][1]


FORMS = {
    "docker": (f"docker/{ID}", ID),
    "docker with systemd": (f"system.slice/docker-{ID}.scope", ID),
    "containerd": (f"kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", ID),
    "podman": (f"machine.slice/libpod-{ID}.scope/container", ID),
    "cri-o": (f"kubepods.slice/crio-{ID}.scope", ID),
    "systemd-nspawn": ("machine.slice/systemd-nspawn@web.service/payload", "web"),
}


@pytest.mark.parametrize("hierarchy", hierarchies())
@pytest.mark.parametrize("form", FORMS)
def test_the_container_is_known_by_its_cgroup(live: Live, hierarchy: str, form: str) -> None:
    path, expected = FORMS[form]
    with cgroup(hierarchy, path) as made:
        run = live.run(["/bin/sh", "-c", f"echo $$ > {made}/cgroup.procs && exec /bin/sh -c '/bin/true; :'"])
    outside, inside, child = run.of("exec")
    assert outside.get("container.id") is None
    assert inside.get("container.id") == child.get("container.id") == expected.encode()
    assert inside.get("entry.id") == child.get("entry.id") == inside.get("proc.id") != outside.get("entry.id")
    assert inside.get("entry.kind") == child.get("entry.kind") == b"container"
    assert child.get("entry.exe") == inside.get("exe") == os.fsencode(os.path.realpath("/bin/sh"))


def test_a_process_that_is_moved_is_in_the_container_from_then_on(live: Live) -> None:
    v2 = next(where for where in hierarchies() if (Path(where) / "cgroup.controllers").exists())
    code = "import sys\nfor line in sys.stdin: open('/dev/null')"
    with (
        cgroup(v2, f"docker/{ID}") as made,
        subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdin is not None
        live.drain()
        containers = []
        for cgroup_procs in (Path(v2) / "cgroup.procs", made / "cgroup.procs"):
            cgroup_procs.write_text(str(child.pid))
            child.stdin.write("x\n")
            child.stdin.flush()
            events: list[Event] = []
            deadline = time.monotonic() + patient(10)
            while not any(e.get("rawpath") == b"/dev/null" for e in events) and time.monotonic() < deadline:
                events += [e for e in live.drain() if e.actor.id[0] == child.pid and e.type.name == "open"]
            containers.append(events[-1].get("container.id"))
        child.stdin.close()
    assert containers == [None, ID.encode()]


def test_lineages_entry_survives_double_fork_and_exec(live: Live) -> None:
    run = live.python("""
        end, write = os.pipe()
        os.set_inheritable(write, True)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execv("/bin/true", ["true"])
            os._exit(0)
        os.wait()
        os.close(write)
        os.read(end, 1)  # until the other has ended too
    """)
    assert run.of("exec", filename=b"/bin/true")
    entries = {event.get("entry.id") for event in run.events}
    me = live.table.find(os.getpid())
    assert me is not None and entries == {me.entry}


def test_what_was_there_before_is_known_by_the_scan(tmp_path: Path) -> None:
    v2 = next(where for where in hierarchies() if (Path(where) / "cgroup.controllers").exists())
    with cgroup(v2, f"docker/{ID}") as made:
        code = (
            "import os, sys; os.setsid(); open('/proc/self/loginuid', 'w').write('77');"
            f"open('{made}/cgroup.procs', 'w').write(str(os.getpid()));"
            "print(flush=True); sys.stdin.readline()"
        )
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
        )
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdout.readline()
            with Live([]) as live:
                process, me = live.table.find(child.pid), live.table.find(os.getpid())
        finally:
            child.communicate(b"\n")
    assert process is not None and me is not None
    assert process.session == process.pgrp == process.id == process.entry
    assert process.entered is not None and process.entered.kind == b"container"
    assert (process.loginuid, process.cwd, process.container) == (77, os.fsencode(tmp_path), ID.encode())
    assert me.cwd == os.fsencode(Path.cwd())
    assert me.tty_nr == int(stat_fields(os.getpid())[4])
    namespaces = tuple(os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("pid", "mnt", "net", "user"))
    assert me.namespaces == namespaces


def test_without_the_scan_proc_is_asked(live: Live) -> None:
    with sleeper() as child:
        live.await_exec(child.pid)
        exact = live.table.find(child.pid)
        assert exact is not None
        live.table.exited(*exact.id)
        again = live.table.get(*exact.id)
    assert again is not exact
    assert (again.exe, again.cwd, again.container) == (exact.exe, exact.cwd, exact.container)
