"""From events to alerts and orders, through the real engine, stream client, responder and file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.config import Config, TracerdConfig
from execray.gate.inline import tag_of
from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from execray.wire.orders import Result
from policyd.compiler import compile_set
from policyd.respond import MAX_ORDERS
from policyd.sinks.journal import JournalSink
from tests.support.fake_tracerd import FakeTracerd, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, policyd_here, private_config, theft


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT, "b.policy": TOUCH}) as made:
        yield made


async def test_a_match_becomes_an_alert_with_its_trail_and_one_kill_order(config: Config) -> None:
    play = Play()
    thief = theft(play)
    async with policyd_here(config) as policyd:
        batch = play.batch()
        await policyd.tracerd.send(batch)
        await policyd.tracerd.acknowledged(batch)
    (alert,) = policyd.alerts()
    (order,) = policyd.enforcer.kills
    assert order.process.pid == thief.id[0] and order.process.start_ns == thief.id[1]
    assert order.exe == "/tmp/thief" and order.alert_id == alert["execray"]["alert_id"]
    own = alert["execray"]
    assert [step["events"][0]["event"] for step in own["trail"]] == ["open", "connect"]
    assert own["trail"][0]["events"][0]["path"] == "/etc/shadow" and own["trail"][0]["alias"] == "hashes"
    assert own["action"]["kill"]["result"] == "killed" and own["action"]["kill"]["by"] == "enforcer"
    assert own["severity"] == "high" and own["mode"] == "enforce" and own["response"] == "enforce"


async def test_an_alert_has_the_fields_by_their_ecs_names(config: Config) -> None:
    play = Play()
    parent = play.process(exe="/bin/sh", argv=["sh"])
    theft(play, play.process(parent, exe="/tmp/thief", comm="thief", argv=["thief", "a b"], uid=1000, euid=1001))
    async with policyd_here(config) as policyd:
        await policyd.tracerd.send(play.batch())
        (alert,) = await policyd.alerts_after(1)
    assert alert["event"]["kind"] == "alert" and alert["event"]["severity"] == 73
    assert alert["rule"]["id"] == "t-1" and alert["rule"]["name"] == "theft"
    assert alert["threat"]["technique"]["id"] == ["T1003", "T1041"]
    assert alert["threat"]["technique"]["subtechnique"]["id"] == ["T1003.008"]
    process = alert["process"]
    assert process["executable"] == "/tmp/thief" and process["name"] == "thief"
    assert process["command_line"] == "thief a b" and process["args"] == ["thief", "a b"]
    assert process["user"]["id"] == "1001" and process["real_user"]["id"] == "1000"
    assert process["parent"]["executable"] == "/bin/sh"
    assert alert["destination"] == {"ip": "192.0.2.1", "port": 443}
    assert alert["host"]["boot"]["id"] and alert["@timestamp"].endswith("Z")


@pytest.mark.parametrize(("mode", "response"), [("audit", "enforce"), ("enforce", "audit"), ("audit", "audit")])
async def test_audit_of_host_or_policy_says_would_kill_and_sends_no_order(
    tmp_path: Path, mode: str, response: str
) -> None:
    text = THEFT.replace("response enforce", f"response {response}")
    play = Play()
    theft(play)
    with private_config(tmp_path, {"a.policy": text}, mode) as config:
        async with policyd_here(config) as policyd:
            await policyd.tracerd.send(play.batch())
            (alert,) = await policyd.alerts_after(1)
            status = await policyd.ask("status")
    kill = alert["execray"]["action"]["kill"]
    assert kill["result"] == "would_kill" and "audit" in kill["reason"]
    assert policyd.enforcer.kills == [] and status["kills"] == {"would_kill": 1}


async def test_partial_evidence_is_told_and_never_killed_for(config: Config) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3, cut=Flag.PATH_TRUNCATED)
    play.event("connect", thief, family=2, ret=0)
    async with policyd_here(config) as policyd:
        await policyd.tracerd.send(play.batch())
        (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["partial_evidence"] is True
    assert alert["execray"]["action"]["kill"]["result"] == "withheld"
    assert policyd.enforcer.kills == []


async def test_alert_of_a_kill_is_not_held_back_by_one_that_could_not_be_acted_on(config: Config) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3, cut=Flag.PATH_TRUNCATED)
    play.event("connect", thief, family=2, ret=0)
    theft(play, thief)
    async with policyd_here(config) as policyd:
        await policyd.tracerd.send(play.batch())
        await until(lambda: len(policyd.enforcer.kills) == 1, "the kill")
        alerts = await policyd.alerts_after(2)
    assert [alert["execray"]["action"]["kill"]["result"] for alert in alerts] == ["withheld", "killed"]


async def test_process_that_matches_on_and_on_does_not_shield_another(tmp_path: Path) -> None:
    text = 'path "touch" response enforce { open { path startswith "/x" } on match { kill } }'
    play = Play()
    noisy, other = play.process(exe="/tmp/noisy"), play.process(exe="/tmp/other")
    for number in range(MAX_ORDERS + 9):
        play.event("open", noisy, path=f"/x{number}", ret=3)
    play.event("open", other, path="/x", ret=3)
    with private_config(tmp_path, {"touch.policy": text}) as config:
        async with policyd_here(config) as policyd:
            policyd.enforcer.hold.clear()
            await policyd.tracerd.send(play.batch())
            await until(lambda: len(policyd.enforcer.kills) >= 2, "two orders")
            policyd.enforcer.hold.set()
            alerts = await policyd.alerts_after(2)
    assert [order.process.pid for order in policyd.enforcer.kills] == [noisy.id[0], other.id[0]]
    assert [alert["execray"]["action"]["kill"]["result"] for alert in alerts] == ["killed", "killed"]


async def test_the_kill_order_goes_out_before_anything_is_written(config: Config) -> None:
    play = Play()
    theft(play)
    seen: list[int] = []
    async with policyd_here(config) as policyd:
        policyd.enforcer.before_answer = lambda: seen.append(len(policyd.alerts()))
        await policyd.tracerd.send(play.batch())
        await policyd.alerts_after(1)
    assert seen == [0]


async def test_a_batch_is_acknowledged_only_when_its_alert_is_on_disk(config: Config) -> None:
    play = Play()
    theft(play)
    async with policyd_here(config) as policyd:
        policyd.enforcer.hold.clear()
        await policyd.tracerd.send(play.batch())
        await until(lambda: policyd.enforcer.kills, "a kill order")
        play.event("exit", play.process(), exit_code=0, signal=0)
        later = play.batch()
        await policyd.tracerd.send(later)
        status = await policyd.ask("status")
        assert status["stream"]["seq"] == 2 and status["stream"]["acknowledged"] == -1
        assert policyd.alerts() == [] and policyd.tracerd.acks == []
        policyd.enforcer.hold.set()
        await policyd.tracerd.acknowledged(later)
        assert len(policyd.alerts()) == 1


async def test_an_outcome_that_does_not_come_is_not_waited_for_beyond_the_bound(tmp_path: Path) -> None:
    play = Play()
    theft(play)
    with private_config(tmp_path, {"a.policy": THEFT}, order_timeout_ms=1) as config:
        async with policyd_here(config) as policyd:
            policyd.enforcer.hold.clear()
            await policyd.tracerd.send(play.batch())
            (alert,) = await policyd.alerts_after(1)
            policyd.enforcer.hold.set()
    assert alert["execray"]["action"]["kill"]["result"] == "pending"


async def test_alerts_are_written_in_the_order_of_detection(config: Config) -> None:
    play = Play()
    async with policyd_here(config) as policyd:
        policyd.enforcer.hold.clear()
        theft(play)
        for name in "abc":
            play.event("open", play.process(exe=f"/bin/{name}"), path=f"/touched/{name}", flags=0, ret=3)
        await policyd.tracerd.send(play.batch())
        await until(lambda: policyd.enforcer.kills, "a kill order")
        policyd.enforcer.hold.set()
        alerts = await policyd.alerts_after(4)
    assert [alert["process"]["name"] for alert in alerts] == ["thief", "a", "b", "c"]


async def test_a_refused_kill_is_told_in_the_alert(config: Config) -> None:
    play = Play()
    theft(play)
    async with policyd_here(config) as policyd:
        policyd.enforcer.outcome = Result.REFUSED
        await policyd.tracerd.send(play.batch())
        (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["action"]["kill"]["result"] == "refused"


# --- throttle, duplicates, loss -------------------------------------------------------------------------------------------


async def test_more_of_the_same_is_held_back_and_counted_exactly_in_the_next(config: Config) -> None:
    play = Play()
    one, two = play.process(exe="/bin/one"), play.process(exe="/bin/two")
    for second in range(10):
        play.event("open", one, path=f"/touched/{second}", flags=0, ret=3, at=second)
    play.event("open", two, path="/touched/x", flags=0, ret=3, at=20)
    play.event("open", one, path="/touched/y", flags=0, ret=3, at=59.9)
    play.event("open", one, path="/touched/z", flags=0, ret=3, at=60)
    one.values["exe"] = "/bin/other-image"
    play.event("open", one, path="/touched/z", flags=0, ret=3, at=61)
    async with policyd_here(config) as policyd:
        for batch in play.batches(3):
            await policyd.tracerd.send(batch)
        await policyd.tracerd.acknowledged(batch)
        status = await policyd.ask("status")
    got = [(alert["process"]["executable"], alert["execray"]["suppressed"]) for alert in policyd.alerts()]
    assert got == [("/bin/one", 0), ("/bin/two", 0), ("/bin/one", 10), ("/bin/other-image", 0)]
    assert status["alerts"]["matches"] == 14 and status["alerts"]["suppressed"] == 10


async def test_the_throttle_limits_no_kill(config: Config) -> None:
    play = Play()
    thief = theft(play)
    async with policyd_here(config) as policyd:
        for _ in range(2):
            batch = play.batch()
            await policyd.tracerd.send(batch)
            await policyd.tracerd.acknowledged(batch)
            theft(play, thief)  # it lives on
    assert len(policyd.alerts()) == 1 and len(policyd.enforcer.kills) == 2


async def test_a_policy_s_own_throttle_is_kept(tmp_path: Path) -> None:
    text = TOUCH.replace("{ meta", "throttle 2 per 10s { meta", 1)
    play = Play()
    process = play.process()
    for second in range(12):
        play.event("open", process, path="/touched/x", flags=0, ret=3, at=second)
    with private_config(tmp_path, {"a.policy": text}) as config:
        async with policyd_here(config) as policyd:
            batch = play.batch()
            await policyd.tracerd.send(batch)
            await policyd.tracerd.acknowledged(batch)
    assert [alert["execray"]["suppressed"] for alert in policyd.alerts()] == [0, 0, 8, 0]


async def test_a_batch_replayed_to_a_restarted_policyd_writes_no_alert_twice(config: Config) -> None:
    play = Play()
    theft(play)
    process = play.process()
    for name in "ab":
        play.event("open", process, path=f"/touched/{name}", flags=0, ret=3)
    batch = play.batch()
    tracerd = FakeTracerd(config.stream_socket)
    await tracerd.start()
    async with policyd_here(config, tracerd=tracerd) as policyd:
        await tracerd.send(batch)
        await tracerd.acknowledged(batch)
        before = policyd.alerts()
    await until(lambda: not tracerd.subscribed, "the end of the connection")
    async with policyd_here(config, tracerd=tracerd) as again:
        tracerd.acks.clear()
        await tracerd.send(batch)
        await tracerd.acknowledged(batch)
        status = await again.ask("status")
        assert again.alerts() == before and len(before) == 2
        assert again.enforcer.kills == [] and status["alerts"]["duplicates"] == 2
    await tracerd.stop()


async def test_losses_are_told_at_once_then_summed_up_and_never_lost(config: Config) -> None:
    play = Play()
    play.lost(5)
    play.lost(7)
    play.lost(11)
    play.lost(2, "stream")
    async with policyd_here(config) as policyd:
        batch = play.batch()
        await policyd.tracerd.send(batch)
        await policyd.tracerd.acknowledged(batch)
        status = await policyd.ask("status")
    lost: dict[str, list[int]] = {}
    for alert in policyd.alerts():
        assert alert["execray"]["kind"] == "sensor_loss" and alert["rule"]["name"] == "sensor loss"
        for where, span in alert["execray"]["lost"].items():
            lost.setdefault(where, []).append(span["count"])
    assert lost == {"ring": [5, 18], "stream": [2]}  # the sum is told at the end, when policyd stops
    assert status["lost"] == {"ring": 23, "stream": 2}


async def test_a_match_over_a_gap_says_so(config: Config) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3)
    play.lost(3)
    play.event("connect", thief, family=2, ret=0)
    async with policyd_here(config) as policyd:
        await policyd.tracerd.send(play.batch())
        alerts = await policyd.alerts_after(2)
    (match,) = [alert for alert in alerts if alert["execray"]["kind"] == "match"]
    assert match["execray"]["tainted"] is True


# --- captures, handlers ---------------------------------------------------------------------------------------------------


async def test_a_capture_begun_at_a_step_is_told_in_the_alert_of_the_match(tmp_path: Path) -> None:
    text = """
    path "sends" within 1m response enforce {
        connect { } as out
        write { } as sent
        on step out { capture for 5s max 1MiB }
        on match { alert; kill }
    }
    """
    play = Play()
    process = play.process(exe="/tmp/sender")
    connected: dict[str, Any] = {"dst_ip": "127.0.0.1", "dst_port": 9, "src_ip": "127.0.0.1", "src_port": 4000}
    play.event("connect", process, family=2, ret=0, **connected)
    play.event("write", process, fd=3, ret=1, len=1)
    with private_config(tmp_path, {"a.policy": text}) as config:
        async with policyd_here(config) as policyd:
            await policyd.tracerd.send(play.batch())
            (alert,) = await policyd.alerts_after(1)
    (order,) = policyd.enforcer.captures
    assert order.capture is not None and order.capture.seconds == 5 and order.capture.max_bytes == 1 << 20
    assert [(f.proto, f.dst_ip, f.dst_port, f.src_port) for f in order.capture.flows] == [
        ("tcp", "127.0.0.1", 9, 4000),
        ("udp", "127.0.0.1", 9, 4000),
    ]
    assert alert["execray"]["action"]["capture"] == {
        "result": "capturing",
        "by": "enforcer",
        "order_id": order.order_id,
        "file": "/captures/1.pcap",
    }


async def test_a_handler_that_only_logs_raises_no_alert(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = 'path "quiet" { open { path = "/x" } on match { log } }'
    play = Play()
    play.event("open", play.process(), path="/x", flags=0, ret=3)
    with private_config(tmp_path, {"a.policy": text}) as config, caplog.at_level("INFO", "policyd"):
        async with policyd_here(config) as policyd:
            batch = play.batch()
            await policyd.tracerd.send(batch)
            await policyd.tracerd.acknowledged(batch)
    assert policyd.alerts() == [] and "policy log" in caplog.text


async def test_a_kill_without_an_alert_action_is_alerted_all_the_same(tmp_path: Path) -> None:
    text = 'path "silent" response enforce { meta { severity: critical } open { path = "/x" } on match { kill } }'
    play = Play()
    play.event("open", play.process(), path="/x", flags=0, ret=3)
    with private_config(tmp_path, {"a.policy": text}) as config:
        async with policyd_here(config) as policyd:
            await policyd.tracerd.send(play.batch())
            (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["severity"] == "critical"


async def test_two_alert_actions_raise_one_alert_of_the_higher_severity(tmp_path: Path) -> None:
    text = 'path "two" { open { path = "/x" } on match { alert low } on match { alert high } }'
    play = Play()
    play.event("open", play.process(), path="/x", flags=0, ret=3)
    with private_config(tmp_path, {"a.policy": text}) as config:
        async with policyd_here(config) as policyd:
            batch = play.batch()
            await policyd.tracerd.send(batch)
            await policyd.tracerd.acknowledged(batch)
    assert [alert["execray"]["severity"] for alert in policyd.alerts()] == ["high"]


async def test_attacker_text_stays_inside_its_value_in_file_and_log(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    play = Play()
    evil = 'x\n{"execray":{"alert_id":"forged"}}\nlevel=info event="all is well"\x1b[2J'
    theft(play, play.process(exe=f"/tmp/{evil}", comm=evil[:15], argv=[evil, b"\xff\xfe"]))
    async with policyd_here(config) as policyd:
        await policyd.tracerd.send(play.batch())
        (alert,) = await policyd.alerts_after(1)
    raw = config.alerts_file.read_bytes()
    assert raw.count(b"\n") == 1 and raw.isascii() and b"\x1b" not in raw
    assert alert["process"]["args"][0] == evil
    assert alert["process"]["args"][1].encode("utf-8", "surrogateescape") == b"\xff\xfe"


# --- sinks ----------------------------------------------------------------------------------------------------------------


async def test_an_absent_journal_is_counted_and_the_file_gets_the_alert(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyd.daemon.JournalSink", lambda: JournalSink(tmp_path / "no-journal"))
    both = dataclasses.replace(config.policyd, sinks=("journal", "file"))
    play = Play()
    theft(play)
    async with policyd_here(dataclasses.replace(config, policyd=both)) as policyd:
        await policyd.tracerd.send(play.batch())
        await policyd.alerts_after(1)
    # Ended in order, so every sink has dealt with what it got.
    sinks: Any = policyd.daemon.sink_status()
    assert sinks["file"]["written"] == 1
    assert sinks["journal"]["failed"] == 1 and "No such file" in sinks["journal"]["last_error"]


INLINE = """
policy "own" key process within 1m response enforce {
    meta { severity: high }
    open { path = "/etc/shadow" } as hashes
    connect { dst.port = 443, ret = 0 } as out
    on match { kill }
}
"""


async def test_a_kill_in_the_kernel_without_a_match_makes_an_alert_of_its_last_call(tmp_path: Path) -> None:
    (policy,) = compile_set([("a.policy", INLINE.encode())]).policies
    with private_config(tmp_path, {"a.policy": INLINE}) as made:
        config = dataclasses.replace(made, tracerd=TracerdConfig(inline="on"))
        async with policyd_here(config) as policyd:
            play = Play()
            thief = play.process(exe="/tmp/thief", comm="thief", argv=["thief"])
            killed = Flag.KILLED | Flag(tag_of(policy.hash) << KILLER_SHIFT)
            play.event("connect", thief, family=2, dst_ip="192.0.2.1", dst_port=443, ret=0, cut=killed)
            batch = play.batch()
            for _ in range(2):  # a batch that comes twice is told once
                await policyd.tracerd.send(batch)
            await policyd.tracerd.acknowledged(batch)
            (alert,) = policyd.alerts()
            status = await policyd.ask("status")
    own = alert["execray"]
    assert (own["policy"], own["killed_by"], own["degraded"]) == ("own", "kernel", True)
    assert own["action"]["kill"] == {"result": "killed", "by": "kernel"}
    assert [(step["alias"], step["events"][0]["event"]) for step in own["trail"]] == [("out", "connect")]
    assert alert["process"]["pid"] == thief.id[0] and status["inline"]["unexplained"] >= 1
    assert len(policyd.enforcer.kernel_kills) == 1 and not policyd.enforcer.kills
