"""bpf/include/execray/calls/ptrace.h: who is attached to whom."""

from __future__ import annotations

import os

import pytest

from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, sleeper

EVENTS = ["ptrace"]
E = CONSTANTS["E"]


def test_ptrace_names_the_target_and_its_real_parent(live: Live) -> None:
    with sleeper() as target:
        run = live.python(
            "print(syscall(101, 16, int(sys.argv[1]), 0, 0)); os.waitpid(int(sys.argv[1]), 0x40000000)", target.pid
        )
    event = run.one("ptrace", request=CONSTANTS["PTRACE_"]["PTRACE_ATTACH"])
    assert event.get("ret") == int(run.stdout.split()[0]) == 0
    assert event.get("target.pid") == event.get("target.tid") == target.pid
    parent = event.get("target.real_parent.id")
    assert isinstance(parent, tuple) and parent[0] == os.getpid()
    assert event.get("target.exe") == os.fsencode(os.path.realpath("/bin/sleep"))
    assert event.get("target.uid") == 0


def test_ptrace_on_nobody_and_traceme_have_no_target(live: Live) -> None:
    run = live.python("syscall(101, 16, 0x7ffffff0, 0, 0); syscall(101, 0, 0, 0, 0)")
    assert run.one("ptrace", request=16).get("target.id") is None
    assert run.one("ptrace", request=16).get("ret") == -E["ESRCH"]
    assert run.one("ptrace", request=0).get("target.id") is None


@pytest.mark.parametrize("pid", range(1, 4000, 571))
def test_ptrace_finds_any_pid_or_none(live: Live, pid: int) -> None:
    """PEEKUSER on a process that isn't traced fails, but the target must be looked up right whatever its number."""
    run = live.python(f"print(os.path.exists('/proc/{pid}')); syscall(101, 3, {pid}, 0, 0)")
    found = run.one("ptrace", request=3).get("target.tid")
    assert found == (pid if run.stdout.strip() == "True" else None)
