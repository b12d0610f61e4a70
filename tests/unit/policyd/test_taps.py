"""Tails get what they asked for within their bounds, hear of what was left out, and give way to detection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.errors import OperatorError
from execray.eventfile import EventReader
from execray.schema.catalog import EVENT_BY_NAME, NO_CONTENT, Content
from execray.wire.frames import Batch
from policyd import taps as module
from policyd.engine.generation import Needs
from policyd.tap_filter import Spec, codes_of
from policyd.taps import MAX_TAPS, MAX_WAITING, PER_SECOND, Taps
from tests.support.fake_tracerd import DEADLINE_S
from tests.support.playbook import Play

OPENS = Spec(codes=codes_of(["open"]))
WRITES = Spec(codes=codes_of(["write"]))
NOTHING = Needs(frozenset(), NO_CONTENT)
SECOND = 1_000_000_000


class Clock:
    """The time, as a test says."""

    def __init__(self) -> None:
        self.now_ns = 10 * SECOND
        self.cost_ns = 0  # that pass whenever somebody looks at it

    def __call__(self) -> int:
        self.now_ns += self.cost_ns
        return self.now_ns


class Rig:
    """Taps with a play and a clock, and what the sensor was asked for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[frozenset[int], Content]] = []
        self.taps = Taps(self._resubscribe, logging.getLogger("policyd"), self.clock)
        self.play = Play()
        self.proc = self.play.process(exe="/bin/cat")

    def _resubscribe(self) -> None:
        self.asked.append((self.taps.codes, self.taps.content))

    def opens(self, count: int) -> Batch:
        for _ in range(count):
            self.play.event("open", self.proc, path="/etc/passwd", ret=3)
        return self.play.batch()

    async def tail(self, spec: Spec = OPENS, **options: bool) -> AsyncGenerator[dict[str, Any], None]:
        """Begins to follow, and returns when that has begun."""
        stream = self.taps.follow(spec, **{"content": False, "ancestors": False, **options})
        count = len(self.taps)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.wait({first}, timeout=0)
        assert len(self.taps) == count + 1

        async def rest() -> AsyncGenerator[dict[str, Any], None]:
            async with aclosing(stream):
                try:
                    yield json.loads(await first)["item"]
                    async for line in stream:
                        yield json.loads(line)["item"]
                finally:
                    first.cancel()

        return rest()


@pytest.fixture(autouse=True)
def writes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tail costs is what the clock of a test says."""
    monkeypatch.setattr(module, "WRITE_NS", 0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def take(stream: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(DEADLINE_S):
        return [await anext(stream) for _ in range(count)]


async def test_a_tail_gets_records_that_an_event_file_may_hold(rig: Rig) -> None:
    async with aclosing(await rig.tail(ancestors=True)) as stream:
        batch = rig.opens(2)
        rig.taps.offer(batch, NOTHING, losses=True)
        records = await take(stream, 2)
    lines = [str(record).replace("'", '"').replace("False", "false") for record in records]
    (read,) = EventReader(iter(lines), "tail").batches()
    assert [read.event(n).slots for n in range(2)] == [batch.event(n).slots for n in range(2)]


async def test_the_sensor_is_asked_when_a_tail_begins_and_when_it_ends(rig: Rig) -> None:
    first, second = await rig.tail(OPENS), await rig.tail(WRITES, content=True)
    same = await rig.tail(OPENS)
    opens, writes = OPENS.codes, WRITES.codes
    assert rig.asked == [(opens, Content.SPELLING), (opens | writes, Content.SPELLING | Content.WRITE)]
    rig.taps.offer(rig.opens(1), NOTHING, losses=True)
    await take(first, 1)
    await first.aclose()
    assert len(rig.asked) == 2  # the third still wants opens
    rig.play.event("write", rig.proc, path="/x", len=1, ret=1)
    rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
    await take(second, 1)
    await second.aclose()
    await take(same, 1)
    await same.aclose()
    assert rig.asked[2:] == [(opens, Content.SPELLING), (frozenset(), NO_CONTENT)] and len(rig.taps) == 0


async def test_content_goes_only_to_the_tail_that_asked_for_it(rig: Rig) -> None:
    with_content, without = await rig.tail(WRITES, content=True), await rig.tail(WRITES)
    rig.play.event("write", rig.proc, path="/x", content="root:secret", len=11, ret=11)
    rig.taps.offer(rig.play.batch(), Needs(WRITES.codes, Content.WRITE), losses=True)
    (shown,), (hidden,) = await take(with_content, 1), await take(without, 1)
    assert shown["content"] == "root:secret" and "content" not in hidden
    assert {k: v for k, v in shown.items() if k != "content"} == hidden
    await with_content.aclose()
    await without.aclose()


async def test_the_callers_spelling_is_no_secret_and_whoever_follows_opens_gets_it(rig: Rig) -> None:
    async with aclosing(await rig.tail(OPENS)) as tail:
        rig.play.event("open", rig.proc, path="/etc/passwd", rawpath="../etc/passwd", flags=0, ret=3)
        rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
        assert [record["rawpath"] for record in await take(tail, 1)] == ["../etc/passwd"]
    async with aclosing(await rig.tail(Spec(codes=codes_of(["chmod", "connect"])))):
        assert rig.taps.content == NO_CONTENT


async def test_a_tail_asks_for_the_bytes_of_what_it_follows_and_for_no_others(rig: Rig) -> None:
    spec = Spec(codes=codes_of(["read", "exec", "open"]))
    tail, other = await rig.tail(spec, content=True), await rig.tail(WRITES)
    assert rig.taps.content == Content.READ | Content.ENV | Content.SPELLING
    rig.play.event("exec", rig.proc, filename="/bin/x", env=["TOKEN=1"], ret=0)
    rig.play.event("read", rig.proc, path="/x", content="root:secret", len=11, ret=11)
    rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
    ran, read = await take(tail, 2)
    assert (ran["env"], read["content"]) == (["TOKEN=1"], "root:secret")
    await tail.aclose()
    await other.aclose()


async def test_past_the_rate_a_stretch_is_left_out_and_told_in_its_place(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        got: list[dict[str, Any]] = []
        for _ in range(4):  # 1,600 in this second, read as they come
            rig.taps.offer(rig.opens(400), NOTHING, losses=True)
            got += await take(stream, min(400, PER_SECOND - len(got)))
        rig.clock.now_ns += SECOND
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        lost, after = await take(stream, 2)
    assert len(got) == PER_SECOND
    assert (lost["event"], lost["where"], lost["count"]) == ("lost", "tail: too many a second", 600)
    assert [r["id"] for r in [*got, lost, after]] == [*range(1, 1001), 1600, 1601]
    assert lost["since_ns"] > got[-1]["time_ns"] and lost["time_ns"] < after["time_ns"]
    assert rig.taps.status() == {
        "open": 0,
        "delivered": 1001,
        "dropped": {"too many a second": 600},
        "withdrawn": 0,
    }


async def test_who_does_not_read_loses_what_does_not_fit_and_nobody_waits(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        for _ in range(8):
            rig.taps.offer(rig.opens(PER_SECOND // 4), NOTHING, losses=True)
            rig.clock.now_ns += SECOND
        got = await take(stream, MAX_WAITING)
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        lost, after = await take(stream, 2)
    total = 8 * (PER_SECOND // 4)
    assert [record["id"] for record in got] == list(range(1, MAX_WAITING + 1))
    assert (lost["where"], lost["count"]) == ("tail: the reader is too slow", total - MAX_WAITING)
    assert after["id"] == total + 1


async def test_drops_that_no_event_comes_after_are_told_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.01)
    async with aclosing(await rig.tail()) as stream:
        rig.taps.offer(rig.opens(PER_SECOND + 5), NOTHING, losses=True)
        *_, lost = await take(stream, PER_SECOND + 1)
    assert (lost["event"], lost["count"]) == ("lost", 5)


async def test_when_the_share_of_the_processor_is_used_up_batches_go_by_unseen(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        rig.clock.cost_ns = 30_000_000  # more than the burst that is allowed
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        rig.clock.cost_ns = 0
        for _ in range(3):
            rig.taps.offer(rig.opens(10), NOTHING, losses=True)
        rig.clock.now_ns += SECOND  # a tenth of which is the tails'
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        first, lost, after = await take(stream, 3)
    assert (first["id"], after["id"]) == (1, 32)
    assert (lost["where"], lost["count"], lost["id"]) == ("tail: detection comes first", 30, 31)


async def test_losses_of_the_sensor_are_told_where_they_were(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        rig.play.event("open", rig.proc, path="/a", ret=3)
        rig.play.lost(7, "skipped")
        rig.play.event("open", rig.proc, path="/b", ret=3)
        rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
        before, lost, after = await take(stream, 3)
    assert (before["id"], lost["id"], after["id"]) == (1, 2, 3)
    assert (lost["where"], lost["count"]) == ("skipped", 7)


async def test_losses_are_told_also_while_the_share_is_used_up(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        rig.clock.cost_ns = 30_000_000
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        rig.clock.cost_ns = 0
        rig.play.event("open", rig.proc, path="/a", ret=3)
        rig.play.lost(7, "skipped")
        rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
        rig.clock.now_ns += SECOND
        rig.taps.offer(rig.opens(1), NOTHING, losses=True)
        records = await take(stream, 4)
    assert [(r["id"], r.get("where"), r.get("count")) for r in records] == [
        (1, None, None),
        (2, "tail: detection comes first", 1),
        (3, "skipped", 7),
        (4, None, None),
    ]


@pytest.mark.parametrize("where", ["ring", "stream", "oversized"])
async def test_events_lost_for_there_were_too_many_end_the_tails_that_policies_do_not_need(
    rig: Rig, where: str
) -> None:
    needed, greedy = await rig.tail(OPENS), await rig.tail(WRITES)
    policies = Needs(OPENS.codes, NO_CONTENT)
    rig.play.lost(7, where)
    rig.taps.offer(rig.play.batch(), policies, losses=True)
    assert rig.asked[-1] == (OPENS.codes, Content.SPELLING) and len(rig.taps) == 1
    assert (await take(greedy, 1))[0]["where"] == where
    with pytest.raises(OperatorError, match="detection comes first: events were lost"):
        await take(greedy, 1)
    assert (await take(needed, 1))[0]["count"] == 7
    assert rig.taps.status()["withdrawn"] == 1
    await needed.aclose()


async def test_content_that_no_policy_needs_is_given_up_too(rig: Rig) -> None:
    stream = await rig.tail(WRITES, content=True)
    rig.play.lost(1, "ring")
    rig.taps.offer(rig.play.batch(), Needs(WRITES.codes, NO_CONTENT), losses=True)
    assert len(rig.taps) == 0 and rig.asked[-1] == (frozenset(), NO_CONTENT)
    await stream.aclose()


@pytest.mark.parametrize(("used", "ended"), [(10, False), (26, True)])
async def test_a_backlog_ends_them_before_anything_is_lost(rig: Rig, used: int, ended: bool) -> None:
    stream = await rig.tail()
    rig.taps.heartbeat({"buffer": {"bytes": used, "max": 100}}, NOTHING)
    assert len(rig.taps) == (0 if ended else 1)
    rig.taps.heartbeat({"buffer": "?"}, NOTHING)
    await stream.aclose()


@given(st.data())
@settings(deadline=None, max_examples=30)
async def test_every_event_is_shown_or_counted_once_in_order_whatever_happens(data: st.DataObject) -> None:
    rig = Rig()
    got: list[dict[str, Any]] = []
    reads = asyncio.Event()
    total = losses = 0
    stream = await rig.tail()

    async def read() -> None:
        async for record in stream:
            got.append(record)
            await reads.wait()

    reader = asyncio.create_task(read())
    for _ in range(data.draw(st.integers(1, 12))):
        rig.clock.now_ns += data.draw(st.sampled_from([0, SECOND // 10, SECOND, 5 * SECOND]))
        rig.clock.cost_ns = data.draw(st.sampled_from([0, 0, 0, 15_000_000]))
        for size in data.draw(st.lists(st.sampled_from([1, 3, 700]), min_size=1, max_size=3)):
            for _ in range(size):
                rig.play.event("open", rig.proc, path="/etc/passwd", ret=3)
            total += size
            if data.draw(st.booleans()):
                rig.play.lost(5, "skipped")
                losses += 1
        rig.taps.offer(rig.play.batch(), NOTHING, losses=True)
        rig.clock.cost_ns = 0
        if data.draw(st.booleans()):
            reads.set()
            await asyncio.wait({reader}, timeout=0)
            reads.clear()
    reads.set()
    await asyncio.wait({reader}, timeout=0)
    rig.clock.now_ns += 60 * SECOND
    rig.taps.offer(rig.opens(1), NOTHING, losses=True)
    async with asyncio.timeout(DEADLINE_S):
        while not got or got[-1]["id"] != total + losses + 1:
            await asyncio.wait({reader}, timeout=0.001)
    reader.cancel()
    await asyncio.wait({reader})

    ids = [record["id"] for record in got]
    assert ids == sorted(set(ids))
    shown = sum(record["event"] == "open" for record in got)
    left_out = sum(r["count"] for r in got if r["event"] == "lost" and r["where"].startswith("tail: "))
    assert shown + left_out == total + 1
    assert sum(r["count"] for r in got if r.get("where") == "skipped") == 5 * losses


async def test_only_a_few_may_follow(rig: Rig) -> None:
    streams = [await rig.tail() for _ in range(MAX_TAPS)]
    one_more = rig.taps.follow(OPENS, content=False, ancestors=False)
    with pytest.raises(OperatorError, match="follow events already"):
        await anext(one_more)
    assert len(rig.taps) == MAX_TAPS
    for stream in streams:
        await stream.aclose()


def test_without_a_tail_nothing_is_done(rig: Rig) -> None:
    rig.clock.cost_ns = 1
    began_ns = rig.clock.now_ns
    rig.taps.offer(rig.opens(5), NOTHING, losses=True)
    assert rig.clock.now_ns == began_ns and rig.taps.delivered == 0


async def test_a_malformed_row_ends_nothing(rig: Rig) -> None:
    async with aclosing(await rig.tail()) as stream:
        batch = rig.opens(3)
        code = EVENT_BY_NAME["open"].code
        broken = Batch(9, 50, batch.strings, batch.actors, ((code, 1, 0, 1, 0, 999, None, 0, 0, 0, None, 0),))
        rig.taps.offer(broken, NOTHING, losses=True)
        rig.taps.offer(batch, NOTHING, losses=True)
        assert [record["id"] for record in await take(stream, 3)] == [1, 2, 3]


def stats(refused: int, mode: str = "on", used: int = 0) -> dict[str, Any]:
    return {"gate": {"mode": mode, "refused": refused}, "buffer": {"bytes": used, "max": 100}}


async def test_what_the_kernel_had_no_room_for_is_told_to_who_follows_such_events(rig: Rig) -> None:
    follows, execs = await rig.tail(OPENS), await rig.tail(Spec(codes=codes_of(["exec"])))
    policies = Needs(OPENS.codes | codes_of(["exec"]), NO_CONTENT)
    rig.taps.heartbeat(stats(40), policies)  # from before they came
    rig.taps.offer(rig.opens(3), policies, losses=False)
    rig.taps.heartbeat(stats(140), policies)
    records = await take(follows, 4)
    assert (records[3]["where"], records[3]["count"]) == ("tail: detection comes first", 100)
    assert records[3]["id"] == records[2]["id"]
    assert rig.taps.status()["dropped"] == {"detection comes first": 100}
    rig.taps.heartbeat(stats(0), policies)  # another tracerd
    rig.taps.heartbeat(stats(5), policies)
    assert (await take(follows, 1))[0]["count"] == 5
    assert rig.taps.status()["dropped"] == {"detection comes first": 105}
    await follows.aclose()
    await execs.aclose()


@pytest.mark.parametrize(("mode", "ended"), [("on", 1), ("off", 0)])
async def test_where_the_gate_is_on_who_follows_what_policies_want_needs_more_than_they(
    rig: Rig, mode: str, ended: int
) -> None:
    follows, execs = await rig.tail(OPENS), await rig.tail(Spec(codes=codes_of(["exec"])))
    policies = Needs(OPENS.codes | codes_of(["exec"]), NO_CONTENT)
    rig.taps.heartbeat(stats(0, mode, used=26), policies)
    assert rig.taps.status()["withdrawn"] == ended
    assert len(rig.taps) == 2 - ended
    await follows.aclose()
    await execs.aclose()
