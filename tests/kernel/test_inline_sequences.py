"""bpf/include/execray/inline.h: rules of several steps kill at the last one, in their order and within their time."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest

from execray.gate.inline import InlinePlan, InlinePolicy, Part
from execray.schema.layout import INLINE_CELL, INLINE_CELL_KEY
from tests.support.inline_kills import (
    HOUR_NS,
    TAG,
    Killing,
    opens,
    opens_32,
    plan_of,
    rule,
    text,
)
from tests.support.live import RING, Live
from tracerd.inline import Limits


def sequence(arena: Killing, last: str = "three", within_ns: int = 60_000_000_000) -> InlinePlan:
    names = [arena.dir / name for name in ("one", "two", last)]
    for path in names:
        path.write_text("x")
    return plan_of(*(rule("open", text(path), step=step) for step, path in enumerate(names)), within_ns=within_ns)


def in_turn(arena: Killing, *names: str) -> str:
    return "; ".join(opens(arena.dir / name) for name in names)


@pytest.mark.parametrize(
    ("order", "killed"),
    [
        ("three", False),
        ("one three", False),
        ("two one three", False),
        ("one three two", False),
        ("two three", False),
        ("one two three", True),
        ("one three one two two one three", True),
    ],
)
def test_a_sequence_kills_at_its_last_step_and_only_in_its_order(arena: Killing, order: str, killed: bool) -> None:
    arena.load(sequence(arena))
    assert arena.kills(in_turn(arena, *order.split())) is killed


def test_a_sequence_is_of_one_process(arena: Killing) -> None:
    arena.load(sequence(arena))
    child = f"p = os.fork()\nif p == 0:\n    {opens(arena.dir / 'three')}\n    os._exit(7)\nassert os.waitpid(p, 0)[1] == 7 << 8"
    assert not arena.kills(f"{in_turn(arena, 'one', 'two')}\n{child}")


def test_a_sequence_of_several_threads_is_of_their_process(arena: Killing) -> None:
    arena.load(sequence(arena))
    thread = f"t = threading.Thread(target=lambda: {opens(arena.dir / 'two')}); t.start(); t.join()"
    assert arena.kills(f"{opens(arena.dir / 'one')}; {thread}; {opens(arena.dir / 'three')}")


def test_a_sequence_goes_on_through_exec(arena: Killing) -> None:
    arena.load(sequence(arena))
    rest = f"import os; {in_turn(arena, 'two', 'three')}; os.mkdir({str(arena.done)!r})"
    assert arena.kills(
        f"{opens(arena.dir / 'one')}; os.execv('/usr/bin/python3', ['python3', '-I', '-S', '-c', {rest!r}])"
    )


def test_a_sequence_that_took_too_long_kills_nobody(arena: Killing) -> None:
    arena.load(sequence(arena, within_ns=500_000_000))
    assert not arena.kills(f"{in_turn(arena, 'one', 'two')}; time.sleep(0.6); {opens(arena.dir / 'three')}")
    # begun anew it is in time
    assert arena.kills(f"{opens(arena.dir / 'one')}; time.sleep(0.6); {in_turn(arena, 'one', 'two', 'three')}")


def test_other_rules_begin_with_no_sequence(arena: Killing) -> None:
    plan = sequence(arena, "decoy")
    arena.load(plan)
    with arena.held(in_turn(arena, "one", "two")) as held:
        arena.load(InlinePlan())
        arena.load(plan)
        assert held.ends() == 0


def test_a_completed_sequence_that_did_not_kill_is_used_up(arena: Killing) -> None:
    arena.load(sequence(arena, "decoy"), leased=False)
    with arena.held(in_turn(arena, "one", "two", "decoy")) as held:
        arena.live.sensor.inline.renew(HOUR_NS)
        assert held.ends() == 0


def test_a_completed_sequence_for_which_no_kill_is_left_is_used_up(tmp_path: Path) -> None:
    with Live([], kills=Limits(64, 0, frozenset(), frozenset())) as live:
        arena = Killing(live, tmp_path)
        arena.decoy.write_text("x")
        arena.load(sequence(arena, "decoy"))
        with arena.held(in_turn(arena, "one", "two", "decoy")) as held:
            assert arena.count("budget") == 1
            live.sensor.inline.maps["er_inline_tokens"].update(bytes(4), bytes(4))
            assert held.ends() == 0
        assert arena.kills(in_turn(arena, "one", "two", "decoy"))


def test_another_policys_step_is_taken_in_a_call_for_which_no_kill_is_left(tmp_path: Path) -> None:
    with Live([], kills=Limits(64, 0, frozenset(), frozenset())) as live:
        arena = Killing(live, tmp_path)
        one = arena.dir / "one"
        for path in (one, arena.decoy):
            path.write_text("x")
        rules = (
            rule("open", text(one)),
            rule("open", text(one), slot=1),
            rule("open", text(arena.decoy), slot=1, step=1),
        )
        arena.load(InlinePlan((InlinePolicy(1, 1), InlinePolicy(TAG, 2, HOUR_NS)), rules))
        live.sensor.inline.maps["er_inline_tokens"].update(struct.pack("<I", 1 << 16), bytes(4))
        assert arena.kills(in_turn(arena, "one", "decoy"))
        assert arena.count("budget") == 1


def test_a_last_step_of_which_the_kernel_is_not_sure_uses_up_the_sequence(arena: Killing) -> None:
    arena.load(sequence(arena, "decoy"))
    with arena.held(f"{in_turn(arena, 'one', 'two')}\n{opens_32(arena.decoy)}") as held:
        assert held.ends() == 0


def test_a_last_step_that_only_user_space_can_judge_uses_up_the_sequence(arena: Killing) -> None:
    held_file = arena.dir / "gone"
    last = rule("open", text(b"/nowhere", Part.STARTS, negate=True), text(b"inlinetest", Part.COMM), step=2)
    before = sequence(arena, "decoy").rules[:2]
    arena.load(plan_of(*before, last, within_ns=HOUR_NS))
    held_file.write_text("x")
    name = "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)"
    unnamed = f"f = {opens(held_file)}; os.unlink({str(held_file)!r}); {in_turn(arena, 'one', 'two')}; {name}"
    # without the open of what has no name any more this kills
    for between, killed in (("", True), ("os.open('/proc/self/fd/%d' % f, 0); ", False)):
        held_file.write_text("x")
        assert arena.kills(f"{unnamed}; {between}{opens(arena.decoy)}") is killed


@pytest.mark.skipif(int(os.uname().release.split(".")[0]) < 6, reason="before Linux 6.0 nobody sees the operation")
def test_a_last_step_through_an_io_uring_uses_up_its_sequence(arena: Killing) -> None:
    arena.load(sequence(arena, "decoy"))
    through = f"assert ring.do(18, -100, 0, buf({os.fsencode(arena.decoy)!r}), 0, 0) >= 0"
    for between, killed in (("pass", True), (through, False)):
        code = f"{RING}\nring = Ring()\n{in_turn(arena, 'one', 'two')}\n{between}\n{opens(arena.decoy)}"
        assert arena.kills(code) is killed


@pytest.mark.parametrize(("earlier_ns", "status"), [(0, -signal.SIGKILL), (1, 0)], ids=["its own", "of another"])
def test_what_a_former_process_of_the_same_pid_began_kills_nobody(arena: Killing, earlier_ns: int, status: int) -> None:
    arena.load(sequence(arena, "decoy"))
    cells = arena.live.sensor.inline.maps["er_inline_cells"]
    with arena.held(in_turn(arena, "one", "two")) as held:
        key = INLINE_CELL_KEY.pack(held.pid, 0)
        start_ns, *rest = INLINE_CELL.unpack(cells.lookup(key) or b"")
        cells.update(key, INLINE_CELL.pack(start_ns - earlier_ns, *rest))
        assert held.ends() == status


def test_sequences_that_were_forgotten_kill_nobody(arena: Killing) -> None:
    arena.load(sequence(arena, "decoy"))
    with arena.held(in_turn(arena, "one", "two")) as held:
        arena.live.sensor.inline.forget()
        assert held.ends() == 0
    assert arena.kills(in_turn(arena, "one", "two", "decoy"))
