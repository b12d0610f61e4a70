"""The table of processes, where it has to ask /proc: for one whose beginning was lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from execray.process import NS_PER_TICK
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
