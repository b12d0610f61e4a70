"""bpf/include/execray/inline.h: who is killed in the call itself. Each rule asks for a file of the test's own."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from execray.gate.addresses import place_of
from execray.gate.inline import InlinePlan, InlinePolicy, NumberKind, NumberTest, Part
from execray.gate.plan import Input
from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from tests.support.inline_kills import (
    TAG,
    Killing,
    opens,
    plan_of,
    rule,
    text,
)


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


def test_two_policies_are_told_apart(arena: Killing) -> None:
    other = arena.dir / "other"
    other.write_text("x")
    rules = (rule("open", text(arena.decoy)), rule("open", text(other), slot=1))
    arena.load(InlinePlan((InlinePolicy(TAG, 1), InlinePolicy(0xFFFFFFFF, 1)), rules))
    run = arena.run(opens(other))
    (event,) = [event for event in run.events if event.flags & Flag.KILLED]
    assert int(event.flags) >> KILLER_SHIFT == 0xFFFFFFFF
