"""The killer on real processes that the test started: whom it kills, and above all whom it doesn't."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from execray.guard import Allow, Budget, GuardSettings, OwnProcesses, Reason, Refuse, WouldKill
from execray.killer import Killer, boottime_ns, ended, ended_at_once, kill_process, open_process
from execray.process import NS_PER_TICK, ProcessKey, boot_id
from execray.wire.orders import Mode, Order, Outcome, Result
from tests.support.orders import copy_of_sleep, died_of_sigkill, key_of, make_order, python_victim, victim

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other accounts need root")
HAS_KTHREADD = Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text() == "kthreadd\n"


def killer(
    *,
    host: Mode = Mode.ENFORCE,
    per_minute: int = 100,
    per_policy: int = 100,
    exe: str = "",
    own: int = 0,
    death_wait_s: float = 5.0,
) -> Killer:
    settings = GuardSettings(
        host,
        boot_id(),
        5_000_000_000,
        protect_exe=frozenset({os.fsencode(exe)}),
        protect_comm=frozenset({b"protected"}),
    )
    processes = OwnProcesses()
    if own:
        processes.add(own)
    return Killer(settings, Budget(per_minute, per_policy), processes, "enforcer", death_wait_s=death_wait_s)


async def test_process_is_killed_and_seen_dead() -> None:
    desk = killer()
    with victim() as child:
        outcome = await desk.execute(make_order(key_of(child.pid)))
        assert (outcome.result, outcome.dead, outcome.by) == (Result.KILLED, True, "enforcer")
        assert 0 < outcome.took_ns < 5_000_000_000
        assert died_of_sigkill(child)
    assert desk.results == {"killed": 1} and desk.budget.left == 99


async def test_process_that_ignores_every_signal_is_killed() -> None:
    code = "import signal, sys\nfor n in range(1, 32):\n if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
    code += "print('ready', flush=True); signal.pause()"
    with python_victim(code) as (child, ready):
        assert ready == "ready"
        outcome = await killer().execute(make_order(key_of(child.pid)))
        assert outcome.dead and died_of_sigkill(child)


Spare = Callable[[ProcessKey], tuple[Killer, Order]]

#: Everything that must keep a living process alive, and what the outcome says.
SPARED: dict[str, tuple[Spare, Result, str]] = {
    "another start time": (
        lambda key: (killer(), make_order(dataclasses.replace(key, start_ns=key.start_ns + NS_PER_TICK))),
        Result.REFUSED,
        "pid_reused",
    ),
    "an earlier process of that pid": (
        lambda key: (killer(), make_order(dataclasses.replace(key, start_ns=key.start_ns - 3600 * 10**9))),
        Result.REFUSED,
        "pid_reused",
    ),
    "another boot": (
        lambda key: (killer(), make_order(dataclasses.replace(key, boot_id="0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00"))),
        Result.REFUSED,
        "wrong_boot",
    ),
    "host in audit mode": (
        lambda key: (killer(host=Mode.AUDIT), make_order(key)),
        Result.WOULD_KILL,
        "host_audit",
    ),
    "policy in audit mode": (
        lambda key: (killer(), make_order(key, mode=Mode.AUDIT)),
        Result.WOULD_KILL,
        "policy_audit",
    ),
    "expired order": (
        lambda key: (killer(), make_order(key, issued_ns=boottime_ns() - 6_000_000_000)),
        Result.REFUSED,
        "expired",
    ),
    "order from the future": (
        lambda key: (killer(), make_order(key, issued_ns=boottime_ns() + 60_000_000_000)),
        Result.REFUSED,
        "from_future",
    ),
    "spent budget": (lambda key: (killer(per_minute=0), make_order(key)), Result.REFUSED, "budget"),
    "spent budget of the policy": (
        lambda key: (killer(per_policy=0), make_order(key)),
        Result.REFUSED,
        "policy_budget",
    ),
    "own process": (lambda key: (killer(own=key.pid), make_order(key)), Result.REFUSED, "own_process"),
}


@pytest.mark.parametrize("name", SPARED)
async def test_process_is_spared_for(name: str) -> None:
    spare, result, code = SPARED[name]
    with victim() as child:
        desk, order = spare(key_of(child.pid))
        left = desk.budget.left
        outcome = await desk.execute(order)
        assert (outcome.result, outcome.code, outcome.dead) == (result, code, False)
        assert outcome.text
        assert child.poll() is None
        assert desk.budget.left == left


async def test_protected_program_is_spared_and_its_namesake_elsewhere_is_not(tmp_path: Path) -> None:
    protected = copy_of_sleep(tmp_path)
    (tmp_path / "other").mkdir()
    with victim(protected) as child, victim(copy_of_sleep(tmp_path / "other")) as namesake:
        desk = killer(exe=protected)
        assert (await desk.execute(make_order(key_of(child.pid)))).code == "protected_exe"
        os.unlink(protected)  # an upgrade while it runs
        assert (await desk.execute(make_order(key_of(child.pid)))).code == "protected_exe"
        assert (await desk.execute(make_order(key_of(namesake.pid)))).result is Result.KILLED
        assert child.poll() is None and died_of_sigkill(namesake)


async def test_many_orders_for_one_process_spend_one_kill_of_the_budget() -> None:
    desk = killer(per_policy=2)
    with victim() as child, victim() as other:
        key = key_of(child.pid)
        strikes = [desk.strike(make_order(key)) for _ in range(5)]
        assert {strike.outcome.result for strike in strikes} <= {Result.KILLED, Result.GONE}
        assert desk.budget.left == 99
        assert (await desk.execute(make_order(key_of(other.pid)))).result is Result.KILLED
        for strike in strikes:
            await desk.finish(strike)
        assert died_of_sigkill(child) and died_of_sigkill(other)


async def test_end_is_told_of_without_a_task_too() -> None:
    desk = killer()
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    with victim() as child:
        order = make_order(key_of(child.pid))
        strike = desk.strike(order)
        desk.follow(strike, told.set_result)
        assert not told.done()
        outcome = await told
        assert (outcome.result, outcome.dead) == (Result.KILLED, True) and outcome.took_ns > 0
        assert died_of_sigkill(child)
    assert await desk.execute(order) == outcome and strike.pidfd is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(strike.pidfd)


async def test_end_that_is_seen_at_once_is_part_of_the_first_outcome() -> None:
    desk, seen = killer(), list[int]()

    def sent(pidfd: int) -> bool:
        seen.append(pidfd)
        assert desk.budget.left == 100, "whom it was sent to comes before the books"
        return ended_at_once(pidfd, quiet, 5_000)

    quiet, end = os.pipe()
    try:
        with victim() as child:
            order = make_order(key_of(child.pid))
            strike = desk.strike(order, sent)
            assert (strike.outcome.result, strike.outcome.dead, strike.pidfd) == (Result.KILLED, True, None)
            assert 0 < strike.outcome.took_ns < 5_000_000_000
            assert strike.outcome.time_ns - strike.began_ns < strike.outcome.took_ns, "it is dated by the signal"
            assert died_of_sigkill(child)
        assert desk.strike(order, sent).outcome == strike.outcome == await desk.finish(strike)
        assert desk.strike(make_order(order.process), sent).outcome.result is Result.GONE
        assert len(seen) == 1 and desk.budget.left == 99
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(seen[0])
    finally:
        os.close(quiet)
        os.close(end)


def test_nobody_is_waited_for_longer_than_that_or_when_there_is_something_to_do() -> None:
    quiet, end = os.pipe()
    try:
        with victim() as child:
            pidfd = os.pidfd_open(child.pid)
            began = time.monotonic()
            assert not ended_at_once(pidfd, quiet, 1)
            os.write(end, b"another order")
            assert not ended_at_once(pidfd, quiet, 600_000)
            assert time.monotonic() - began < 60
            os.close(pidfd)
    finally:
        os.close(quiet)
        os.close(end)


async def test_end_that_is_not_seen_in_time_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    with victim() as child:
        desk = killer(death_wait_s=0.02)
        strike = desk.strike(make_order(key_of(child.pid)))
        desk.follow(strike, told.set_result)
        outcome = await told
        assert (outcome.result, outcome.dead) == (Result.KILLED, False)
        assert outcome.took_ns >= 20_000_000 and child.poll() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(strike.pidfd or -1)


async def test_process_whose_first_thread_ended_can_not_pass_for_a_protected_one(tmp_path: Path) -> None:
    # Then /proc/PID/exe names no program, as for one that we may not look into; its name is whatever it likes.
    code = """
import ctypes, threading, time
libc = ctypes.CDLL(None)
libc.prctl(15, b"sleeper", 0, 0, 0)  # PR_SET_NAME
def wait_for_the_end():
    while open("/proc/self/task/%d/stat" % first).read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    print("alone", flush=True)
    time.sleep(60)
first = threading.get_native_id()
threading.Thread(target=wait_for_the_end).start()
libc.syscall(60, 0)  # exit: this thread only
"""
    with python_victim(code) as (child, said):
        assert said == "alone"
        outcome = await killer(exe=copy_of_sleep(tmp_path)).execute(make_order(key_of(child.pid)))
        assert (outcome.result, outcome.dead) == (Result.KILLED, True)
        assert died_of_sigkill(child)


async def test_protected_name_is_spared(tmp_path: Path) -> None:
    with victim(copy_of_sleep(tmp_path, "protected")) as child:
        assert (await killer().execute(make_order(key_of(child.pid)))).code == "protected_comm"
        assert child.poll() is None


async def test_init_kernel_threads_and_itself_are_never_killed() -> None:
    desk = killer()
    for pid in (0, 1):
        order = make_order(ProcessKey(pid, 0, boot_id()))
        assert (await desk.execute(order)).code == "init"
    assert (await desk.execute(make_order(key_of(os.getpid())))).code == "own_process"
    assert desk.results == {"refused": 3}


@pytest.mark.skipif(not HAS_KTHREADD, reason="a pid namespace of its own shows no kernel threads")
async def test_kernel_thread_is_refused() -> None:
    assert (await killer().execute(make_order(key_of(2)))).code == "kernel_thread"


async def test_process_that_ended_is_gone_whether_reaped_or_not() -> None:
    desk = killer()
    with victim() as child:
        key = key_of(child.pid)
        child.kill()
        pidfd = os.pidfd_open(child.pid)
        assert await ended(pidfd, 5.0)
        os.close(pidfd)
        assert (await desk.execute(make_order(key))).result is Result.GONE  # a zombie
        child.wait(5)
        assert (await desk.execute(make_order(key))).result is Result.GONE
    assert desk.budget.left == 100


async def test_thread_id_is_no_process() -> None:
    code = "import threading, signal; t = threading.Thread(target=signal.pause, daemon=True); t = threading.Thread("
    code += "target=threading.Event().wait, daemon=True); t.start(); print(t.native_id, flush=True); signal.pause()"
    with python_victim(code) as (child, line):
        tid = int(line)
        outcome = await killer().execute(make_order(dataclasses.replace(key_of(child.pid), pid=tid)))
        assert outcome.result in (Result.FAILED, Result.REFUSED, Result.GONE)
        assert child.poll() is None


async def test_repeated_order_is_answered_with_the_first_outcome_and_not_done_again() -> None:
    desk = killer()
    with victim() as child:
        order = make_order(key_of(child.pid))
        first = await desk.execute(order)
        assert await desk.execute(order) == first
        assert desk.results == {"killed": 1} and desk.budget.left == 99


async def test_order_repeated_while_the_first_one_still_waits_does_not_kill_twice() -> None:
    desk = killer()
    with victim() as child:
        order = make_order(key_of(child.pid))
        outcomes = await asyncio.gather(*(desk.execute(order) for _ in range(10)))
        assert {outcome.result for outcome in outcomes} == {Result.KILLED}
        assert desk.results == {"killed": 1} and desk.budget.left == 99


async def test_id_of_another_order_spares_the_process() -> None:
    desk = killer()
    with victim() as first, victim() as second:
        assert (await desk.execute(make_order(key_of(first.pid), order_id="x"))).result is Result.KILLED
        outcome = await desk.execute(make_order(key_of(second.pid), order_id="x"))
        assert outcome.code == "id_reused" and second.poll() is None
        assert (await desk.execute(make_order(key_of(first.pid), order_id="x"))).result is Result.KILLED


async def test_budget_stops_a_mistaken_policy_after_its_share() -> None:
    desk = killer(per_policy=2)
    with victim() as one, victim() as two, victim() as three, victim() as four:
        for child in (one, two):
            assert (await desk.execute(make_order(key_of(child.pid), policy="mad"))).dead
        assert (await desk.execute(make_order(key_of(three.pid), policy="mad"))).code == "policy_budget"
        assert three.poll() is None
        assert (await desk.execute(make_order(key_of(four.pid), policy="sane"))).dead


async def test_pid_that_changed_hands_after_the_pidfd_was_opened_is_not_hit() -> None:
    """The check sees the facts behind the fd; when the process ends in between, the signal finds nobody."""
    with victim() as child:
        key = key_of(child.pid)

        def dies_meanwhile(_facts: object) -> Allow:
            child.kill()
            child.wait(5)
            return Allow()

        done = kill_process(key, dies_meanwhile)
        assert done.pidfd is None and isinstance(done.why, ProcessLookupError)


@pytest.mark.parametrize("verdict", [Refuse(Reason.PROTECTED_EXE, ""), WouldKill(Reason.HOST_AUDIT, "")])
def test_of_one_that_ended_meanwhile_nothing_is_known(verdict: Refuse | WouldKill) -> None:
    """What was read under its pid may be of who has that now: a refusal for it would be remembered, and told, of another."""
    with victim() as child:

        def dies_meanwhile(_facts: object) -> Refuse | WouldKill:
            child.kill()
            child.wait(5)
            return verdict

        done = kill_process(key_of(child.pid), dies_meanwhile)
        assert done.pidfd is None and isinstance(done.why, ProcessLookupError)


def test_kill_process_compares_the_start_time_itself() -> None:
    with victim() as child:
        key = dataclasses.replace(key_of(child.pid), start_ns=0)
        done = kill_process(key, lambda _facts: Allow())
        assert done.pidfd is None and getattr(done.why, "code", None) is Reason.PID_REUSED
        assert child.poll() is None


def test_no_file_descriptor_is_left_behind() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def orders() -> None:
        desk = killer()
        with victim() as child:
            await desk.execute(make_order(dataclasses.replace(key_of(child.pid), start_ns=0)))
            await desk.execute(make_order(key_of(child.pid), mode=Mode.AUDIT))
            await desk.execute(make_order(key_of(child.pid)))
            await desk.execute(make_order(key_of(child.pid)))

    before = count()
    asyncio.run(orders())
    assert count() == before


@needs_root
def test_killer_without_the_right_to_kill_says_so() -> None:
    code = """
import asyncio, os, sys
from execray.guard import Budget, GuardSettings, OwnProcesses
from execray.killer import Killer
from execray.process import boot_id
from execray.wire.orders import Mode
from tests.support.orders import key_of, make_order
boot_id()  # codecs load now: the interpreter may be out of that account's reach
os.setgroups([]); os.setgid(65534); os.setuid(65534)
settings = GuardSettings(Mode.ENFORCE, boot_id(), 5_000_000_000, frozenset({b"/usr/sbin/sleep"}))
desk = Killer(settings, Budget(9, 9), OwnProcesses(), "policyd")
for pid in sys.argv[1:]:
    outcome = asyncio.run(desk.execute(make_order(key_of(int(pid)))))
    print(outcome.result.value, outcome.code)
"""
    root = Path(__file__).parents[3]
    with victim() as named_sleep, victim("/usr/bin/tail", "-f", "/dev/null") as other:
        done = subprocess.run(
            [sys.executable, "-c", code, str(named_sleep.pid), str(other.pid)],
            check=False, capture_output=True, text=True, timeout=30, cwd=root,
        )  # fmt: skip
        # The program behind a process of root can't be read, so the name of a protected one is enough to spare it.
        assert (done.stderr, done.stdout.splitlines()) == ("", ["refused protected_exe", "failed no_permission"])
        assert named_sleep.poll() is None and other.poll() is None


async def test_end_of_a_living_process_is_not_seen() -> None:
    with victim() as child:
        pidfd, facts = open_process(child.pid)
        try:
            assert facts.pid == child.pid
            assert not await ended(pidfd, 0.01)
        finally:
            os.close(pidfd)


def test_outcome_names_who_did_it() -> None:
    desk = Killer(GuardSettings(Mode.AUDIT, boot_id(), 1), Budget(1, 1), OwnProcesses(), "policyd")
    outcome: Outcome = desk.outcome(make_order(key_of(os.getpid())), Result.GONE)
    assert outcome.by == "policyd" and outcome.code == ""
