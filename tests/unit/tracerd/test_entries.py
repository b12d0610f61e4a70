"""tracerd.entries and what the process table knows beside programs: sessions, login ids, containers."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from execray.process import NS_PER_TICK
from execray.schema.layout import Task
from tracerd.processes import MAX_DEPTH, Process, ProcessTable

UNSET = 0xFFFFFFFF
SYSTEMD, SSHD, CRON, BASH = b"/usr/lib/systemd/systemd", b"/usr/sbin/sshd", b"/usr/sbin/cron", b"/usr/bin/bash"


def task(process: Process, **facts: Any) -> Task:
    """What a record of the process says of it."""
    zeroes = dict.fromkeys(Task._fields, 0)
    return Task(
        **{**zeroes, "loginuid": UNSET, "pid": process.pid, "start_ns": process.start_ns, "comm": b"c", **facts}
    )


class World:
    """A table with an init, in which processes fork and execute."""

    def __init__(self) -> None:
        self.table = ProcessTable(1000, Path("/nonexistent"))
        self.init = self.table.scanned(1, 1, SYSTEMD)
        self.init.own_image = self.init.told = True
        self._pid = 1

    def fork(self, parent: Process) -> Process:
        self._pid += 1
        return self.table.forked(parent, self._pid, self._pid)

    def run(self, parent: Process, exe: bytes) -> Process:
        child = self.fork(parent)
        self.table.executed(child, exe, exe + b"\0", 0)
        return child


@pytest.fixture
def world() -> World:
    return World()


def test_a_service_is_an_entry_and_its_children_are_in_it(world: World) -> None:
    service = world.run(world.init, b"/usr/sbin/nginx")
    worker = world.fork(service)
    shell = world.run(world.fork(worker), BASH)
    assert service.entry == worker.entry == shell.entry == service.id
    assert world.init.entry is None


def test_a_login_by_sshd_is_one_entry_however_sshd_divides_itself(world: World) -> None:
    listener = world.run(world.init, SSHD)
    first, second = world.fork(listener), world.run(listener, SSHD)  # it may execute itself anew
    unprivileged = world.fork(second)
    shell = world.run(unprivileged, BASH)
    assert listener.entry == listener.id
    assert first.entry == first.id and second.entry == second.id
    assert unprivileged.entry == shell.entry == second.id


def test_each_cron_job_is_an_entry(world: World) -> None:
    cron = world.run(world.init, CRON)
    jobs = [world.fork(cron) for _ in range(2)]  # the child runs cron still, and makes the one that becomes the job
    commands = [world.run(world.fork(job), BASH) for job in jobs]
    assert [command.entry for command in commands] == [job.id for job in jobs]


def test_services_of_a_users_manager_are_entries(world: World) -> None:
    manager = world.run(world.init, SYSTEMD)
    helper = world.fork(world.fork(world.init))  # made by a copy of systemd, before it executes the service
    service = world.run(manager, b"/usr/bin/pipewire")
    assert service.entry == service.id != manager.entry
    assert helper.parent is not None and helper.entry == helper.parent.id


def test_a_program_that_calls_itself_a_daemon_begins_nothing(world: World) -> None:
    shell = world.run(world.init, BASH)
    for exe in (b"/tmp/sshd", b"/home/me/usr/sbin/cron", b"/usr/sbin/../../tmp/notcron"):
        assert world.fork(world.run(shell, exe)).entry == shell.id


def test_another_login_uid_begins_an_entry_but_its_loss_does_not(world: World) -> None:
    display = world.run(world.init, b"/usr/sbin/gdm3")
    session = world.fork(display)
    world.table.acted(session, task(session, loginuid=1000))
    child = world.run(session, BASH)
    world.table.acted(child, task(child, loginuid=1000))
    assert session.entry == child.entry == session.id
    world.table.acted(child, task(child, loginuid=UNSET))
    assert child.entry == session.id and child.loginuid is None


def test_the_first_of_its_line_in_a_container_is_an_entry(world: World) -> None:
    runtime = world.run(world.init, b"/usr/bin/containerd")
    first = world.fork(runtime)
    world.table.executed(first, BASH, b"", 0)
    world.table.contained(first, b"c1", 77, by_id=True)
    inside = world.run(first, b"/bin/x")
    world.table.contained(inside, b"c1", 77, by_id=True)
    assert first.entry == inside.entry == first.id
    later = world.fork(runtime)
    world.table.acted(later, task(later, cgroup_id=77))  # put there without an exec: the cgroup is known
    assert later.container == b"c1" and later.entry == later.id
    world.table.acted(later, task(later, cgroup_id=1))  # and to one that is not, of which /proc says nothing
    assert later.container == b"c1"


def test_where_v1_has_a_say_a_cgroups_id_alone_tells_nothing(world: World) -> None:
    one, two = world.fork(world.init), world.fork(world.init)
    world.table.contained(one, b"c1", 1, by_id=False)
    world.table.acted(two, task(two, cgroup_id=1))
    assert one.container == b"c1" and two.container is None


def kind_of(process: Process) -> bytes | None:
    return None if process.entered is None else process.entered.kind


def test_an_entrys_kind_says_what_began_it(world: World) -> None:
    kinds = {}
    for daemon in (SSHD, CRON, b"/usr/sbin/atd", b"/usr/sbin/in.telnetd", b"/usr/sbin/xinetd", b"/usr/bin/php-fpm"):
        kinds[daemon] = kind_of(world.run(world.fork(world.run(world.init, daemon)), BASH))
    assert list(kinds.values()) == [b"ssh", b"cron", b"cron", b"telnet", b"inetd", b"service"]
    assert kind_of(world.init) is None


def test_a_login_within_a_login_is_the_same_kind_and_at_a_console_is_a_login(world: World) -> None:
    remote, job = (world.fork(world.run(world.init, daemon)) for daemon in (SSHD, CRON))
    console = world.run(world.init, b"/sbin/agetty")
    inside = world.run(world.run(world.init, b"/usr/bin/containerd"), BASH)
    world.table.contained(inside, b"c1", 77, by_id=True)
    kinds = []
    for process in (remote, job, console, inside):
        world.table.executed(process, b"/bin/login", b"login\0", 0)
        world.table.acted(process, task(process, loginuid=1000, cgroup_id=process.cgroup_id))
        kinds.append(kind_of(world.run(process, BASH)))
    assert kinds == [b"ssh", b"cron", b"login", b"login"]


def test_what_was_there_before_has_the_kind_that_it_would_have_got() -> None:
    table = ProcessTable(100)
    made = {
        1: (0, SYSTEMD, {}),
        20: (1, SSHD, {}),
        21: (20, SSHD, {"loginuid": 1000}),
        22: (21, BASH, {"loginuid": 1000}),
        30: (1, b"/sbin/agetty", {"loginuid": 1000}),
        40: (1, b"/usr/bin/containerd-shim", {}),
        41: (40, BASH, {}),
    }
    for pid, (_, exe, facts) in made.items():
        process = table.scanned(pid, pid, exe)
        process.argv = b"%d\0" % pid
        if pid == 41:
            table.contained(process, b"c1", 7, by_id=True)
        table.acted(process, task(process, **facts))
    for pid, (parent, _, _) in made.items():
        table.link(pid, (parent, parent))
    table.settle()
    found = {pid: (one.entry, kind_of(one)) for pid in made if (one := table.find(pid))}
    assert found == {
        1: (None, None),
        20: ((20, 20), b"service"),
        21: ((21, 21), b"ssh"),
        22: ((21, 21), b"ssh"),
        30: ((30, 30), b"login"),
        40: ((40, 40), b"service"),
        41: ((41, 41), b"container"),
    }


def test_an_entrys_program_is_what_its_process_runs_now_or_ran_at_its_end(world: World) -> None:
    job = world.fork(world.run(world.init, CRON))
    worker = world.fork(job)
    assert worker.entered is not None and worker.entered.leader.exe == CRON
    world.table.executed(job, BASH, b"bash\0", 0)
    world.table.exited(*job.id)
    assert worker.entered.leader.exe == BASH


def test_a_line_of_leaders_keeps_no_more_processes_than_any_line(world: World) -> None:
    """Each leads a session and an entry of its own for some generations: what is cut off the line must go."""
    process = world.init
    before = _processes()
    for generation in range(5 * MAX_DEPTH):
        child = world.fork(process)
        if generation % 50 == 0:
            world.table.acted(child, task(child, session=child.pid, pgrp=child.pid, loginuid=generation))
        world.table.exited(*process.id)
        process = child
    assert _processes() - before <= MAX_DEPTH


def _processes() -> int:
    gc.collect()
    return sum(isinstance(one, Process) for one in gc.get_objects())


def test_a_sessions_leader_is_remembered_when_it_is_gone(world: World) -> None:
    leader = world.fork(world.init)
    member = world.fork(leader)
    world.table.acted(member, task(member, session=leader.pid, pgrp=leader.pid))
    world.table.exited(*leader.id)
    late = world.fork(member)
    for process in (member, late):
        world.table.acted(process, task(process, session=leader.pid, pgrp=leader.pid))
        assert process.session == process.pgrp == leader.id
    stranger = world.fork(world.init)
    world.table.acted(stranger, task(stranger, session=9999))
    assert stranger.session == (9999, 0) and stranger.pgrp is None


def test_a_scan_finds_entries_whatever_the_order_of_pids() -> None:
    table = ProcessTable(100)
    made = [(50, 1, None), (7, 30, 50), (9, 40, 7), (3, 50, 9), (1, 0, None), (60, 2, 1)]
    for pid, start, _ in made:
        process = table.scanned(pid, start, b"/bin/p%d" % pid)
        table.acted(process, task(process))
    parents = {50: 1, 7: 50, 9: 7, 3: 9, 60: 1}
    for pid, parent in parents.items():
        found = table.find(parent)
        assert found is not None
        table.link(pid, found.id)
    table.settle()
    entries = {pid: found.entry for pid, _, _ in made if (found := table.find(pid))}
    assert entries == {1: None, 50: (50, 1), 7: (50, 1), 9: (50, 1), 3: (50, 1), 60: (60, 2)}


def test_an_unknown_process_is_asked_for_in_proc(tmp_path: Path) -> None:
    folder = tmp_path / "70"
    folder.mkdir()
    stat = ["S", "1", "70", "70", *["0"] * 15, str(5_000_000_000 // NS_PER_TICK), *["0"] * 20]
    (folder / "stat").write_text("70 (a) b) " + " ".join(stat))
    (folder / "cmdline").write_bytes(b"/bin/x\0-a\0")
    (folder / "cgroup").write_bytes(b"0::/docker/" + b"a" * 64 + b"\n")
    (folder / "exe").symlink_to("/bin/x")
    (folder / "cwd").symlink_to("/srv")
    table = ProcessTable(10, tmp_path)
    init = table.scanned(1, 1, SYSTEMD)
    init.told = True
    process = table.get(70, 5_000_000_123)
    assert (process.exe, process.argv, process.cwd, process.container) == (
        b"/bin/x",
        b"/bin/x\0-a\0",
        b"/srv",
        b"a" * 64,
    )
    table.acted(process, task(process, loginuid=0, session=70))
    assert (process.entry, process.loginuid, process.session) == (process.id, 0, process.id)
    assert table.get(70, 9_000_000_000).exe is None  # the pid is another process's by now
