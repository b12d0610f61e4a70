"""bpf/include/execray/inline.h: who is killed in the call itself, and who isn't. Each rule asks for a file of the test's own."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from execray.gate.addresses import place_of
from execray.gate.hashes import prefix_key
from execray.gate.inline import InlinePlan, InlinePolicy, NumberKind, NumberTest, Part, Rule, TextTest
from execray.gate.plan import ALL_BITS, ROW_ALL, CodeTest, GatePlan, Input
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.field import KILLER_SHIFT
from execray.schema.layout import INLINE_CELL, INLINE_CELL_KEY
from tests.support.arena import eventually
from tests.support.live import PRELUDE, RING, Live, Run
from tests.support.pace import patient
from tracerd.inline import Limits

EVENTS: Final = ["open", "write", "connect"]
TAG: Final = 0xC0FFEE01
HOUR_NS: Final = 3_600_000_000_000
PYTHON: Final = ("/usr/bin/python3", "-I", "-S", "-c")
LIMITS: Final = Limits(per_minute=64, per_policy=64, exes=frozenset(), comms=frozenset())


def text(path: Path | bytes, part: Part = Part.EXACT, *, negate: bool = False) -> TextTest:
    return TextTest(part, path if isinstance(path, bytes) else os.fsencode(path), negate)


def rule(name: str, *tests: TextTest | NumberTest, step: int = 0, slot: int = 0) -> Rule:
    numbers = tuple(test for test in tests if isinstance(test, NumberTest))
    texts = tuple(test for test in tests if isinstance(test, TextTest))
    return Rule(slot, step, EVENT_BY_NAME[name].code, numbers, texts)


def plan_of(*rules: Rule, within_ns: int = 0) -> InlinePlan:
    steps = 1 + max(found.step for found in rules)
    return InlinePlan((InlinePolicy(TAG, steps, within_ns),), rules)


@dataclasses.dataclass
class Held:
    """A process that waits."""

    process: subprocess.Popen[bytes]
    go: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def ends(self) -> int:
        """Lets it open the decoy; returns its status."""
        self.go.touch()
        return self.process.wait(patient(20))


@dataclasses.dataclass
class Killing:
    """A sensor that may kill, and a folder."""

    live: Live
    dir: Path
    nameless: bool = False  # whether writes to pipes and sockets are looked at: a busy host has many

    @property
    def decoy(self) -> Path:
        return self.dir / "decoy"

    @property
    def done(self) -> Path:
        """What a process would make after its last call."""
        return self.dir / "done"

    def load(self, plan: InlinePlan, *, leased: bool = True) -> None:
        codes = frozenset(EVENT_BY_NAME[name].code for name in EVENTS) | {found.code for found in plan.rules}
        assert not self.live.sensor.want(codes, False, plan=self._gate(), inline=plan)
        if leased:
            self.live.sensor.inline.renew(HOUR_NS)
        else:
            self.live.sensor.inline.end_lease()

    def _gate(self) -> GatePlan:
        """Keeps the rest of a busy host out of the ring: of opens and writes passes what is in the folder, or has no path."""
        tested = [EVENT_BY_NAME[name].code for name in ("open", "write")]
        codes = tuple(CodeTest(code, at, at + 1, 2, 0, 2 * self.nameless, 2, ROW_ALL) for at, code in enumerate(tested))
        rest = frozenset(range(1, 64)) - frozenset(tested)
        key = prefix_key(os.fsencode(self.dir))
        return GatePlan(codes, rest, (0, ALL_BITS, 1 | 1 << 64), {key: 2})

    def count(self, name: str) -> int:
        found: int = self.live.sensor.inline.status()[name]
        return found

    def run(self, code: str) -> Run:
        """Runs code in a process of its own, which then makes `done`."""
        source = f"{PRELUDE}\n{code}\nos.mkdir({str(self.done)!r})"
        run = self.live.run([*PYTHON, source])
        if self.done.exists():
            self.done.rmdir()
            assert run.status == 0, run.stderr
        else:
            assert run.status == -signal.SIGKILL, run.stderr
        return run

    @contextmanager
    def held(self, before: str = "") -> Iterator[Held]:
        """A process that does something, and then waits until it is let go."""
        ready, go = self.dir / "ready", self.dir / "go"
        source = (
            f"{PRELUDE}\n{before}\nos.mkdir({str(ready)!r})\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        )
        with subprocess.Popen([*PYTHON, f"{source}\nexec(sys.argv[1])", opens(self.decoy)]) as child:
            try:
                eventually(ready.exists, 20)
                yield Held(child, go)
            finally:
                child.kill()

    def kills(self, code: str) -> bool:
        """Whether the code doesn't come to its end; then the event says by whom that was, and no other event does."""
        before = self.count("killed")
        run = self.run(code)
        marked = [event for event in run.events if event.flags & Flag.KILLED]
        assert self.count("killed") - before == len(marked) == (run.status != 0)
        assert all(int(event.flags) >> KILLER_SHIFT == TAG for event in marked)
        return bool(marked)


@pytest.fixture(scope="module")
def sensor() -> Iterator[Live]:
    with Live([], kills=LIMITS) as live:
        yield live


@pytest.fixture
def arena(sensor: Live, tmp_path: Path) -> Iterator[Killing]:
    found = Killing(sensor, tmp_path)
    found.decoy.write_text("x")
    try:
        yield found
    finally:
        found.load(InlinePlan(), leased=False)


def opens(path: Path) -> str:
    return f"os.open({str(path)!r}, os.O_RDONLY)"


def test_whoever_meets_the_last_step_runs_no_further(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    assert arena.kills(opens(arena.decoy))
    assert not arena.kills(opens(arena.dir))


def test_the_record_of_the_last_call_is_whole(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    run = arena.run(opens(arena.decoy))
    event = run.one("open", path=os.fsencode(arena.decoy))
    assert event.flags == Flag.KILLED | Flag(TAG << KILLER_SHIFT)
    assert event.get("ret") == 3 and event.to_json()["capture_flags"] == ["killed"]
    assert run.one("exit").get("signal") == signal.SIGKILL


def test_all_threads_of_the_process_end(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    assert arena.kills(f"threading.Thread(target=lambda: {opens(arena.decoy)}).start(); time.sleep(30)")


@pytest.mark.parametrize(
    ("part", "of", "hit", "miss"),
    [
        (Part.EXACT, "{0}/decoy", "decoy", "decoy2"),
        (Part.EXACT, "{0}/" + "n" * 40, "n" * 40, "n" * 39 + "m"),
        (Part.STARTS, "{0}/de", "decoy", "dcoy"),
        (Part.ENDS, "/decoy", "decoy", "xdecoy"),
        (Part.ENDS, "y", "decoy", "decox"),
    ],
)
def test_paths_are_compared_byte_by_byte(arena: Killing, part: Part, of: str, hit: str, miss: str) -> None:
    # what ends a path may end another's, too: so the test's own folder is asked for as well
    inside = text(os.fsencode(f"{arena.dir}/"), Part.STARTS)
    for name in (hit, miss):
        (arena.dir / name).write_text("x")
    arena.load(plan_of(rule("open", text(os.fsencode(of.format(arena.dir)), part), inside)))
    assert arena.kills(opens(arena.dir / hit))
    assert not arena.kills(opens(arena.dir / miss))


def test_the_longest_text_is_compared_to_its_end(arena: Killing) -> None:
    base = f"{arena.dir}/"
    hit = arena.dir / ("h" * (128 - len(base)))
    miss = hit.with_name(hit.name[:-1] + "i")
    hit.write_text("x")
    miss.write_text("x")
    assert len(os.fsencode(hit)) == 128
    arena.load(plan_of(rule("open", text(hit))))
    assert not arena.kills(opens(miss))
    assert arena.kills(opens(hit))


def test_a_negated_test_spares_who_meets_it(arena: Killing) -> None:
    other = arena.dir / "other"
    other.write_text("x")
    arena.load(plan_of(rule("open", text(os.fsencode(f"{arena.dir}/"), Part.STARTS), text(other, negate=True))))
    assert not arena.kills(opens(other))
    assert arena.kills(opens(arena.decoy))


def test_an_exception_by_user_holds(arena: Killing) -> None:
    def plan(uid: int) -> InlinePlan:
        return plan_of(rule("open", text(arena.decoy), NumberTest(Input.UID, NumberKind.RANGE, uid, uid, negate=True)))

    arena.load(plan(os.getuid()))
    assert not arena.kills(opens(arena.decoy))
    arena.load(plan(4711))
    assert arena.kills(opens(arena.decoy))


def test_numbers_are_compared_signed_and_only_where_they_are_known(arena: Killing) -> None:
    failed = NumberTest(Input.RET, NumberKind.RANGE, -4095, -1)
    arena.load(plan_of(rule("open", text(arena.decoy), failed)))
    assert not arena.kills(opens(arena.decoy))
    comm = text(b"inlinetest", Part.COMM)
    arena.load(plan_of(rule("open", comm, failed)))
    name = "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)"
    assert arena.kills(f"{name}; syscall(257, -100, buf(b'{arena.dir}/missing'), 0, 0)")
    unknown = NumberTest(Input.PORT, NumberKind.RANGE, 7, 7, negate=True)
    arena.load(plan_of(rule("open", comm, unknown)))
    assert not arena.kills(f"{name}; {opens(arena.decoy)}")


def test_bits_are_tested_as_they_are_asked_for(arena: Killing) -> None:
    writes = NumberTest(Input.FLAGS, NumberKind.SAME, os.O_ACCMODE, os.O_RDWR)
    arena.load(plan_of(rule("open", text(arena.decoy), writes)))
    assert not arena.kills(opens(arena.decoy))
    assert not arena.kills(f"os.open({str(arena.decoy)!r}, os.O_WRONLY)")
    assert arena.kills(f"os.open({str(arena.decoy)!r}, os.O_RDWR)")


def test_permissions_that_are_given_are_tested(arena: Killing) -> None:
    executable = NumberTest(Input.MODE, NumberKind.SAME, 0o111, 0, negate=True)
    arena.load(plan_of(rule("chmod", text(b"inlinetest", Part.COMM), executable)))
    name = "syscall(157, 15, buf(b'inlinetest'), 0, 0, 0)"
    assert not arena.kills(f"{name}; os.chmod({str(arena.decoy)!r}, 0o644)")
    assert arena.kills(f"{name}; f = {opens(arena.decoy)}; os.fchmod(f, 0o755)")
    assert arena.kills(f"{name}; os.chmod({str(arena.decoy)!r}, 0o700)")


def test_a_write_is_known_by_its_file(arena: Killing) -> None:
    arena.load(plan_of(rule("write", text(arena.decoy))))
    assert arena.kills(f"f = os.open({str(arena.decoy)!r}, os.O_WRONLY); os.write(f, b'y')")
    assert not arena.kills("r, w = os.pipe(); os.write(w, b'y')")


def test_a_connection_is_known_by_its_port(arena: Killing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        arena.load(plan_of(rule("connect", NumberTest(Input.PORT, NumberKind.RANGE, port, port))))
        assert arena.kills(f"socket.create_connection(('127.0.0.1', {port}))")


def test_a_connection_is_known_by_its_address(arena: Killing) -> None:
    ours = text(b"inline-address", Part.COMM)  # others connect as well, and must live
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        named = "syscall(157, 15, buf(b'inline-address'), 0, 0, 0)"
        there = f"{named}; socket.create_connection(('127.0.0.1', {port}))"
        low, high = (place_of(bytes(address)) for address in ((127, 0, 0, 0), (127, 255, 255, 255)))
        for negate in (False, True):
            inside = NumberTest(Input.DST_IP, NumberKind.RANGE, low, high, negate)
            arena.load(plan_of(rule("connect", inside, ours)))
            assert arena.kills(there) is not negate
            assert not arena.kills(f"{named}; socket.socket(socket.AF_UNIX).connect_ex('/nowhere')")


# --- who is not killed ------------------------------------------------------------------------------------------------


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


# --- sequences --------------------------------------------------------------------------------------------------------


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


def test_two_policies_are_told_apart(arena: Killing) -> None:
    other = arena.dir / "other"
    other.write_text("x")
    rules = (rule("open", text(arena.decoy)), rule("open", text(other), slot=1))
    arena.load(InlinePlan((InlinePolicy(TAG, 1), InlinePolicy(0xFFFFFFFF, 1)), rules))
    run = arena.run(opens(other))
    (event,) = [event for event in run.events if event.flags & Flag.KILLED]
    assert int(event.flags) >> KILLER_SHIFT == 0xFFFFFFFF


def opens_32(path: Path) -> str:
    """Code that opens a file by int 0x80, its name below 4 GiB."""
    return (
        "import mmap\n"
        "where = libc.mmap; where.restype = ctypes.c_void_p\n"
        "page = where(ctypes.c_void_p(0), 4096, 7, 0x62, -1, 0)\n"
        f"name = {os.fsencode(path)!r} + bytes(1)\n"
        "ctypes.memmove(page + 1024, name, len(name))\n"
        "stub = b'\\x53\\xb8\\x05\\0\\0\\0\\xbb' + struct.pack('<I', page + 1024)\n"
        "stub += b'\\x31\\xc9\\x31\\xd2\\xcd\\x80\\x5b\\xc3'\n"
        "ctypes.memmove(page, stub, len(stub))\n"
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(page)() >= 0\n"
    )


def test_a_32_bit_call_is_left_to_user_space(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    run = arena.run(opens_32(arena.decoy))
    event = run.one("open", path=os.fsencode(arena.decoy))
    assert event.flags == Flag.COMPAT_ABI
