"""The guard over facts: what may never be killed, and what the budget and the memory do."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.config import Config, EnforcerConfig
from execray.guard import (
    BUDGET_WINDOW_NS,
    MAX_AHEAD_NS,
    PF_KTHREAD,
    Allow,
    Budget,
    Facts,
    GuardSettings,
    OutcomeMemory,
    OwnProcesses,
    Reason,
    Refuse,
    Verdict,
    WouldKill,
    facts_of,
    judge_identity,
    judge_order,
    judge_process,
    settings_of,
)
from execray.process import NS_PER_TICK, ProcessKey, boot_id
from execray.wire.orders import Action, Mode, Order, Outcome, Result
from tests.support.orders import copy_of_sleep, victim

BOOT = "0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00"
NOW_NS = 1_000_000_000_000
PID, TICKS = 4711, 5000
ORDER = Order("o", Action.KILL, ProcessKey(PID, TICKS * NS_PER_TICK + 7, BOOT), "p", "a", Mode.ENFORCE, NOW_NS)
FACTS = Facts(PID, TICKS, 0x400100, b"evil", b"/usr/bin/evil")
SETTINGS = GuardSettings(
    Mode.ENFORCE, BOOT, 5_000_000_000, frozenset({b"/usr/sbin/sshd"}), protect_comm=frozenset({b"database"})
)


def judged(
    order: Order = ORDER, facts: Facts = FACTS, settings: GuardSettings = SETTINGS, own: OwnProcesses | None = None
) -> Verdict:
    """In the order in which the killer asks."""
    return (
        judge_order(order, settings, NOW_NS)
        or judge_identity(order.process, facts.start_ticks)
        or judge_process(order, facts, settings, own or OwnProcesses())
    )


def reason(verdict: Verdict) -> Reason | None:
    return None if isinstance(verdict, Allow) else verdict.code


def for_pid(pid: int) -> Order:
    return dataclasses.replace(ORDER, process=dataclasses.replace(ORDER.process, pid=pid))


def test_process_that_nothing_speaks_for_may_be_killed() -> None:
    assert judged() == Allow()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"flags": 0x400100 | PF_KTHREAD}, Reason.KERNEL_THREAD),
        ({"start_ticks": TICKS + 1}, Reason.PID_REUSED),
        ({"start_ticks": TICKS - 1}, Reason.PID_REUSED),
        ({"exe": b"/usr/sbin/sshd"}, Reason.PROTECTED_EXE),
        ({"exe": b"/usr/sbin/sshd (deleted)"}, Reason.PROTECTED_EXE),
        ({"comm": b"database"}, Reason.PROTECTED_COMM),
        ({"pid": 1}, Reason.INIT),
        ({"pid": PID + 1}, Reason.INIT),
    ],
)
def test_process_is_refused_for(changes: dict[str, object], expected: Reason) -> None:
    verdict = judged(facts=dataclasses.replace(FACTS, **changes))  # type: ignore[arg-type]
    assert isinstance(verdict, Refuse) and verdict.code is expected


@pytest.mark.parametrize(
    "changes", [{"comm": b"sshd"}, {"exe": None}, {"exe": b"/tmp/usr/sbin/sshd"}, {"exe": b"/usr/sbin/sshd2"}]
)
def test_process_that_only_looks_a_little_like_a_protected_one_may_be_killed(changes: dict[str, object]) -> None:
    assert judged(facts=dataclasses.replace(FACTS, **changes)) == Allow()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"process": dataclasses.replace(ORDER.process, boot_id=BOOT[::-1])}, Reason.WRONG_BOOT),
        ({"issued_ns": NOW_NS - 5_000_000_001}, Reason.EXPIRED),
        ({"issued_ns": NOW_NS + MAX_AHEAD_NS + 1}, Reason.FROM_FUTURE),
        ({"process": dataclasses.replace(ORDER.process, pid=1)}, Reason.INIT),
        ({"process": dataclasses.replace(ORDER.process, pid=0)}, Reason.INIT),
        ({"exe": "/usr/sbin/sshd"}, Reason.PROTECTED_EXE),
    ],
)
def test_order_is_refused_for(changes: dict[str, object], expected: Reason) -> None:
    verdict = judged(dataclasses.replace(ORDER, **changes))  # type: ignore[arg-type]
    assert isinstance(verdict, Refuse) and verdict.code is expected


@pytest.mark.parametrize("comm", [b"sshd", b"evil"])
@pytest.mark.parametrize(
    ("order_exe", "protected"),
    [("/tmp/sshd", False), ("/usr/sbin/sshd", True), ("/usr/sbin/sshd (deleted)", True), ("", None)],
)
def test_where_the_program_cannot_be_read_the_order_says_which_it_is(
    comm: bytes, order_exe: str, protected: bool | None
) -> None:
    verdict = judged(dataclasses.replace(ORDER, exe=order_exe), facts=dataclasses.replace(FACTS, exe=None, comm=comm))
    if protected is None:  # nothing but the name is known, and a name may only refuse
        protected = comm == b"sshd"
    assert reason(verdict) is Reason.PROTECTED_EXE if protected else verdict == Allow()


def test_program_that_can_be_read_counts_beside_the_orders() -> None:
    """It may have become another one since the event."""
    order = dataclasses.replace(ORDER, exe="/tmp/evil")
    assert reason(judged(order, facts=dataclasses.replace(FACTS, exe=b"/usr/sbin/sshd"))) is Reason.PROTECTED_EXE


def test_order_just_within_its_age_may_be_carried_out() -> None:
    assert judged(dataclasses.replace(ORDER, issued_ns=NOW_NS - 5_000_000_000)) == Allow()


def test_either_audit_mode_only_says_what_would_be_done() -> None:
    host = judged(settings=dataclasses.replace(SETTINGS, host_mode=Mode.AUDIT))
    policy = judged(dataclasses.replace(ORDER, mode=Mode.AUDIT))
    assert isinstance(host, WouldKill) and host.code is Reason.HOST_AUDIT
    assert isinstance(policy, WouldKill) and policy.code is Reason.POLICY_AUDIT


def test_audit_mode_does_not_hide_that_a_process_is_protected() -> None:
    audit = dataclasses.replace(SETTINGS, host_mode=Mode.AUDIT)
    assert reason(judged(facts=dataclasses.replace(FACTS, comm=b"database"), settings=audit)) is Reason.PROTECTED_COMM


def test_own_processes_are_refused_and_reused_pids_of_them_are_not() -> None:
    own = OwnProcesses()
    with victim() as child:
        entry = own.add(child.pid)
        assert entry is not None
        facts = dataclasses.replace(facts_of(child.pid), exe=b"/x")
        order = dataclasses.replace(ORDER, process=ProcessKey(child.pid, facts.start_ticks * NS_PER_TICK, BOOT))
        assert reason(judged(order, facts, own=own)) is Reason.OWN_PROCESS
        later = dataclasses.replace(facts, start_ticks=facts.start_ticks + 1)
        reused = dataclasses.replace(order, process=ProcessKey(child.pid, later.start_ticks * NS_PER_TICK, BOOT))
        assert judged(reused, later, own=own) == Allow()
        own.add(child.pid)
        own.discard(entry)
        assert entry in own
        own.discard(entry)
        assert judged(order, facts, own=own) == Allow()
    assert own.add(child.pid) is None


def test_this_very_process_is_its_own() -> None:
    facts = facts_of(os.getpid())
    order = dataclasses.replace(ORDER, process=ProcessKey(facts.pid, facts.start_ticks * NS_PER_TICK, BOOT))
    assert reason(judged(order, facts)) is Reason.OWN_PROCESS


@given(
    pid=st.integers(0, 5),
    ticks=st.integers(TICKS - 1, TICKS + 1),
    flags=st.integers(0, 2**32 - 1),
    comm=st.sampled_from([b"evil", b"sshd", b"database"]),
    exe=st.sampled_from([None, b"/x", b"/usr/sbin/sshd", b"/usr/sbin/sshd (deleted)"]),
    order_exe=st.sampled_from(["", "/x", "/usr/sbin/sshd"]),
    order_pid=st.integers(0, 5),
    mode=st.sampled_from(Mode),
    host=st.sampled_from(Mode),
    age_ns=st.integers(-(10**9), 10**10),
)
def test_guard_never_allows_what_it_must_not(
    pid: int,
    ticks: int,
    flags: int,
    comm: bytes,
    exe: bytes | None,
    order_exe: str,
    order_pid: int,
    mode: Mode,
    host: Mode,
    age_ns: int,
) -> None:
    order = dataclasses.replace(for_pid(order_pid), mode=mode, exe=order_exe, issued_ns=NOW_NS - age_ns)
    verdict = judged(order, Facts(pid, ticks, flags, comm, exe), dataclasses.replace(SETTINGS, host_mode=host))
    if not isinstance(verdict, Allow):
        return
    assert pid == order_pid > 1 and ticks == TICKS and not flags & PF_KTHREAD
    assert comm != b"database" and order_exe != "/usr/sbin/sshd" and exe in (None, b"/x")
    assert not (exe is None and comm == b"sshd" and not order_exe)
    assert mode is host is Mode.ENFORCE and -MAX_AHEAD_NS <= age_ns <= SETTINGS.max_age_ns


def test_facts_are_those_of_proc(tmp_path: Path) -> None:
    exe = copy_of_sleep(tmp_path, "a b) c")
    with victim(exe) as child:
        facts = facts_of(child.pid)
        assert (facts.pid, facts.comm, facts.exe) == (child.pid, b"a b) c", os.fsencode(exe))
        assert not facts.flags & PF_KTHREAD
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        facts_of(child.pid)


def test_kernel_threads_are_recognised_where_proc_shows_some() -> None:
    found = [facts for facts in map(_facts_or_none, _all_pids()) if facts and facts.flags & PF_KTHREAD]
    if not Path("/proc/2").exists() or Path("/proc/2/comm").read_text() != "kthreadd\n":
        assert not found
    else:
        assert b"kthreadd" in {facts.comm for facts in found}
        assert all(facts.exe is None for facts in found)


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _facts_or_none(pid: int) -> Facts | None:
    try:
        return facts_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def test_settings_come_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    config = Config(
        mode="enforce",
        protect_exe=(os.fspath(tmp_path / "link"),),
        protect_comm=("a-name-longer-than-15",),
        enforcer=EnforcerConfig(order_max_age_s=0.5),
    )
    settings = settings_of(config)
    assert (settings.host_mode, settings.boot_id, settings.max_age_ns) == (Mode.ENFORCE, boot_id(), 500_000_000)
    real = tmp_path.resolve()
    assert settings.protect_exe == {os.fsencode(tmp_path / "link"), os.fsencode(real / "real")}
    assert settings.protect_comm == {b"a-name-longer-t"}


def test_budget_is_kept_over_all_and_for_each_policy() -> None:
    now = [0]
    budget = Budget(3, 2, lambda: now[0])
    for policy in ("a", "a", "b"):
        assert budget.refusal(policy) is None
        budget.spend(policy)
        now[0] += 1
    assert budget.left == 0
    for policy in ("a", "b", "c"):
        refusal = budget.refusal(policy)
        assert refusal is not None and refusal.code is Reason.BUDGET
    now[0] = BUDGET_WINDOW_NS  # the first one is a minute old
    refusal = budget.refusal("b")
    assert refusal is None and budget.left == 1
    budget.spend("a")
    now[0] += 1  # so is the second
    refusal = budget.refusal("a")
    assert refusal is None
    budget.spend("a")
    now[0] += 1
    refusal = budget.refusal("a")
    assert refusal is not None and refusal.code is Reason.POLICY_BUDGET
    assert budget.refusal("b") is None


def test_budget_of_nothing_allows_nothing() -> None:
    assert Budget(0, 10).refusal("p") is not None
    assert Budget(10, 0).refusal("p") is not None


@given(st.lists(st.tuples(st.integers(0, BUDGET_WINDOW_NS), st.sampled_from("abc")), max_size=60))
def test_no_minute_ever_holds_more_kills_than_the_budget(steps: list[tuple[int, str]]) -> None:
    now = [0]
    budget = Budget(5, 3, lambda: now[0])
    kills: list[tuple[int, str]] = []
    for wait_ns, policy in steps:
        now[0] += wait_ns
        if budget.refusal(policy) is None:
            budget.spend(policy)
            kills.append((now[0], policy))
    for at, _ in kills:
        minute = [policy for time, policy in kills if at <= time < at + BUDGET_WINDOW_NS]
        assert len(minute) <= 5 and all(minute.count(policy) <= 3 for policy in "abc")


def outcome(order_id: str) -> Outcome:
    return Outcome(order_id, Result.KILLED, "", "", "enforcer", 1)


def test_memory_gives_the_first_outcome_again_and_refuses_an_id_used_for_another_process() -> None:
    memory = OutcomeMemory()
    assert memory.recall(ORDER) is None
    memory.remember(ORDER, outcome("o"))
    assert memory.recall(dataclasses.replace(ORDER, issued_ns=NOW_NS + 1)) == outcome("o")
    other = memory.recall(for_pid(PID + 1))
    assert isinstance(other, Refuse) and other.code is Reason.ID_REUSED


def test_memory_forgets_the_order_that_was_longest_not_asked_for() -> None:
    memory = OutcomeMemory(2)
    orders = [dataclasses.replace(ORDER, order_id=name) for name in "abc"]
    memory.remember(orders[0], outcome("a"))
    memory.remember(orders[1], outcome("b"))
    memory.recall(orders[0])
    memory.remember(orders[2], outcome("c"))
    assert [memory.recall(order) is not None for order in orders] == [True, False, True]


def test_importing_the_guard_starts_nothing_and_brings_in_no_daemon() -> None:
    code = "import execray.killer, sys; print([m for m in sys.modules if m.split('.')[0] in " + (
        "('tracerd', 'policyd', 'enforcer', 'pylibbpf', 'uvloop')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"
