"""execray-ctl and the daemons' real control sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from execray.config import Config
from execray.control import ControlServer, Handler
from execray.control_client import ControlClient
from execray.ctl.main import main
from execray.service import Peer
from execray.wire.control import Request
from policyd import control_ops
from tests.support.fake_tracerd import DEADLINE_S, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, Policyd, policyd_here, private_config, theft, write_policy


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT, "b.policy": TOUCH}) as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


async def ctl(config: Config, *args: object) -> Result:
    """Runs a command in a thread, since the daemon that answers runs in this loop."""
    line = ["--runtime-dir", str(config.runtime_dir), *map(str, args)]
    return await asyncio.to_thread(CliRunner().invoke, main, line)


@contextlib.asynccontextmanager
async def answering(config: Config, daemon: str, **results: object) -> AsyncIterator[None]:
    """A control server that answers with what it is given."""

    def handler(result: object) -> Handler:
        async def answer(_request: Request, _peer: Peer) -> object:
            return result

        return answer

    handlers = {op: handler(result) for op, result in results.items()}
    config.daemon_dir(daemon).mkdir(exist_ok=True)
    server = ControlServer(config.control_socket(daemon), "", handlers, logging.getLogger(daemon))
    await server.open()
    task = asyncio.create_task(server.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def raise_alerts(policyd: Policyd, count: int) -> list[dict[str, Any]]:
    play = Play()
    theft(play)
    for number in range(count - 1):
        play.event("open", play.process(exe=f"/bin/{number}"), path="/touched/x", flags=0, ret=3)
    await policyd.tracerd.send(play.batch())
    return await policyd.alerts_after(count)


SENSOR = {
    "version": "9.9",
    "pid": 77,
    "uptime_s": 3700.0,
    "rate": 1234.5,
    "events": 10,
    "lost": {"ring": 3, "stream": 0},
    "self_dropped": 4,
    "hooks": {
        "open": {"attached": True, "needed": True, "live": True, "last_seen_ms": 200, "refused": ""},
        "exec": {"attached": True, "needed": True, "live": False, "last_seen_ms": None, "refused": ""},
        "ptrace": {"attached": False, "needed": False, "refused": ""},
        "write": {"attached": False, "needed": True, "refused": "no \x1b[31mpermission"},
    },
}


async def test_status_shows_all_three_hook_by_hook(policyd: Policyd, config: Config) -> None:
    await policyd.tracerd.heartbeat()
    async with (
        answering(config, "tracerd", status=SENSOR),
        answering(config, "enforcer", status={"version": "1", "pid": 5, "uptime_s": 1}),
    ):
        result = await ctl(config, "status")
        as_json = await ctl(config, "status", "--json")
    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "version 9.9, pid 77, up 1h 01m, 1,234 events/s" in out
    assert "3 at ring" in out and "at stream" not in out
    assert "live, seen 0.2 s ago" in out and "attached, but silent" in out and "idle, no policy needs it" in out
    assert "refused: no \\x1b[31mpermission" in out and "\x1b" not in out
    assert "mode     enforce; 2 policies, generation 1" in out and "connected, live" in out
    found = json.loads(as_json.stdout)
    assert found["tracerd"]["lost"] == {"ring": 3, "stream": 0} and found["policyd"]["stream"]["live"] is True


async def test_status_says_what_of_the_policies_needs_is_not_asked_for(policyd: Policyd, config: Config) -> None:
    assert (await policyd.ask("status"))["left_out"] == {"paths": 0, "events": {}}
    for number in range(3):
        paths = ", ".join(f'"/{number}/{name}"' for name in range(500))
        write_policy(policyd.policies / f"{number}.policy", f'path "p{number}" {{ open {{ path in [{paths}] }} }}')
    await policyd.ask("reload")
    left_out = (await policyd.ask("status"))["left_out"]["paths"]
    assert 476 <= left_out < 500  # those of the other policies come first
    result = await ctl(config, "status")
    assert f"left out {left_out} exact paths are too many: matched by name only" in result.stdout


async def test_status_with_one_down_shows_the_others_and_ends_with_3(policyd: Policyd, config: Config) -> None:
    result = await ctl(config, "status")
    assert result.exit_code == 3
    assert "enforcer  down" in result.stdout and "policyd   up" in result.stdout


async def test_a_daemon_of_another_kind_does_not_crash_status(config: Config) -> None:
    junk = {"version": None, "lost": 5, "hooks": ["x"], "rate": "fast", "uptime_s": [], "stream": 3, "alerts": "no"}
    async with (
        answering(config, "tracerd", status=junk),
        answering(config, "policyd", status=junk),
        answering(config, "enforcer", status=[1, 2]),
    ):
        result = await ctl(config, "status")
    assert result.exit_code == 0 and result.stdout.count(" up ") >= 3


async def test_doctor_shows_each_object_and_what_a_refusal_costs(config: Config) -> None:
    found = {
        "objects": [
            {
                "object": "proc.bpf.o",
                "loaded": True,
                "refused": "",
                "programs": [{"name": "er_exec", "attached": True}],
            },
            {"object": "scan.bpf.o", "loaded": False, "refused": "EINVAL", "cost": "older processes lack a start time"},
        ],
        "hooks": {"exec": {"needed": True, "attached": True, "refused": ""}},
    }
    async with answering(config, "tracerd", doctor=found):
        result = await ctl(config, "doctor")
        as_json = json.loads((await ctl(config, "doctor", "--json")).stdout)
    for words in ("proc.bpf.o", "er_exec", "refused", "EINVAL", "older processes lack a start time", "event exec"):
        assert words in result.stdout
    assert as_json["tracerd"]["objects"] == found["objects"] and as_json["host"]


async def test_doctor_without_tracerd_shows_the_host_and_ends_with_3(config: Config) -> None:
    result = await ctl(config, "doctor")
    assert result.exit_code == 3 and "kernel" in result.stdout and "tracerd is not running" in result.stderr


async def test_policy_list_and_show(policyd: Policyd, config: Config) -> None:
    listed = await ctl(config, "policy", "list")
    assert "theft" in listed.stdout and "T1003.008 T1041" in listed.stdout and "a.policy:2" in listed.stdout
    shown = await ctl(config, "policy", "show", "theft")
    assert 'path "theft" within 1m response enforce {' in shown.stdout and "state 0: open" in shown.stdout
    missing = await ctl(config, "policy", "show", "none")
    assert missing.exit_code == 1 and "no policy `none` is loaded" in missing.stderr


async def test_reload_says_what_runs_now_or_why_nothing_changed(policyd: Policyd, config: Config) -> None:
    good = await ctl(config, "reload")
    assert good.exit_code == 0 and "2 policies in" in good.stdout and "generation 2" in good.stdout
    write_policy(policyd.policies / "c.policy", 'path "x" { exce { } }')
    bad = await ctl(config, "reload")
    assert bad.exit_code == 1 and "c.policy:1:12" in bad.stderr and "generation 2 still runs" in bad.stderr
    as_json = await ctl(config, "reload", "--json")
    found = json.loads(as_json.stdout)["diagnostics"]
    assert as_json.exit_code == 1 and [d["code"] for d in found if d["severity"] == "error"] == ["ER0202"]


async def test_reload_says_and_ends_with_3_where_the_policies_are_loaded_and_tracerd_does_not_go_by_them(
    policyd: Policyd, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_ops, "CONFIRM_S", 0.1)
    policyd.tracerd.takes = False
    late = await ctl(config, "reload")
    assert late.exit_code == 3 and "generation 2" in late.stdout
    assert late.stderr.startswith("warning: loaded; tracerd has not confirmed yet")
    as_json = await ctl(config, "reload", "--json")
    assert as_json.exit_code == 3 and json.loads(as_json.stdout)["sensor"] == "late"
    policyd.tracerd.takes = True
    assert (await ctl(config, "reload")).exit_code == 0
    await policyd.tracerd.stop()
    away = await ctl(config, "reload")
    assert away.exit_code == 3 and "no tracerd is connected" in away.stderr


async def test_alerts_list_is_in_order_and_bounded(policyd: Policyd, config: Config) -> None:
    alerts = await raise_alerts(policyd, 5)
    listed = await ctl(config, "alerts", "list", "-n", "3")
    ids = [line.split()[0] for line in listed.stdout.splitlines()]
    assert ids == [alert["execray"]["alert_id"] for alert in alerts[-3:]]
    as_json = json.loads((await ctl(config, "alerts", "list", "--json")).stdout)
    assert len(as_json["alerts"]) == 5 and "trail" not in as_json["alerts"][0]["execray"]


async def test_alerts_list_since_leaves_out_what_is_older(policyd: Policyd, config: Config) -> None:
    await raise_alerts(policyd, 2)
    assert len((await policyd.ask("alerts.list", since="1970-01-01T00:00:00+00:00"))["alerts"]) == 2
    assert (await policyd.ask("alerts.list", since="2100-01-01T00:00:00+00:00"))["alerts"] == []
    later = await ctl(config, "alerts", "list", "--since", "2100-01-01")
    assert later.stdout == "no alerts\n"


async def test_alerts_show_prints_the_timeline_and_takes_the_beginning_of_an_id(
    policyd: Policyd, config: Config
) -> None:
    (alert,) = await raise_alerts(policyd, 1)
    number = alert["execray"]["alert_id"]
    shown = await ctl(config, "alerts", "show", number[:6])
    assert "open /etc/shadow (O_RDONLY) -> 3" in shown.stdout and "connect 192.0.2.1:443 -> 0" in shown.stdout
    assert "+1.000 ms" in shown.stdout and "killed by the enforcer" in shown.stdout
    assert json.loads((await ctl(config, "alerts", "show", number, "--json")).stdout) == alert
    assert (await ctl(config, "alerts", "show", "0000000000")).exit_code == 1
    assert (await ctl(config, "alerts", "show", "no-id")).exit_code == 1


async def test_followers_get_alerts_as_they_happen_and_their_end_is_noticed(policyd: Policyd, config: Config) -> None:
    got: list[dict[str, Any]] = []

    def follow() -> None:
        with ControlClient(config.control_socket("policyd"), DEADLINE_S) as client:
            for item in client.follow("alerts.tail", last=0):
                got.append(item)
                if len(got) == 3:
                    return

    reader = asyncio.create_task(asyncio.to_thread(follow))

    async def followers() -> int:
        return int((await policyd.ask("status"))["followers"])

    while await followers() == 0:
        pass
    alerts = await raise_alerts(policyd, 3)
    await asyncio.wait_for(reader, DEADLINE_S)
    assert got == alerts
    while await followers() > 0:
        pass


async def test_tail_prints_the_last_ones_first_and_ends_with_the_daemon(policyd: Policyd, config: Config) -> None:
    alerts = await raise_alerts(policyd, 3)
    tail = asyncio.create_task(ctl(config, "alerts", "tail", "-n", "2", "--json"))
    while (await policyd.ask("status"))["followers"] == 0:
        pass
    await policyd.stop()
    result = await asyncio.wait_for(tail, DEADLINE_S)
    assert [json.loads(line) for line in result.stdout.splitlines()] == alerts[1:]
    assert "closed the connection" in result.stderr


async def test_a_follower_that_does_not_read_is_told_what_it_missed(policyd: Policyd) -> None:
    followers = policyd.daemon.followers
    stream = followers.follow()
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: len(followers) == 1, "a follower")
    followers.publish([{"n": n} for n in range(300)])
    got = [await first]
    while len(got) < 258:
        got.append(await asyncio.wait_for(anext(stream), DEADLINE_S))
        if len(got) == 256:
            followers.publish([{"n": 300}])
    await stream.aclose()
    assert {"dropped": 44} in got and {"n": 300} not in got[:256] and len(followers) == 0


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("alerts.list", {"limit": 0}),
        ("alerts.list", {"limit": "many"}),
        ("alerts.list", {"since": "soon"}),
        ("alerts.show", {"id": 7}),
        ("alerts.show", {"id": "../etc"}),
        ("alerts.tail", {"last": 101}),
        ("policy", {}),
        ("nonsense", {}),
    ],
)
async def test_a_bad_request_is_answered_and_the_daemon_lives(policyd: Policyd, op: str, args: dict[str, Any]) -> None:
    reader, writer = await asyncio.open_unix_connection(policyd.config.control_socket("policyd"))
    writer.write(json.dumps({"v": 1, "op": op, "args": args}).encode() + b"\n")
    reply = json.loads(await asyncio.wait_for(reader.readline(), DEADLINE_S))
    writer.close()
    await writer.wait_closed()
    assert reply["ok"] is False and reply["error"] and reply["hint"]
    assert (await policyd.ask("status"))["policies"] == 2


async def test_alerts_why_judges_every_condition_by_the_evidence(
    policyd: Policyd, config: Config, tmp_path: Path
) -> None:
    (alert,) = await raise_alerts(policyd, 1)
    number = alert["execray"]["alert_id"]
    file = tmp_path / "execray.yaml"
    file.write_text(json.dumps({"policyd": {"policy_dirs": [str(policyd.policies)]}}))
    file.chmod(0o600)
    found = json.loads((await ctl(config, "--config", file, "alerts", "why", number, "--json")).stdout)
    assert found["unchanged"] and found["policy"] == "theft" and len(found["steps"]) == len(alert["execray"]["trail"])
    assert [c for step in found["steps"] for c in step["conditions"] if not c["holds"]] == [], found
    shown = (await ctl(config, "--config", file, "alerts", "why", number[:6])).stdout
    assert (
        'holds  (path = "/etc/shadow" or file.names = ' in shown
        and "[path is /etc/shadow]" in shown
        and "fails" not in shown
    )
    write_policy(policyd.policies / "a.policy", 'path "theft" { exit { } }')
    changed = await ctl(config, "--config", file, "alerts", "why", number)
    assert changed.exit_code == 0 and "changed or removed since" in changed.stdout and "holds" not in changed.stdout
    assert (await ctl(config, "--config", file, "alerts", "why", "0000000000")).exit_code == 1
