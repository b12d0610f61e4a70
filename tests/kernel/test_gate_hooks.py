"""bpf/include/execray/gate.h: what of real calls leaves the kernel under a plan that asks for paths, and when plans change."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from execray.gate.hashes import (
    comm_key,
    component_key,
    exact_key,
    leaf_key,
    prefix_key,
    suffix_key,
)
from execray.gate.plan import ROW_NONE, GatePlan, Input, NumberKind
from execray.schema.catalog import EVENT_BY_NAME, Flag
from tests.support.gate_plans import BIT, load, number_plan, opened, plan_of
from tests.support.live import Live
from tests.support.pace import patient
from tests.support.paths import kernel_id

ATOMS: dict[str, Callable[[Path], tuple[int, tuple[int, ...]]]] = {
    "exact": lambda hit: (exact_key(os.fsencode(hit)), ()),
    "folder": lambda hit: (prefix_key(os.fsencode(hit.parent)), ()),
    "folder above": lambda hit: (prefix_key(os.fsencode(hit.parent.parent)), ()),
    "component": lambda hit: (component_key(os.fsencode(hit.parent.name)), ()),
    "leaf": lambda hit: (leaf_key(os.fsencode(hit.name)), ()),
    "short suffix": lambda hit: (suffix_key(b".hit"), (2, 4)),
    "long suffix": lambda hit: (suffix_key(b"rticular.hit"), (3, 12)),
}


@pytest.mark.parametrize("atom", ATOMS)
def test_a_path_that_a_step_asks_for_passes_and_another_does_not(gated: Live, tmp_path: Path, atom: str) -> None:
    hit, miss = tmp_path / "one" / "two" / "particular.hit", tmp_path / "three" / "other.file"
    for file in (hit, miss):
        file.parent.mkdir(parents=True)
        file.write_text("x")
    key, suffixes = ATOMS[atom](hit)
    load(gated, plan_of(key=key, suffixes=suffixes))
    before = gated.sensor.gate_status()
    run = gated.python(f"open({str(hit)!r}).close(); open({str(miss)!r}).close(); os.kill(os.getpid(), 0)")
    after = gated.sensor.gate_status()
    assert opened(run) == {os.fsencode(hit)}
    assert not run.of("kill")
    assert [e.type.name for e in run.events if e.type.name in ("exec", "exit")] == ["exec", "exit"]
    assert after["dropped"]["open"] > before["dropped"].get("open", 0)
    assert after["passed"]["open"] > before["passed"].get("open", 0)


@pytest.mark.parametrize("name", ["n" * 31, "n" * 32, "n" * 33, "n" * 200 + "x", "\udcff\udcfe", "a b"], ids=len)
def test_names_of_any_length_are_hashed_as_the_plan_has_them(gated: Live, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("x")
    load(gated, plan_of(key=exact_key(os.fsencode(file))))
    assert opened(gated.python(f"open({str(file)!r}).close()")) == {os.fsencode(file)}
    load(gated, plan_of(key=leaf_key(os.fsencode(name)[:-1])))
    assert not gated.python(f"open({str(file)!r}).close()").of("open")


def test_a_path_too_deep_to_be_looked_at_passes(gated: Live, tmp_path: Path) -> None:
    file = tmp_path.joinpath(*["d"] * 40) / "file"
    file.parent.mkdir(parents=True)
    file.write_text("x")
    load(gated, plan_of(key=exact_key(b"/nowhere")))
    deep = gated.sensor.gate_status()["deep_paths"]
    assert os.fsencode(file) in opened(gated.python(f"open({str(file)!r}).close()"))
    assert gated.sensor.gate_status()["deep_paths"] > deep


def test_an_open_that_failed_meets_only_what_may_lack_a_file(gated: Live, tmp_path: Path) -> None:
    code = f"syscall(257, -100, buf(b'{tmp_path}/missing'), 0, 0)"
    raw = os.fsencode(tmp_path / "missing")
    load(gated, plan_of(key=exact_key(raw)))
    assert not gated.python(code).of("open", rawpath=raw)
    load(gated, plan_of(key=exact_key(raw), path_missing=BIT))
    assert gated.python(code).one("open", rawpath=raw).get("path") is None


def test_pipes_and_sockets_meet_what_may_have_no_name(gated: Live) -> None:
    code = "r, w = os.pipe(); os.write(w, b'x'); a, b = socket.socketpair(); os.write(a.fileno(), b'x')"
    load(gated, plan_of("write", key=exact_key(b"/nowhere")))
    assert not gated.python(code).of("write")
    load(gated, plan_of("write", key=exact_key(b"/nowhere"), path_nameless=BIT))
    found = [event.get("path") for event in gated.python(code).of("write")]
    assert [path.split(b":")[0] for path in found if isinstance(path, bytes)][:2] == [b"pipe", b"socket"]


def test_a_memfd_may_be_anything(gated: Live) -> None:
    load(gated, plan_of("write", key=exact_key(b"/nowhere")))
    run = gated.python("os.write(os.memfd_create('secret'), b'x')")
    assert [event.get("path") for event in run.of("write")] == [b"memfd:secret"]


def test_a_file_that_is_meant_whatever_leads_to_it_passes_by_another_name(gated: Live, tmp_path: Path) -> None:
    one, other, miss = tmp_path / "one", tmp_path / "other", tmp_path / "miss"
    for file in (one, miss):
        file.write_text("x")
    os.link(one, other)
    code = f"open('{other}').close(); open('{miss}').close()"
    plan = dataclasses.replace(plan_of(key=exact_key(os.fsencode(one))), named=BIT)
    load(gated, plan)
    taken: list[object] = []
    try:
        assert not opened(gated.python(code))
        gated.sensor.gate.files.publish({kernel_id(one): (os.fsencode(one),)}, taken.append)
        assert opened(gated.python(code)) == {os.fsencode(other)}
    finally:
        gated.sensor.gate.files.publish({}, taken.append)
    assert taken == [{kernel_id(one): (os.fsencode(one),)}, {}]
    assert not opened(gated.python(code))


def test_a_file_passes_by_what_it_is_meant_by_and_not_by_what_another_is(gated: Live, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for file in (one, other):
        file.write_text("x")
    links = {file: file.with_suffix(".link") for file in (one, other)}
    for file, link in links.items():
        os.link(file, link)
    code = "".join(f"open('{link}').close();" for link in links.values())
    found = dataclasses.replace(plan_of(key=exact_key(b"/meant")), named=BIT)
    files = gated.sensor.gate.files

    def both(of_one: bytes, of_other: bytes) -> None:
        files.publish({kernel_id(one): (of_one,), kernel_id(other): (of_other,)}, lambda names: None)

    load(gated, dataclasses.replace(found, keys={**found.keys, exact_key(b"/else"): ROW_NONE}))
    try:
        both(b"/meant", b"/else")
        assert opened(gated.python(code)) == {os.fsencode(links[one])}
        both(b"/else", b"/meant")
        assert opened(gated.python(code)) == {os.fsencode(links[other])}
        both(b"/else", b"/what the plan doesn't know")
        assert opened(gated.python(code)) == {os.fsencode(links[other])}
        both(b"/else", b"/meant")
        load(gated, dataclasses.replace(found, keys={exact_key(b"/else"): BIT, exact_key(b"/meant"): ROW_NONE}))
        assert opened(gated.python(code)) == {os.fsencode(links[one])}
    finally:
        files.publish({}, lambda names: None)


def test_an_open_whose_name_can_not_be_read_passes(gated: Live) -> None:
    load(gated, plan_of(key=exact_key(b"/nowhere")))
    assert [event.get("ret") for event in gated.python("syscall(257, -100, 8, 0, 0)").of("open")] == [-14]


def test_the_root_folder_is_a_path(gated: Live) -> None:
    load(gated, plan_of(key=exact_key(b"/")))
    assert opened(gated.python("os.close(os.open('/', os.O_DIRECTORY)); os.close(os.open('/etc', 0))")) == {b"/"}


def test_what_is_made_passes_by_its_path_and_its_flags(gated: Live, tmp_path: Path) -> None:
    code = (
        "[os.open(sys.argv[1] + name, os.O_CREAT | how, 0o600) for name, how in (('a', os.O_RDWR), ('b', 1), ('a', 2))]"
    )
    load(gated, plan_of("create", exact_key(os.fsencode(tmp_path / "a"))), ["create"])
    run = gated.python(code, f"{tmp_path}/")
    assert [event.get("path") for event in run.of("create")] == [os.fsencode(tmp_path / "a")]
    for name in "ab":
        (tmp_path / name).unlink()
    load(gated, number_plan("create", Input.FLAGS, NumberKind.BITS, (os.O_WRONLY,), (0, 1)), ["create"])
    run = gated.python(code, f"{tmp_path}/")
    assert [event.get("path") for event in run.of("create")] == [os.fsencode(tmp_path / "b")]


def test_a_path_in_a_mount_of_nobodys_tree_is_tested(gated: Live, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("hit", "miss"):
        (tmp_path / "real" / name).write_text("x")
    code = """
        assert syscall(272, 0x00020000) == 0  # unshare(CLONE_NEWNS)
        tree = syscall(428, -100, buf(sys.argv[1].encode()), 1)  # open_tree(OPEN_TREE_CLONE)
        assert tree >= 0
        for name in (b"hit", b"miss"):
            os.close(syscall(257, tree, buf(name), 0, 0))
    """
    load(gated, plan_of(key=leaf_key(b"hit")))
    (event,) = gated.python(code, tmp_path / "real").of("open")
    assert event.get("path") == b"/hit" and Flag.PATH_DETACHED in event.flags


def test_a_name_of_the_actor_is_tested(gated: Live) -> None:
    load(gated, plan_of(key=comm_key(b"particular"), path_free=BIT, comm_free=ROW_NONE))
    run = gated.python(
        "open('/dev/zero').close(); syscall(157, 15, buf(b'particular'), 0, 0, 0); open('/dev/null').close()"
    )
    assert opened(run) == {b"/dev/null"}


def test_without_a_plan_everything_passes(gated: Live) -> None:
    load(gated, GatePlan(), ["kill"])
    assert not gated.python("os.kill(os.getpid(), 0)").of("kill")
    load(gated, None, ["kill"])
    assert gated.sensor.gate_status()["mode"] == "open"
    assert gated.python("os.kill(os.getpid(), 0)").of("kill")


def test_an_open_code_passes_whatever_it_is(gated: Live) -> None:
    load(gated, GatePlan(open_codes=frozenset({EVENT_BY_NAME["kill"].code})))
    run = gated.python("open('/dev/null').close(); os.kill(os.getpid(), 0)")
    assert run.of("kill") and not run.of("open")


def test_the_switch_lets_everything_pass() -> None:
    with Live([], gate="off") as live:
        load(live, GatePlan(), ["kill"])
        assert live.sensor.gate_status()["mode"] == "off"
        assert live.python("os.kill(os.getpid(), 0)").of("kill")


def test_shadow_lets_everything_pass_and_says_what_it_thinks(tmp_path: Path) -> None:
    hit, miss = tmp_path / "hit", tmp_path / "miss"
    hit.write_text("x")
    miss.write_text("x")
    with Live([], gate="shadow") as live:
        load(live, plan_of(key=exact_key(os.fsencode(hit))))
        run = live.python(f"open('{hit}').close(); open('{miss}').close()")
    flags = {event.get("path"): bool(event.flags & Flag.GATE_DROP) for event in run.of("open")}
    assert (flags[os.fsencode(hit)], flags[os.fsencode(miss)]) == (False, True)
    assert not any(event.flags & Flag.GATE_DROP for event in run.events if event.type.name in ("exec", "fork", "exit"))


def test_no_event_that_both_plans_want_is_lost_while_they_take_turns(gated: Live, tmp_path: Path) -> None:
    wanted = tmp_path / "wanted"
    wanted.write_text("x")
    path = os.fsencode(wanted)
    plans = [plan_of(key=exact_key(path)), plan_of(key=leaf_key(b"wanted"))]
    load(gated, plans[0])
    done, flips = threading.Event(), 0

    def turn() -> None:
        nonlocal flips
        while not done.is_set():
            load(gated, plans[flips % 2])
            flips += 1

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        run = gated.python(
            f"for _ in range(5000): os.close(os.open({str(wanted)!r}, 0)); os.close(os.open('/dev/null', 0))"
        )
    finally:
        done.set()
        thread.join(patient(30))
    assert flips > 3
    assert [event.get("path") for event in run.of("open")] == [path] * 5000
