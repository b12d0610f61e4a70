"""The shipped policies compile without a warning, and match what they are about and not what looks like it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from execray.schema.catalog import NO_CONTENT
from policyd.compiler import Level, compile_set
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.program import Alert, CompiledPolicy, Response
from tests.support.playbook import Play, Proc

FOLDER = Path(__file__).parents[3] / "policies"
FILES = sorted(FOLDER.glob("*.policy"))
COMPILED = compile_set([(file.name, file.read_bytes()) for file in FILES])
POLICIES = {policy.name: policy for policy in COMPILED.policies}


def matches(play: Play) -> list[str]:
    machine = Machine()
    machine.load(COMPILED.policies, 1)
    return [output.policy.name for output in machine.feed(play.batch()) if isinstance(output, Match)]


def test_they_compile_without_errors_and_warnings() -> None:
    assert len(POLICIES) >= 25
    assert [found.message for found in COMPILED.diagnostics if found.level is not Level.NOTE] == []


@pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))
def test_each_is_in_audit_and_says_what_it_is(policy: CompiledPolicy) -> None:
    meta = policy.meta
    assert policy.response is Response.AUDIT
    assert meta.id and meta.title and meta.description and meta.attack and meta.falsepositives
    assert len(policy.steps) == 1 or policy.within_ns is not None
    assert any(isinstance(action, Alert) for handler in policy.handlers for action in handler.actions)
    assert policy.within_ns is None or policy.within_ns <= 15 * 60 * 1_000_000_000


def test_ids_are_unique() -> None:
    assert len({policy.meta.id for policy in POLICIES.values()}) == len(POLICIES)


# --- credential access ----------------------------------------------------------------------------------------------------


def reads(play: Play, process: Proc, path: str = "/etc/shadow", **slots: Any) -> None:
    play.event("open", process, **{"path": path, "flags": os.O_RDONLY, "ret": 3, **slots})


def sends(play: Play, process: Proc, **slots: Any) -> None:
    play.event("connect", process, **{"family": 2, "dst_ip": "192.0.2.1", "dst_port": 80, "ret": 0, **slots})


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/gshadow", "/etc/shadow-", "/etc/shadow.edit"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDONLY | os.O_CLOEXEC])
def test_hashes_read_then_sent(path: str, flags: int) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    reads(play, thief, path, flags=flags)
    sends(play, thief)
    assert matches(play) == ["credential_access"]


def test_hashes_read_then_written_by_a_child() -> None:
    play = Play()
    shell = play.process(exe="/usr/bin/bash", uid=0)
    reads(play, shell)
    child = play.fork(shell, exe="/usr/bin/gzip")
    play.event("write", child, fd=1, path="pipe:[1]", ret=10, len=10)
    assert matches(play) == ["credential_access"]


def test_hashes_copied_by_the_kernel() -> None:
    # cp calls copy_file_range, which is no write.
    play = Play()
    copier = play.process(exe="/usr/bin/cp", uid=0)
    reads(play, copier)
    play.event("open", copier, path="/tmp/x", flags=os.O_WRONLY | os.O_CREAT, mode=0o600, ret=4)
    assert matches(play) == ["credential_access"]


def test_a_file_only_read_is_no_way_out() -> None:
    play = Play()
    reader = play.process(exe="/usr/bin/wc", uid=0)
    reads(play, reader)
    reads(play, reader, "/etc/locale.alias")
    assert matches(play) == []


@pytest.mark.parametrize("exe", ["/usr/bin/passwd", "/usr/sbin/sshd", "/usr/bin/sudo", "/usr/sbin/unix_chkpwd"])
def test_a_packaged_tool_may_read_hashes(exe: str) -> None:
    play = Play()
    tool = play.process(exe=exe, uid=0)
    reads(play, tool)
    sends(play, tool)
    assert matches(play) == []


def test_a_copy_of_a_packaged_tool_may_not() -> None:
    play = Play()
    tool = play.process(exe="/tmp/usr/bin/passwd", comm="passwd", uid=0)
    reads(play, tool)
    sends(play, tool)
    assert matches(play) == ["credential_access"]


@pytest.mark.parametrize(
    "slots", [{"path": "/etc/passwd"}, {"flags": os.O_WRONLY}, {"ret": -13, "path": None}, {"path": "/srv/etc/shadow"}]
)
def test_other_files_other_access_and_failures_are_none_of_it(slots: dict[str, Any]) -> None:
    play = Play()
    process = play.process(exe="/tmp/thief")
    reads(play, process, **slots)
    sends(play, process)
    assert matches(play) == []


def test_a_stranger_s_connection_and_one_after_the_window_do_not_count() -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    reads(play, thief)
    sends(play, play.process(exe="/usr/bin/curl"))
    sends(play, thief, at=61)
    assert matches(play) == []


# --- privilege escalation -------------------------------------------------------------------------------------------------

BOTH = ["setuid_root_by_name", "setuid_root_by_program"]


def becomes_root(play: Play, process: Proc, **slots: Any) -> None:
    values = {"call": "setuid", "new_uid": 0, "new_euid": 0, "old_uid": 1000, "old_euid": 1000, "ret": 0}
    play.event("setuid", process, **{**values, **slots})


@pytest.mark.parametrize("call", ["setuid", "setreuid", "setresuid"])
def test_any_of_the_calls_to_root_by_an_unknown_program(call: str) -> None:
    play = Play()
    becomes_root(play, play.process(exe="/tmp/exploit", comm="exploit"), call=call)
    assert matches(play) == BOTH


def test_only_the_effective_id_is_enough() -> None:
    play = Play()
    becomes_root(play, play.process(exe="/tmp/exploit", comm="exploit"), new_uid=1000)
    assert matches(play) == BOTH


def test_a_forged_name_fools_the_first_and_not_the_companion() -> None:
    play = Play()
    becomes_root(play, play.process(exe="/tmp/exploit", comm="sudo"))
    assert matches(play) == ["setuid_root_by_program"]


@pytest.mark.parametrize(
    ("exe", "comm"),
    [("/usr/bin/sudo", "sudo"), ("/usr/bin/su", "su"), ("/usr/bin/pkexec", "pkexec"), ("/bin/mount", "mount")],
)
def test_packaged_set_uid_programs_may(exe: str, comm: str) -> None:
    play = Play()
    becomes_root(play, play.process(exe=exe, comm=comm))
    assert matches(play) == []


@pytest.mark.parametrize("slots", [{"old_uid": 0}, {"new_uid": 1001, "new_euid": 1001}, {"old_uid": None}])
def test_root_itself_other_ids_and_the_unknown_are_none_of_it(slots: dict[str, Any]) -> None:
    play = Play()
    becomes_root(play, play.process(exe="/tmp/exploit", comm="exploit"), **slots)
    assert matches(play) == []


# --- process injection ----------------------------------------------------------------------------------------------------

ATTACH, SEIZE, CONT = 16, 0x4206, 7


def attaches(play: Play, attacker: Proc, target: Proc, **slots: Any) -> None:
    values = {"request": ATTACH, "target_id": target, "target_real_parent_id": (1, 1), "target_uid": 1000, "ret": 0}
    play.event("ptrace", attacker, **{**values, **slots})


@pytest.mark.parametrize("request_", [ATTACH, SEIZE])
def test_attaching_to_a_process_that_is_no_child(request_: int) -> None:
    play = Play()
    attaches(play, play.process(), play.process(), request=request_)
    assert matches(play) == ["process_injection"]


Change = Callable[[Play, Proc, Proc], None]


@pytest.mark.parametrize(
    "change",
    [
        lambda play, a, t: attaches(play, a, t, request=CONT),
        lambda play, a, t: attaches(play, a, t, target_real_parent_id=a.id),
        lambda play, a, t: attaches(play, a, a),
        lambda play, a, t: attaches(play, play.process(uid=0), t),
        lambda play, a, t: attaches(play, a, t, target_id=None, target_real_parent_id=None, ret=-3),
    ],
    ids=["another request", "its own child", "itself", "by root", "no such process"],
)
def test_what_a_debugger_does_is_none_of_it(change: Change) -> None:
    play = Play()
    change(play, play.process(), play.process())
    assert matches(play) == []


# --- dropper --------------------------------------------------------------------------------------------------------------


def drops(play: Play, process: Proc, path: str = "/tmp/x", **slots: Any) -> None:
    values = {"path": path, "flags": os.O_WRONLY | os.O_CREAT, "mode": 0o644, "created": True, "ret": 3}
    play.event("open", process, **{**values, **slots})


def arms(play: Play, process: Proc, mode: int = 0o755, ret: int = 0) -> None:
    play.event("chmod", process, rawpath="/tmp/x", mode=mode, ret=ret)


def runs(play: Play, process: Proc, exe: str = "/tmp/x") -> None:
    process.values["exe"] = exe
    play.event("exec", process, filename=exe, ret=0)


@pytest.mark.parametrize("path", ["/tmp/x", "/var/tmp/a/b", "/dev/shm/.x"])
def test_made_armed_and_run_within_one_tree(path: str) -> None:
    play = Play()
    shell = play.process(exe="/usr/bin/bash")
    drops(play, shell, path)
    arms(play, play.fork(shell, exe="/usr/bin/chmod"))
    runs(play, play.fork(shell), path)
    assert matches(play) == ["dropper"]


@pytest.mark.parametrize(("maker", "found"), [("/usr/bin/bash", ["dropper_from_shell"]), ("/usr/bin/make", [])])
def test_made_armed_and_run_by_three_children_of_a_shell(maker: str, found: list[str]) -> None:
    play = Play()
    shell = play.process(exe=maker)
    drops(play, play.fork(shell, exe="/usr/bin/curl"))
    arms(play, play.fork(shell, exe="/usr/bin/chmod"))
    runs(play, play.fork(shell))
    assert matches(play) == found


def test_a_script_is_run_by_its_interpreter() -> None:
    play = Play()
    shell = play.process(exe="/usr/bin/bash")
    drops(play, shell)
    arms(play, shell)
    play.event("exec", play.fork(shell, exe="/usr/bin/dash"), filename="/tmp/x", ret=0)
    assert matches(play) == ["dropper"]


def test_made_executable_from_the_start_and_run() -> None:
    play = Play()
    shell = play.process(exe="/usr/bin/bash")
    drops(play, shell, mode=0o700)
    runs(play, play.fork(shell))
    assert matches(play) == ["dropper_made_executable"]


@pytest.mark.parametrize(
    "parts",
    [
        (partial(drops, created=False), arms, runs),
        (partial(drops, path="/home/u/x"), arms, runs),
        (drops, partial(arms, mode=0o644), runs),
        (drops, partial(arms, ret=-1), runs),
        (drops, arms, partial(runs, exe="/usr/bin/ls")),
        (arms, drops, runs),
    ],
    ids=["was there", "elsewhere", "not armed", "arming failed", "another program", "wrong order"],
)
def test_less_than_all_of_it_is_none_of_it(parts: tuple[Callable[[Play, Proc], None], ...]) -> None:
    play = Play()
    process = play.process(exe="/usr/bin/bash")
    for part in parts:
        part(play, process)
    assert matches(play) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_has_vectors_beside_it(path: Path) -> None:
    assert path.with_name(path.stem + ".test.yaml").exists()


def test_an_installation_as_it_comes_asks_for_nothing_beside_the_record() -> None:
    """A path's spelling takes a tenth of each open that is recorded, and what is read or written is nobody's business."""
    machine = Machine()
    machine.load(COMPILED.policies, 1)
    assert machine.needs().content == NO_CONTENT
