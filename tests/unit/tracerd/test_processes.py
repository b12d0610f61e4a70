"""The table of processes, where it has to ask /proc: for one whose beginning was lost."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from execray.process import NS_PER_TICK
from execray.schema.layout import Task
from tracerd.processes import ProcessTable

START_TICKS = 5000


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one process, 42, a child of 7."""
    folder = tmp_path / "42"
    folder.mkdir()
    fields = ["S", "7", *["0"] * 17, str(START_TICKS), *["0"] * 30]
    (folder / "stat").write_text(f"42 (a (b) c) {' '.join(fields)}\n")
    (folder / "cmdline").write_bytes(b"tool\0-x\0")
    return tmp_path


def test_a_process_that_is_not_known_is_looked_up(proc: Path) -> None:
    (proc / "42" / "exe").symlink_to("/usr/bin/tool (deleted)")
    table = ProcessTable(1024, proc)
    parent = table.scanned(7, NS_PER_TICK, b"/usr/bin/maker")
    found = table.get(42, START_TICKS * NS_PER_TICK + 1)
    assert (found.exe, found.argv, found.parent) == (b"/usr/bin/tool", b"tool\0-x\0", parent)


def test_one_whose_program_may_not_be_asked_keeps_its_line_and_arguments(proc: Path) -> None:
    (proc / "42" / "exe").mkdir()  # no link to read, as without CAP_SYS_PTRACE
    table = ProcessTable(1024, proc)
    parent = table.scanned(7, NS_PER_TICK, b"/usr/bin/maker")
    found = table.get(42, START_TICKS * NS_PER_TICK)
    assert (found.exe, found.argv, found.parent) == (None, b"tool\0-x\0", parent)


def test_another_process_under_the_same_pid_is_not_taken_for_it(proc: Path) -> None:
    (proc / "42" / "exe").symlink_to("/usr/bin/tool")
    found = ProcessTable(1024, proc).get(42, (START_TICKS - 1) * NS_PER_TICK)
    assert (found.exe, found.argv, found.parent) == (None, None, None)


@pytest.mark.parametrize("exits", [True, False], ids=["ends are seen", "ends are lost"])
def test_many_short_lived_processes_leave_nothing_but_the_bound(exits: bool) -> None:
    table = ProcessTable(500, Path("/nonexistent"))
    mother = table.scanned(1, 1, b"/sbin/init")
    argv = b"x" * 4096 + b"\0"

    def live(number: int) -> None:
        child = table.forked(mother, 1000 + number % 5000, number)
        table.executed(child, b"/bin/true", argv, 0)
        table.acted(child, Task._make([0] * len(Task._fields))._replace(comm=b"true", session=1, pgrp=child.pid))
        if exits:
            table.exited(*child.id)

    for number in range(2, 4000):
        live(number)
    tracemalloc.start()
    try:
        for number in range(4000, 24_000):
            live(number)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == (1 if exits else 500)
    # at most the 500 that are known, with what they hold
    assert grown < (64 * 1024 if exits else 500 * 8192)


KEYS = 1 << 16 | 1 << 17 | 1 << 21  # CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_ADMIN
HOSTS_USER_NS = 0xEFFFFFFD


@pytest.mark.parametrize(
    ("bounding", "user_ns", "expected"),
    [
        pytest.param((1 << 41) - 1, HOSTS_USER_NS, True, id="all"),
        pytest.param(((1 << 41) - 1) & ~(1 << 28), HOSTS_USER_NS, True, id="all but CAP_LEASE"),
        pytest.param(((1 << 41) - 1) & ~(1 << 21), HOSTS_USER_NS, False, id="all but CAP_SYS_ADMIN"),
        pytest.param(((1 << 41) - 1) & ~(1 << 16), HOSTS_USER_NS, False, id="all but CAP_SYS_MODULE"),
        pytest.param(((1 << 41) - 1) & ~(1 << 17), HOSTS_USER_NS, False, id="all but CAP_SYS_RAWIO"),
        pytest.param(KEYS, HOSTS_USER_NS, True, id="the three alone"),
        pytest.param(0xA80425FB, HOSTS_USER_NS, False, id="what Docker gives"),
        pytest.param((1 << 41) - 1, 4026532000, False, id="all, in a user namespace of its own"),
        pytest.param(None, HOSTS_USER_NS, None, id="not known"),
    ],
)
def test_privileged_is_a_container_with_the_keys_of_the_host(
    bounding: int | None, user_ns: int, expected: bool | None
) -> None:
    process = ProcessTable(16, Path("/nonexistent")).scanned(42, 1, b"/bin/true")
    process.bounding, process.namespaces = bounding, (1, 1, 1, user_ns)
    assert process.privileged is None
    process.container = b"c" * 64
    assert process.privileged is expected
