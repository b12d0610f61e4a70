"""bpf/include/execray/inline.h: who is not killed, although a rule fits, and what is left to user space."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from execray.gate.inline import InlinePlan, InlinePolicy, NumberKind, NumberTest, Part
from execray.gate.plan import Input
from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from tests.support.inline_kills import (
    HOUR_NS,
    LIMITS,
    PYTHON,
    TAG,
    Killing,
    opens,
    opens_32,
    plan_of,
    rule,
    text,
)
from tests.support.live import PRELUDE, Live
from tests.support.pace import patient
from tracerd.inline import Limits


def test_without_a_lease_nobody_is_killed(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))), leased=False)
    before = arena.count("expired")
    assert not arena.kills(opens(arena.decoy))
    assert arena.count("expired") == before + 1


def test_a_lease_that_nobody_renews_ends_by_itself(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    arena.live.sensor.inline.renew(1)
    assert not arena.kills(opens(arena.decoy))


def test_rules_that_are_taken_away_kill_nobody(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    arena.load(InlinePlan())
    assert not arena.kills(opens(arena.decoy))
    arena.load(plan_of(rule("open", text(arena.dir / "another"))))
    assert not arena.kills(opens(arena.decoy))


def test_a_process_that_is_spared_is_not_killed(arena: Killing) -> None:
    inline = arena.live.sensor.inline
    arena.load(plan_of(rule("open", text(arena.decoy))))
    before = arena.count("spared")
    with arena.held() as held:
        inline.spare_process(held.pid)
        inline.spare_process(held.pid)
        inline.forget_process(held.pid)  # the other one holds
        assert held.ends() == 0
    inline.forget_process(held.pid)
    assert arena.count("spared") == before + 1


@pytest.mark.parametrize("by_name", [True, False])
def test_a_protected_program_is_not_killed(tmp_path: Path, by_name: bool) -> None:
    program = os.path.realpath(PYTHON[0]).rsplit("/", 1)[-1]
    exes, comms = (frozenset(), frozenset({b"python3"})) if by_name else (frozenset({program.encode()}), frozenset())
    with Live([], kills=Limits(64, 64, exes, comms)) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        assert not arena.kills(opens(arena.decoy))
        assert arena.count("spared") == 1


def test_a_process_of_execray_is_not_killed(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    arena.live.drain()
    with arena.held() as held:
        process = arena.live.await_exec(held.pid)
        arena.live.sensor.hide(process.pid, process.start_ns)
        assert held.ends() == 0
    arena.live.sensor.show(process.pid, process.start_ns)


@pytest.mark.parametrize(("per_minute", "per_policy"), [(2, 64), (64, 2), (0, 64), (64, 0)])
def test_no_more_are_killed_than_the_budget_allows(tmp_path: Path, per_minute: int, per_policy: int) -> None:
    with Live([], kills=Limits(per_minute, per_policy, frozenset(), frozenset())) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        most = min(per_minute, per_policy)
        assert [arena.kills(opens(arena.decoy)) for _ in range(4)] == [number < most for number in range(4)]
        live.sensor.inline.renew(HOUR_NS)
        assert not arena.kills(opens(arena.decoy))
        assert arena.count("budget") == 5 - most


def test_a_policy_without_a_kill_left_leaves_it_to_another_that_the_call_completes(tmp_path: Path) -> None:
    with Live([], kills=Limits(64, 1, frozenset(), frozenset())) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        rules = (rule("open", text(arena.decoy)), rule("open", text(arena.decoy), slot=1))
        arena.load(InlinePlan((InlinePolicy(TAG, 1), InlinePolicy(TAG + 1, 1)), rules))
        marked = [[e.flags for e in arena.run(opens(arena.decoy)).events if e.flags & Flag.KILLED] for _ in range(3)]
        assert [[int(flags) >> KILLER_SHIFT for flags in each] for each in marked] == [[TAG], [TAG + 1], []]
        assert (arena.count("killed"), arena.count("budget")) == (2, 1)


def test_a_thread_without_a_name_is_not_spared(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    assert arena.kills(f"syscall(157, 15, buf(b''), 0, 0, 0); {opens(arena.decoy)}")


def test_the_threads_of_a_process_that_ends_cost_no_kills(arena: Killing) -> None:
    named = text(b"inlinetest", Part.COMM)
    arena.load(plan_of(rule("accept", named)))
    # whoever is interrupted by the end of the first comes back from accept as well
    assert arena.kills(
        "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "def wait():\n    syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)\n    s.accept()\n"
        "for _ in range(20): threading.Thread(target=wait).start()\n"
        "time.sleep(0.3)\n"
        "c = socket.create_connection(s.getsockname()); time.sleep(30)"
    )


def test_what_setfsuid_returns_is_no_result(arena: Killing) -> None:
    named, none = text(b"inlinetest", Part.COMM), NumberTest(Input.RET, NumberKind.RANGE, 0, 0)
    arena.load(plan_of(rule("setuid", named, none)))
    name = "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)"
    assert not arena.kills(f"{name}; assert syscall(122, 0) == 0")
    assert arena.kills(f"{name}; syscall(105, 0)")


def test_a_path_that_is_not_sure_kills_nobody(arena: Killing) -> None:
    # deeper than the walk: cut in front, so that its end is known and its beginning isn't
    deep = arena.dir.joinpath(*["d"] * 140)
    os.makedirs(deep)
    (deep / "decoy").write_text("x")
    inside = text(b"/decoy", Part.ENDS)
    arena.load(plan_of(rule("open", inside, text(b"inlinetest", Part.COMM))))
    name = "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)"
    assert not arena.kills(f"{name}; {opens(deep / 'decoy')}")
    assert arena.kills(f"{name}; {opens(arena.decoy)}")


def test_a_file_by_another_name_is_left_to_user_space(arena: Killing) -> None:
    os.link(arena.decoy, arena.dir / "other")
    arena.load(plan_of(rule("open", text(arena.decoy))))
    assert not arena.kills(opens(arena.dir / "other"))


def test_a_file_without_a_name_any_more_is_left_to_user_space(arena: Killing) -> None:
    held = arena.dir / "held"
    held.write_text("x")
    writes = NumberTest(Input.FLAGS, NumberKind.SAME, os.O_ACCMODE, os.O_RDWR)
    arena.load(plan_of(rule("open", text(os.fsencode(held), Part.STARTS), writes)))
    assert not arena.kills(f"f = {opens(held)}; os.unlink({str(held)!r}); os.open('/proc/self/fd/%d' % f, os.O_RDWR)")


def test_a_kill_without_room_for_its_evidence_is_none(tmp_path: Path) -> None:
    with Live([], ring_bytes=4096, kills=LIMITS) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        (arena.dir / "noise").write_text("x")
        noise = f"for _ in range(200): os.close(os.open({str(arena.dir / 'noise')!r}, 0))"
        source = f"{PRELUDE}\n{noise}\n{opens(arena.decoy)}"
        done = subprocess.run([*PYTHON, source], check=False, timeout=patient(30))
        assert done.returncode == 0
        assert (arena.count("unsent"), arena.count("killed")) == (1, 0)


def test_a_switch_that_is_off_makes_rules_nothing(tmp_path: Path) -> None:
    with Live([]) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(plan_of(rule("open", text(arena.decoy))))
        assert not arena.kills(opens(arena.decoy))
        assert live.sensor.inline.status()["mode"] == "off"


def test_a_32_bit_call_is_left_to_user_space(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    run = arena.run(opens_32(arena.decoy))
    event = run.one("open", path=os.fsencode(arena.decoy))
    assert event.flags == Flag.COMPAT_ABI
