"""Policies as users write them, compiled and run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from policyd.compiler import compile_source
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match, StepDone, handler_applies
from tests.support.playbook import Play

SHIPPED = Path(__file__).parents[4] / "policies"


def machine(text: str) -> Machine:
    compiled = compile_source(text, "test.policy")
    assert compiled.ok, compiled.diagnostics
    engine = Machine()
    engine.load(compiled.policies, 1)
    return engine


def shipped(name: str) -> Machine:
    return machine((SHIPPED / name).read_text(encoding="utf-8"))


def names(engine: Machine, play: Play) -> list[str]:
    outputs = engine.feed(play.batch())
    assert engine.stats()["malformed"] == 0
    return [output.policy.name for output in outputs if isinstance(output, Match)]


SEED = """
path "credential_theft" {
    openat { pathname =~ "/etc/(passwd|shadow)" flags == O_RDWR }
    write  { content =~ ".*root.*" } ?
    block "shell"  { execve { filename = "/bin/sh" argv[0] =~ "sh" } } :
    block "normal" { connect { dst.port = 80 } }
    on match { alert }
}
"""


@pytest.mark.parametrize("through_shell", [True, False])
def test_seed_policy_with_a_conditional(through_shell: bool) -> None:
    engine, play = machine(SEED), Play()
    proc = play.process()
    play.event("open", proc, path="/etc/shadow", flags=os.O_RDWR, ret=3)
    if through_shell:
        play.event("write", proc, fd=1, content="root:x:0", len=8)
        play.event("exec", proc, filename="/bin/sh", ret=0)
        proc.values["argv"] = ["sh"]
        play.event("exec", proc, filename="/bin/sh", ret=0)
    else:
        play.event("write", proc, fd=1, content="nothing", len=7)
        play.event("connect", proc, dst_ip="192.0.2.1", dst_port=80, ret=0)
    (match,) = engine.feed(play.batch())
    assert isinstance(match, Match)
    assert match.labels == (("shell",) if through_shell else ("normal",))
    assert len(match.trail) == (3 if through_shell else 2)


def test_windows_aliases_handlers_and_repeats() -> None:
    engine = machine(
        """
        path "exfiltration" within 10s {
            open { path startswith "/secret/" } as o ..
            connect { dst.ip in ["192.0.2.0/24"] } as c
            on step o { log }
            on match if c.dst.port = 443 { alert high }
            on match if c.dst.port != 443 { alert critical }
        }
        """
    )
    play = Play()
    proc = play.process()
    for number in range(3):
        play.event("open", proc, path=f"/secret/{number}", at=number)
    play.event("connect", proc, dst_ip="192.0.2.7", dst_port=443, at=10)
    done, match = engine.feed(play.batch())
    assert isinstance(done, StepDone) and isinstance(match, Match)
    assert [evidence.count for evidence in match.trail] == [3, 1]
    assert [handler_applies(h, match) for h in match.policy.handlers] == [False, True, False]


def test_shipped_credential_policy_follows_the_tree_and_leaves_packaged_tools_alone() -> None:
    engine, play = shipped("credential_access.policy"), Play()
    for exe in ("/usr/sbin/unix_chkpwd", "/usr/bin/cat"):
        reader = play.process(exe=exe)
        child = play.fork(reader)
        play.event("open", reader, path="/etc/shadow", flags=os.O_RDONLY, ret=3)
        play.event("connect", child, dst_ip="192.0.2.1", dst_port=443, ret=0)
    play.event("open", reader, path="/etc/shadow", flags=os.O_RDONLY, ret=-13)
    play.event("write", reader, fd=1, len=1, ret=1)
    assert names(engine, play) == ["credential_access"]


def test_shipped_dropper_policy_needs_all_three_steps() -> None:
    engine, play = shipped("dropper.policy"), Play()
    shell = play.process(exe="/bin/bash")
    child = play.fork(shell)
    play.event("open", shell, path="/tmp/x", flags=os.O_WRONLY | os.O_CREAT, mode=0o644, created=True, ret=3)
    child.values["exe"] = "/tmp/x"
    play.event("exec", child, filename="/tmp/x", ret=0)
    assert names(engine, play) == []
    play.event("chmod", shell, rawpath="/tmp/x", mode=0o755, ret=0)
    play.event("exec", child, filename="/tmp/x", ret=0)
    assert names(engine, play) == ["dropper"]


def test_shipped_injection_policy_spares_root_and_parents() -> None:
    engine, play = shipped("process_injection.policy"), Play()
    attacker, victim = play.process(), play.process()
    target: dict[str, Any] = {"target_id": victim, "target_tid": victim.id[0], "target_uid": 1000, "ret": 0}
    play.event("ptrace", attacker, request=16, target_real_parent_id=attacker, **target)
    play.event("ptrace", play.process(uid=0), request=16, target_real_parent_id=play.process(), **target)
    play.event("ptrace", attacker, request=3, target_real_parent_id=play.process(), **target)
    assert names(engine, play) == []
    play.event("ptrace", attacker, request=0x4206, target_real_parent_id=play.process(), **target)
    assert len(names(engine, play)) == 1


def test_shipped_escalation_policy_is_not_fooled_by_a_forged_comm() -> None:
    engine, play = shipped("privilege_escalation.policy"), Play()
    ids: dict[str, Any] = {"new_uid": 0, "new_euid": 0, "old_uid": 1000, "old_euid": 1000, "ret": 0}
    play.event("setuid", play.process(comm="sudo", exe="/usr/bin/sudo"), call="setuid", **ids)
    assert names(engine, play) == []
    play.event("setuid", play.process(comm="sudo", exe="/tmp/exploit"), call="setuid", **ids)
    assert len(names(engine, play)) == 1
    play.event("setuid", play.process(comm="exploit", exe="/tmp/exploit"), call="setuid", **ids)
    assert len(names(engine, play)) == 2


ENV = ["HOME=/root", "LD_PRELOAD=/tmp/x.so"]


@pytest.mark.parametrize(
    ("condition", "env", "holds"),
    [
        ('env contains "LD_PRELOAD="', ENV, True),
        ('env contains "LD_AUDIT="', ENV, False),
        ('env = "HOME=/root"', ENV, True),
        ('env = "HOME=/"', ENV, False),
        ('env != "HOME=/"', ENV, True),
        ('env in ["HOME=/", "HOME=/root"]', ENV, True),
        ('env =~ "^LD_PRELOAD="', ENV, True),
        ('env startswith "LD_PRELOAD="', ENV, True),
        ('env endswith ".so"', ENV, True),
        ('env[0] startswith "HOME="', ENV, True),
        ('env[1] startswith "HOME="', ENV, False),
        ("env exists", ENV, True),
        ("env exists", None, False),
        ('not env = "HOME=/root"', ENV, False),
        ('not env = "HOME=/"', ENV, True),
        ('any env(it =~ "^LD_PRELOAD=")', ENV, True),
    ],
)
def test_environment_is_tested_and_keeps_no_other_policy_from_the_exec(
    condition: str, env: list[str] | None, holds: bool
) -> None:
    engine = machine(
        f'policy "by_env" {{ exec {{ {condition} }} }}\npolicy "other" {{ exec {{ filename = "/bin/sh" }} }}'
    )
    play = Play()
    play.event("exec", play.process(), filename="/bin/sh", env=env, ret=0)
    assert sorted(names(engine, play)) == ["by_env"] * holds + ["other"]
