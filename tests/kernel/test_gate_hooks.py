"""bpf/include/execray/gate.h: what of real calls leaves the kernel under a plan, and what doesn't."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
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
from execray.gate.plan import ROW_ALL, ROW_NONE, CodeTest, GatePlan, Input, NumberKind, NumberTest
from execray.schema.catalog import EVENT_BY_NAME, Flag
from policyd.compiler import compile_set
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from tests.support.live import Live, Run
from tests.support.pace import patient
from tests.support.paths import kernel_id

NAMES = ["open", "write", "read", "connect", "kill"]
BIT = 2  # the row that holds the plan's one bit


def plan_of(
    name: str = "open",
    key: int | None = None,
    suffixes: tuple[int, ...] = (),
    *,
    path_free: int = ROW_NONE,
    path_nameless: int = ROW_NONE,
    path_missing: int = ROW_NONE,
    comm_free: int = ROW_ALL,
) -> GatePlan:
    """A plan with one bit, of one event. The bit asks for the key; which rows it is in besides is in the rest."""
    code = EVENT_BY_NAME[name].code
    test = CodeTest(code, 0, 1, BIT, path_free, path_nameless, path_missing, comm_free)
    return GatePlan((test,), frozenset(), (0, (1 << 4096) - 1, 1), {} if key is None else {key: BIT}, suffixes=suffixes)


def number_plan(name: str, which: Input, kind: NumberKind, bounds: tuple[int, ...], rows: tuple[int, ...]) -> GatePlan:
    """A plan whose one bit asks something of one number."""
    test = NumberTest(which, kind, bounds, 3)
    code = CodeTest(EVENT_BY_NAME[name].code, 0, 1, BIT, BIT, BIT, BIT, ROW_ALL, (test,))
    return GatePlan((code,), frozenset(), (0, (1 << 4096) - 1, 1, *rows))


def built_plan(text: str) -> GatePlan:
    """The plan of a policy."""
    found = compile_set([("a.policy", text.encode())])
    assert found.ok, found.diagnostics
    return build_plan([PolicyTable(policy, 0) for policy in found.policies]).plan


@pytest.fixture(scope="module")
def gated() -> Iterator[Live]:
    with Live([], ring_bytes=1 << 24) as live:
        yield live


def load(live: Live, plan: GatePlan | None, names: list[str] | None = None) -> None:
    codes = [EVENT_BY_NAME[name].code for name in names or NAMES]
    assert not live.sensor.want(codes, False, plan=plan)


def opened(run: Run) -> set[object]:
    return {event.get("path") for event in run.of("open")}


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


def test_flags_are_tested_by_their_bits(gated: Live, tmp_path: Path) -> None:
    load(gated, number_plan("open", Input.FLAGS, NumberKind.BITS, (os.O_CREAT,), (0, 1)))
    run = gated.python(f"open('{tmp_path}/new', 'w').close(); open('{tmp_path}/new').close()")
    assert [event.get("created") for event in run.of("open")] == [True]
    load(gated, number_plan("open", Input.CREATED, NumberKind.RANGES, (1,), (0, 1)))
    run = gated.python(f"open('{tmp_path}/newer', 'w').close(); open('{tmp_path}/newer').close()")
    assert [event.get("created") for event in run.of("open")] == [True]


def test_new_permissions_are_tested_by_their_bits_however_they_are_set(gated: Live, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    forms = ("90, name, {0}", "91, file, {0}", "268, -100, name, {0}", "452, -100, name, {0}, 0")
    calls = [f"syscall({form.format(mode)})" for form in forms for mode in ("0o644", "0o1755", "0o100600")]
    code = f"name = buf(sys.argv[1].encode()); file = os.open(sys.argv[1], 0); {'; '.join(calls)}"
    load(gated, number_plan("chmod", Input.MODE, NumberKind.BITS, (0o111,), (0, 1)), ["chmod"])
    executable = gated.python(code, tmp_path / "f").of("chmod")
    load(gated, number_plan("chmod", Input.MODE, NumberKind.RANGES, (0o600, 0o601), (0, 1, 0)), ["chmod"])
    private = gated.python(code, tmp_path / "f").of("chmod")
    assert [event.get("mode") for event in (*executable, *private)] == [0o1755] * 4 + [0o600] * 4


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


def test_results_are_signed(gated: Live, tmp_path: Path) -> None:
    load(gated, number_plan("open", Input.RET, NumberKind.RANGES, (0,), (1, 0)))
    run = gated.python(f"open('/dev/null').close(); syscall(257, -100, buf(b'{tmp_path}/none'), 0, 0)")
    assert run.of("open") and all(isinstance(e.get("ret"), int) and e.get("ret") < 0 for e in run.of("open"))  # type: ignore[operator]


def test_a_call_that_failed_is_dropped_at_once_where_no_step_can_want_it(gated: Live, tmp_path: Path) -> None:
    none, loop = tmp_path / "none", tmp_path / "loop"
    loop.symlink_to(loop)
    code = f"for file in ({str(none)!r}, {str(loop)!r}, '/dev/null'): syscall(257, -100, buf(os.fsencode(file)), 0, 0)"
    for rows, met in (((0, 0, 0, 1), {0}), ((0, 1, 0, 1), {-2, 0}), ((1, 0, 0, 0), {-40})):
        load(gated, number_plan("open", Input.RET, NumberKind.RANGES, (-2, -1, 0), rows))
        before = gated.sensor.gate_status()["dropped"].get("open", 0)
        found = gated.python(code).of("open")
        files = {os.fsencode(file) for file in (none, loop, "/dev/null")}
        mine = [int(str(e.get("ret"))) for e in found if files & {e.get("rawpath"), e.get("path")}]
        assert {min(ret, 0) for ret in mine} == met
        assert gated.sensor.gate_status()["dropped"]["open"] >= before + 3 - len(met)


def test_numbers_of_the_actor_are_tested(gated: Live) -> None:
    code = "os.close(os.open('/dev/zero', 0)); syscall(117, 12345, 12345, 12345); os.close(os.open('/dev/null', 0))"
    for which in (Input.UID, Input.EUID):
        load(gated, number_plan("open", which, NumberKind.RANGES, (12345, 12346), (0, 1, 0)))
        assert opened(gated.python(code)) == {b"/dev/null"}


def test_a_name_of_the_actor_is_tested(gated: Live) -> None:
    load(gated, plan_of(key=comm_key(b"particular"), path_free=BIT, comm_free=ROW_NONE))
    run = gated.python(
        "open('/dev/zero').close(); syscall(157, 15, buf(b'particular'), 0, 0, 0); open('/dev/null').close()"
    )
    assert opened(run) == {b"/dev/null"}


def test_sockets_are_tested_by_family_and_port(gated: Live) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"socket.create_connection(('127.0.0.1', {port})).close()"
        load(gated, number_plan("connect", Input.PORT, NumberKind.RANGES, (port, port + 1), (0, 1, 0)))
        assert gated.python(code).one("connect").get("dst.port") == port
        load(gated, number_plan("connect", Input.PORT, NumberKind.RANGES, (port, port + 1), (1, 0, 1)))
        assert not gated.python(code).of("connect")
        load(gated, number_plan("connect", Input.FAMILY, NumberKind.RANGES, (socket.AF_INET, 3), (1, 0, 1)))
        assert not gated.python(code).of("connect")


#: Addresses of each family; those that no route leads to are told as the caller gave them.
PEERS = {
    "AF_INET": ("127.0.0.1", "127.255.255.255", "128.0.0.1", "126.255.255.255", "255.255.255.254"),
    "AF_INET6": (
        "::1",
        "::2",
        "::ffff:127.0.0.1",
        "::ffff:9.9.9.9",
        "2001:db8::1",
        "2001:db8:0:1::1",
        "fe80::1",
        "::5:0:0:0:1",
    ),
}
TO_PEERS = f"""
for family, peers in {PEERS}.items():
    for peer in peers:
        s = socket.socket(getattr(socket, family), socket.SOCK_DGRAM)
        try:
            CALL
        except OSError:
            pass
        s.close()
a, b = socket.socketpair()
socket.socket(socket.AF_UNIX).connect_ex("/nowhere")
b.send(b"x")
"""


def peers_in(*networks: str) -> set[str]:
    """Those that lie in one of these; IPv4 within IPv6 as what it is."""
    found = set()
    for peer in itertools.chain(*PEERS.values()):
        whole = ipaddress.ip_address(peer)
        inner = whole.ipv4_mapped if isinstance(whole, ipaddress.IPv6Address) else None
        if any(form in ipaddress.ip_network(network) for network in networks for form in (whole, inner) if form):
            found.add(peer)
    return found


@pytest.mark.parametrize("name", ["connect", "sendto"])
@pytest.mark.parametrize("networks", [("127.0.0.0/8", "::1"), ("::/64",), ("2001:db8::/64", "fe80::/10"), ("9.9.9.9",)])
def test_addresses_are_tested_by_ranges_on_both_sides_of_them(
    gated: Live, name: str, networks: tuple[str, ...]
) -> None:
    call = "s.connect((peer, 9))" if name == "connect" else "s.sendto(b'x', (peer, 9))"
    every = set(itertools.chain(*PEERS.values()))
    asked = ", ".join(f'"{network}"' for network in networks)
    inside = peers_in(*networks)
    outside = every - inside
    if "::/64" in networks:  # IPv4 stands where it does within IPv6, and some reserved addresses stand together
        inside |= {*PEERS["AF_INET"], "::5:0:0:0:1"}
        outside |= {peer for peer in every if peer.startswith("::ffff:")}
    for word, wanted in (("in", inside), ("not in", outside)):
        load(gated, built_plan(f'path "p" {{ {name} {{ dst.ip {word} [{asked}] }} }}'), [name])
        sent = [event.get("dst.ip") for event in gated.python(TO_PEERS.replace("CALL", call)).of(name)]
        assert set(sent) - {None} == {ipaddress.ip_address(peer).packed for peer in wanted}
        assert None in sent  # of what has no address nothing is known


def test_own_addresses_are_tested_by_ranges(gated: Live) -> None:
    code = """
        for address in ("127.0.0.1", "127.0.0.2"):
            server = socket.create_server((address, 0))
            client = socket.create_connection(server.getsockname())
            server.accept()[0].close()
            client.close(); server.close()
    """
    names = ["bind", "listen", "accept", "connect"]
    for field, name in (*(("src.ip", name) for name in names), ("dst.ip", "accept")):
        load(gated, built_plan(f'path "p" {{ {name} {{ {field} = "127.0.0.2" }} }}'), names)
        whole = len(gated.python(code).of(name))
        load(gated, None, names)
        every = gated.python(code).of(name)
        assert len(every) == 2 and whole == sum(event.get(field) == bytes((127, 0, 0, 2)) for event in every)


def test_a_signal_is_tested(gated: Live) -> None:
    load(gated, number_plan("kill", Input.REQUEST, NumberKind.RANGES, (1, 2), (0, 1, 0)))
    run = gated.python(
        "import signal; signal.signal(1, signal.SIG_IGN); os.kill(os.getpid(), 0); os.kill(os.getpid(), 1)"
    )
    assert [event.get("sig") for event in run.of("kill")] == [1]


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


@pytest.mark.parametrize(("which", "field"), [(Input.OLD_UID, "old.uid"), (Input.OLD_EUID, "old.euid")])
def test_ids_before_a_set_id_call_are_tested(gated: Live, which: Input, field: str) -> None:
    code = "syscall(117, 7, 8, 0); syscall(122, 5); syscall(117, 0, 0, 0); syscall(117, 9, 9, 0)"
    number = {"old.uid": 7, "old.euid": 8}[field]
    load(gated, number_plan("setuid", which, NumberKind.RANGES, (number, number + 1), (0, 1, 0)), ["setuid"])
    found = gated.python(code).of("setuid")
    assert [(event.get(field), event.get("new.uid")) for event in found] == [(number, None), (number, 0)]


def test_what_a_set_id_call_leaves_behind_is_kept_although_its_event_is_dropped(gated: Live) -> None:
    setuid = EVENT_BY_NAME["setuid"].code
    code = "syscall(117, 7, 7, 7); syscall(117, 7, 7, 7); syscall(62, os.getpid(), 0)"
    names = ["setuid", "kill"]
    only = number_plan("setuid", Input.RET, NumberKind.RANGES, (0,), (1, 0))
    load(gated, only, names)
    assert not gated.python(code).of("setuid")
    load(gated, GatePlan(open_codes=frozenset({setuid})), names)
    first, second = gated.python(code).of("setuid")
    assert (first.get("old.uid"), second.get("old.uid")) == (0, 7)
