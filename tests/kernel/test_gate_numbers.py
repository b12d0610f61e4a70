"""bpf/include/execray/gate.h: the same where a plan asks for numbers: flags, results, addresses, ids, and for names."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
from pathlib import Path

import pytest

from execray.gate.plan import GatePlan, Input, NumberKind
from execray.schema.catalog import EVENT_BY_NAME
from tests.support.gate_plans import built_plan, load, number_plan, opened
from tests.support.live import Live


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


def test_results_are_signed(gated: Live, tmp_path: Path) -> None:
    load(gated, number_plan("open", Input.RET, NumberKind.RANGES, (0,), (1, 0)))
    run = gated.python(f"open('/dev/null').close(); syscall(257, -100, buf(b'{tmp_path}/none'), 0, 0)")
    results = [event.get("ret") for event in run.of("open")]
    assert results and all(isinstance(result, int) and result < 0 for result in results)


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
