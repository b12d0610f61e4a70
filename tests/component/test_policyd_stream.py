"""policyd and tracerd lose each other, misunderstand each other, and find each other again."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgpack
import pytest

from execray.config import Config, TracerdConfig
from execray.gate.encoding import decode_plan, digest_of
from execray.process import boot_id
from execray.schema.catalog import EVENT_BY_NAME, Content
from execray.wire.frames import Batch, Error, Frame, Heartbeat, Hello, Settle, Subscribe, Taken
from policyd import control_ops
from policyd.stream_client import ACK_BATCHES, SILENT_HEARTBEATS, StreamClient
from tests.support.fake_tracerd import FakeTracerd, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, Policyd, policyd_here, private_config, theft, write_policy


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT}) as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


def codes(*names: str) -> set[int]:
    return {EVENT_BY_NAME[name].code for name in names}


async def test_it_subscribes_to_what_the_policies_name(policyd: Policyd) -> None:
    (wanted,) = policyd.tracerd.subscriptions
    assert codes("open", "connect") <= set(wanted.codes)
    assert not codes("ptrace", "write") & set(wanted.codes) and not wanted.content


async def test_it_subscribes_anew_after_a_reload(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", 'path "w" { write { content contains "x" } }')
    await policyd.ask("reload")
    await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a second subscription")
    wanted = policyd.tracerd.subscriptions[-1]
    assert codes("open", "connect", "write") <= set(wanted.codes) and wanted.content == Content.WRITE
    assert policyd.tracerd.connections == 1


async def test_a_reload_is_answered_once_tracerd_has_taken_it(policyd: Policyd) -> None:
    policyd.tracerd.takes = False
    asked = asyncio.create_task(policyd.ask("reload"))
    await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a second subscription")
    assert not (await asyncio.wait({asked}, timeout=0.2))[0]
    await policyd.tracerd.send(Taken(1))  # the first one, which it had not told of
    assert not (await asyncio.wait({asked}, timeout=0.2))[0]
    await policyd.tracerd.send(Taken(2))
    assert (await asked)["sensor"] == "taken"


async def test_a_reload_says_within_its_bound_that_tracerd_has_not_taken_it(
    policyd: Policyd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_ops, "CONFIRM_S", 0.1)
    policyd.tracerd.takes = False
    report = await policyd.ask("reload")
    assert (report["ok"], report["generation"], report["sensor"]) == (True, 2, "late")
    assert (await policyd.ask("disabled", names=["theft"]))["sensor"] == "late"
    assert (await policyd.ask("mode", mode="audit"))["sensor"] == "late"
    policyd.tracerd.takes = True
    assert (await policyd.ask("reload"))["sensor"] == "taken"


async def test_a_reload_waits_for_no_tracerd_that_is_away_and_the_next_one_takes_it(policyd: Policyd) -> None:
    await policyd.tracerd.stop()
    await until(lambda: not policyd.daemon.live, "the end of the connection")
    assert (await policyd.ask("reload"))["sensor"] == "away"
    await policyd.tracerd.start()
    await until(lambda: policyd.tracerd.subscribed, "a subscription")
    assert (await policyd.ask("reload"))["sensor"] == "taken"


async def test_a_reload_while_tracerd_comes_back_is_taken_by_the_next_one(policyd: Policyd) -> None:
    policyd.tracerd.takes = False
    asked = asyncio.create_task(policyd.ask("reload"))
    await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a second subscription")
    policyd.tracerd.cut()
    assert (await asked)["sensor"] == "away"


async def test_a_reload_over_a_connection_that_just_broke_is_not_taken(
    policyd: Policyd, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, fed = asyncio.Event(), policyd.daemon.batch

    def full(batch: Batch, stream_id: str) -> bool:
        fed(batch, stream_id)
        return False

    async def room() -> None:
        await going_on.wait()

    monkeypatch.setattr(policyd.daemon, "batch", full)
    monkeypatch.setattr(policyd.daemon, "room", room)
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    stream = policyd.daemon._stream
    await until(lambda: stream.feeding, "a batch under way")
    stream._abort()  # as where tracerd is gone, which isn't read before the batch is done with
    report = await policyd.ask("reload")
    going_on.set()
    assert report["sensor"] == "away"


async def test_a_tracerd_that_takes_what_nobody_asked_for_is_given_up(policyd: Policyd) -> None:
    await policyd.tracerd.send(Taken(2))
    await until(lambda: policyd.tracerd.connections == 2, "a new connection")
    assert (await policyd.ask("status"))["stream"]["peer_errors"] == 1


async def test_it_says_once_a_plan_has_come_what_had_begun_before(policyd: Policyd) -> None:
    plan = policyd.tracerd.subscriptions[-1].plan
    (slot, window) = next(iter(decode_plan(plan).windows.items()))
    assert window is not None
    gate = {"plan": digest_of(plan), "generation": 3, "settled": False}
    await policyd.tracerd.heartbeat(1, gate={**gate, "plan": "another", "generation": 2})
    await policyd.tracerd.heartbeat(1, gate=gate)
    await until(lambda: policyd.tracerd.settled, "what had begun")
    assert policyd.tracerd.settled == [Settle(3, ())]
    play = Play()
    play.event("open", play.process(), path="/etc/shadow", flags=0, ret=3)
    batch = play.batch()
    await policyd.tracerd.send(batch)
    await policyd.tracerd.heartbeat(batch.events[-1][1], gate={**gate, "generation": 4})
    await until(lambda: len(policyd.tracerd.settled) == 2, "what had begun")
    assert policyd.tracerd.settled[1] == Settle(4, (slot, batch.events[-1][1] + window))
    await policyd.tracerd.heartbeat(batch.events[-1][1], gate={**gate, "generation": 5, "settled": True})
    await policyd.tracerd.heartbeat(batch.events[-1][1], gate={**gate, "generation": 6})
    await until(lambda: len(policyd.tracerd.settled) == 3, "what had begun")
    assert policyd.tracerd.settled[2].generation == 6


async def test_it_waits_for_a_tracerd_that_starts_later(config: Config) -> None:
    tracerd = FakeTracerd(config.stream_socket)
    async with policyd_here(config, tracerd=tracerd, wait=False) as policyd:
        status = await policyd.ask("status")
        assert status["stream"]["connected"] is False and status["stream"]["error"]
        await tracerd.start()
        started = time.monotonic()
        await until(lambda: tracerd.subscribed, "a subscription")
        assert time.monotonic() - started < 1.0
    await tracerd.stop()


async def test_it_is_back_within_a_second_of_tracerd_and_detects_again(policyd: Policyd) -> None:
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    await policyd.alerts_after(1)
    await policyd.tracerd.stop()
    await until(lambda: not policyd.daemon.live, "the end of the connection")
    policyd.tracerd.stream_id = "stream-2"
    await policyd.tracerd.start()
    started = time.monotonic()
    await until(lambda: policyd.tracerd.subscribed, "a subscription")
    assert time.monotonic() - started < 1.0
    play = Play()  # ids and numbers begin again
    play.now_ns += 10**9
    theft(play, play.process(exe="/tmp/another"))
    await policyd.tracerd.send(play.batch())
    alerts = await policyd.alerts_after(3)
    kinds = [alert["execray"]["kind"] for alert in alerts]
    assert kinds == ["match", "sensor_loss", "match"]
    assert "restart of tracerd" in alerts[1]["message"] and "unknown number" in alerts[1]["message"]


@pytest.mark.parametrize(("done", "told"), [(-1, []), (0, ["sensor_loss"]), (None, []), ("x", [])])
async def test_who_begins_in_the_midst_of_a_stream_that_was_read_before_says_so(
    config: Config, done: object, told: list[str]
) -> None:
    tracerd = FakeTracerd(config.stream_socket)
    tracerd.hello = lambda: hello(**({} if done is None else {"done": done}))  # type: ignore[method-assign]  # what it is about
    await tracerd.start()
    async with policyd_here(config, tracerd=tracerd) as policyd:
        for _ in range(2):  # and only once
            play = Play()
            theft(play)
            await tracerd.send(play.batch())
            await policyd.alerts_after(1)
            tracerd.cut()
            await until(lambda: tracerd.subscribed, "a reconnection")
        alerts = policyd.alerts()
        assert [alert["execray"]["kind"] for alert in alerts] == [*told, "match"]
        assert not told or list(alerts[0]["execray"]["lost"]) == ["restart of policyd"]
    await tracerd.stop()


async def test_it_resumes_the_same_stream_behind_what_is_written(policyd: Policyd) -> None:
    play = Play()
    play.event("open", play.process(), path="/a", flags=0, ret=3)
    first = play.batch()
    await policyd.tracerd.send(first)
    await policyd.tracerd.acknowledged(first)
    policyd.tracerd.cut()
    await until(lambda: policyd.tracerd.connections == 2 and policyd.tracerd.subscribed, "a reconnection")
    assert "resume" not in policyd.tracerd.hellos[0].facts
    assert policyd.tracerd.hellos[1].facts["resume"] == ("stream-1", first.seq)


async def test_batches_are_acknowledged_together(policyd: Policyd) -> None:
    play = Play()
    process = play.process()
    batches = []
    for number in range(4 * ACK_BATCHES + 1):
        play.event("open", process, path=f"/{number}", flags=0, ret=3)
        batches.append(play.batch())
    await policyd.tracerd.send(*batches)
    await policyd.tracerd.acknowledged(batches[-1])
    assert policyd.tracerd.acks == sorted(set(policyd.tracerd.acks))
    assert len(policyd.tracerd.acks) <= 2 * ACK_BATCHES


async def test_a_batch_that_comes_again_in_one_life_is_fed_once(policyd: Policyd) -> None:
    play = Play()
    theft(play)
    batch = play.batch()
    policyd.enforcer.hold.clear()  # not written yet, so tracerd must send it again
    await policyd.tracerd.send(batch)
    await until(lambda: policyd.enforcer.kills, "an order")
    policyd.tracerd.cut()
    await until(lambda: policyd.tracerd.connections == 2 and policyd.tracerd.subscribed, "a reconnection")
    assert policyd.tracerd.hellos[1].facts["resume"] == ("stream-1", -1)
    await policyd.tracerd.send(batch)
    policyd.enforcer.hold.set()
    await policyd.tracerd.acknowledged(batch)
    status = await policyd.ask("status")
    assert status["stream"]["repeated"] == 1 and len(policyd.alerts()) == 1 and len(policyd.enforcer.kills) == 1


async def test_a_hole_in_the_numbering_is_a_loss_with_its_exact_count(policyd: Policyd) -> None:
    play = Play()
    process = play.process()
    play.event("open", process, path="/a", flags=0, ret=3)
    await policyd.tracerd.send(play.batch())
    for _ in range(4):
        play.event("open", process, path="/b", flags=0, ret=3)
    play.batch()  # never sent
    play.event("open", process, path="/c", flags=0, ret=3)
    await policyd.tracerd.send(play.batch())
    (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["lost"]["stream"]["count"] == 4


async def test_a_hole_that_tracerd_told_of_is_not_counted_twice(policyd: Policyd) -> None:
    play = Play()
    process = play.process()
    play.event("open", process, path="/a", flags=0, ret=3)
    await policyd.tracerd.send(play.batch())
    for _ in range(4):
        play.event("open", process, path="/b", flags=0, ret=3)
    unsent = play.batch()
    # What tracerd sends in place of batches it had to drop: their last number, their first id.
    told = Batch(unsent.seq, unsent.first_id, (), (), ((0, play.now_ns, "stream", 4, play.now_ns - 5),))
    play.event("open", process, path="/c", flags=0, ret=3)
    last = play.batch()
    await policyd.tracerd.send(told, last)
    await policyd.tracerd.acknowledged(last)
    status = await policyd.ask("status")
    assert status["lost"] == {"stream": 4}


async def test_it_counts_as_live_only_while_heartbeats_come(config: Config) -> None:
    quick = dataclasses.replace(config, tracerd=TracerdConfig(heartbeat_s=0.1))
    async with policyd_here(quick) as policyd:
        await policyd.tracerd.heartbeat(rate=12.5, lost={"ring": 0})
        status = await policyd.ask("status")
        assert status["stream"]["live"] is True and status["sensor"]["rate"] == 12.5
        await until(lambda: not policyd.daemon.live, "no sign of life")
        # A sensor that stays silent is given up, and asked again.
        await until(lambda: policyd.tracerd.connections >= 2, "a new connection")


# --- misunderstandings ----------------------------------------------------------------------------------------------------


def hello(**facts: object) -> Hello:
    return Hello("tracerd", {"boot_id": boot_id(), "stream_id": "s", **facts})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Hello("tracerd", {}, protocol=99), "stream protocol 99"),
        (Hello("tracerd", {}, catalog=99), "event catalogue 99"),
        (Hello("enforcer", {}), "expected tracerd"),
        (hello(boot_id="another"), "another boot"),
        (hello(stream_id=7), "names no stream"),
        (Error("go away\x1b[2J"), "refused us: go away"),
        (Batch(1, 1, (), (), ()), "expected a hello"),
    ],
)
async def test_a_tracerd_that_does_not_fit_is_a_clear_error_and_no_crash(
    config: Config, caplog: pytest.LogCaptureFixture, said: Frame, reason: str
) -> None:
    tracerd = FakeTracerd(config.stream_socket)
    tracerd.hello = lambda: said  # type: ignore[method-assign]  # what the test is about
    await tracerd.start()
    async with policyd_here(config, tracerd=tracerd, wait=False) as policyd:
        status: dict[str, dict[str, str]] = {}

        async def told() -> bool:
            status.update(await policyd.ask("status"))
            return reason in status["stream"].get("error", "")

        while not await told():
            pass
        assert int(status["stream"]["peer_errors"]) >= 1
    assert reason in str([getattr(record, "kv", {}) for record in caplog.records])
    assert not tracerd.subscriptions
    await tracerd.stop()


BAD_FRAMES = {
    "random bytes": b"\xff" * 64,
    "an endless frame": struct.pack(">I", 1 << 30) + b"x" * 100,
    "no msgpack": struct.pack(">I", 3) + b"\xc1\xc1\xc1",
    "an unknown frame": struct.pack(">I", 2) + msgpack.packb([99]),
    "a second hello": struct.pack(">I", len(raw := msgpack.packb([1, 1, 1, "tracerd", {}]))) + raw,
    "a truncated batch": struct.pack(">I", len(raw := msgpack.packb([3, 1, 1, [], []]))) + raw,
    "an event of nobody": struct.pack(">I", len(raw := msgpack.packb([3, 1, 1, [], [], [[3, 1, 7, 1, 0, 0, 0]]])))
    + raw,
    "a deep nest": struct.pack(">I", 2000) + b"\x91" * 2000,
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_malformed_frame_closes_the_connection_and_the_next_one_works(policyd: Policyd, name: str) -> None:
    await policyd.tracerd.send_raw(BAD_FRAMES[name])
    await until(lambda: policyd.tracerd.connections == 2 and policyd.tracerd.subscribed, "a reconnection")
    status = await policyd.ask("status")
    assert status["stream"]["peer_errors"] == 1
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    assert len(await policyd.alerts_after(1)) == 1


async def test_a_loss_row_of_another_shape_is_itself_a_loss(policyd: Policyd) -> None:
    await policyd.tracerd.send(Batch(1, 1, (), (), ((0, 1, "ring", "many", 0),)))
    (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["lost"]["stream"]["count"] == 1


async def test_any_bytes_from_tracerd_are_survived(policyd: Policyd) -> None:
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    for number in range(1, 13):
        await policyd.tracerd.send_raw(source.randbytes(source.randrange(300)))
        policyd.tracerd.cut()
        reconnected = partial(lambda count: policyd.tracerd.connections > count and policyd.tracerd.subscribed, number)
        await until(reconnected, f"a reconnection, seed {seed}")
    status = await policyd.ask("status")
    assert status["stream"]["connected"] is True


# --- a connection that is silent, and one that isn't read --------------------------------------------------------------------


class Reader:
    """What a stream is for, which has room when it is told so."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.batches = 0

    def subscription(self) -> Subscribe:
        return Subscribe((), 0)

    def batch(self, batch: Batch, stream_id: str) -> bool:
        self.batches += 1
        return self.free.is_set()

    async def room(self) -> None:
        await self.free.wait()

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        pass


@asynccontextmanager
async def client_of(tracerd: FakeTracerd, reader: Reader, heartbeat_s: float) -> AsyncIterator[StreamClient]:
    await tracerd.start()
    client = StreamClient(tracerd.path, reader, heartbeat_s, logging.getLogger("policyd"))
    task = asyncio.create_task(client.run())
    try:
        await until(lambda: tracerd.subscribed, "a subscription")
        yield client
    finally:
        task.cancel()
        await asyncio.wait([task])
        await tracerd.stop()


def batches() -> Iterator[Batch]:
    play = Play()
    process = play.process()
    while True:
        play.event("open", process, path="/a", flags=0, ret=3)
        yield play.batch()


async def looks(client: StreamClient, count: int) -> None:
    """Waits until the connection was looked at so often: twice in each heartbeat."""
    before = client.turns
    await until(lambda: client.turns >= before + count, "looks")


async def test_a_tracerd_that_is_not_read_because_there_is_no_room_is_not_given_up(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    tracerd, reader = FakeTracerd(config.stream_socket), Reader()
    async with client_of(tracerd, reader, 0.02) as client:
        await tracerd.send(next(batches()))
        await until(lambda: client.feeding, "no room")
        await tracerd.heartbeat()
        await looks(client, 3 * SILENT_HEARTBEATS)
        assert client.live and tracerd.connections == 1 and "not live" not in caplog.text
        reader.free.set()
        # Once it is read again, its silence counts.
        await until(lambda: not client.live, "silence")
        await until(lambda: tracerd.connections == 2, "a new connection")


async def test_a_tracerd_that_sends_batches_only_is_live(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """It leaves heartbeats out while there are more batches than the socket takes."""
    tracerd, reader = FakeTracerd(config.stream_socket), Reader()
    reader.free.set()
    async with client_of(tracerd, reader, 0.1) as client:
        end = client.turns + 3 * SILENT_HEARTBEATS
        for batch in batches():
            await tracerd.send(batch)
            await asyncio.sleep(0.01)
            if client.turns > end:
                break
        assert client.live and tracerd.connections == 1 and "not live" not in caplog.text


async def test_who_stood_still_itself_does_not_take_the_other_for_silent(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    tracerd, reader = FakeTracerd(config.stream_socket), Reader()
    reader.free.set()
    async with client_of(tracerd, reader, 0.02):
        sent = batches()
        for _ in range(5):
            await tracerd.send(next(sent))
            time.sleep(2 * SILENT_HEARTBEATS * 0.02)  # noqa: ASYNC251  # the loop stands still: that is what is tested
            await tracerd.send(next(sent))
            await asyncio.sleep(0)
        assert tracerd.connections == 1 and "not live" not in caplog.text
        assert reader.batches
