"""`execray-ctl events`: the sensor is asked for what a tail wants while it lasts, and no alert changes by it."""

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
from execray.control_client import ControlClient, OperationFailed
from execray.ctl.main import main
from execray.errors import OperatorError
from execray.schema.catalog import EVENT_BY_NAME, Content
from execray.service import Peer
from execray.wire.control import Request
from policyd.control_events import EventOps
from policyd.taps import Taps
from tests.support.fake_tracerd import DEADLINE_S, FakeTracerd, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, Policyd, policyd_here, private_config, theft

WRITES = 'path "writes" { write { len >= 1 } }\n'


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT, "w.policy": WRITES}) as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


@contextlib.asynccontextmanager
async def following(policyd: Policyd, *args: str) -> AsyncIterator[asyncio.Task[Result]]:
    """`execray-ctl events` in a thread, from when policyd knows of it."""
    before = int((await policyd.ask("status"))["tails"]["open"])
    line = ["--runtime-dir", str(policyd.config.runtime_dir), "events", *args]
    task = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, line))
    while (await policyd.ask("status"))["tails"]["open"] == before:
        assert not task.done(), task.result().output
    yield task
    await asyncio.wait_for(task, DEADLINE_S)


def codes(*names: str) -> set[int]:
    return {EVENT_BY_NAME[name].code for name in names}


def some(play: Play) -> None:
    """One open each by two users, and a write."""
    for uid, exe in ((1000, "/bin/cat"), (0, "/usr/sbin/cron")):
        proc = play.process(exe=exe, uid=uid, euid=uid)
        play.event("open", proc, path=f"/etc{exe}", flags=0, ret=3)
        play.event("open", proc, rawpath="/none", flags=0, ret=-2)
    play.event("write", proc, fd=1, path="/dev/null", content="root:x", len=6, ret=6)


async def test_a_tail_shows_what_it_filters_for_and_ends_after_its_count(policyd: Policyd) -> None:
    async with following(policyd, "--type", "open", "--name", "cat", "-n", "2") as tail:
        play = Play()
        some(play)
        await policyd.tracerd.send(play.batch())
    result = tail.result()
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert "cat[1001]" in first and first.endswith("open /etc/bin/cat (O_RDONLY) -> 3")
    assert second.endswith("open /none (O_RDONLY) -> ENOENT") and "\x1b" not in result.stdout


async def test_json_is_an_event_file(policyd: Policyd, tmp_path: Path) -> None:
    from execray.eventfile import EventReader, open_events

    async with following(policyd, "--type", "open,write", "-n", "5", "--json") as tail:
        play = Play()
        some(play)
        batch = play.batch()
        await policyd.tracerd.send(batch)
    path = tmp_path / "seen.jsonl"
    path.write_text(tail.result().stdout)
    with open_events(path) as lines:
        (read,) = EventReader(lines, str(path)).batches()
    assert [read.event(n).actor.id for n in range(5)] == [batch.event(n).actor.id for n in range(5)]
    assert [row[1] for row in read.events] == [row[1] for row in batch.events]
    assert "root:x" not in path.read_text()


async def test_the_sensor_is_asked_for_more_only_while_somebody_follows(policyd: Policyd) -> None:
    subscriptions = policyd.tracerd.subscriptions
    first = set(subscriptions[0].codes)
    assert not codes("ptrace", "setuid") & first
    async with following(policyd, "--type", "ptrace,open", "-n", "1"):
        await until(lambda: len(subscriptions) == 2, "a second subscription")
        assert set(subscriptions[1].codes) == first | codes("ptrace")
        assert subscriptions[1].content == Content.SPELLING
        assert (
            set(subscriptions[1].followed) == codes("ptrace", "open") and subscriptions[1].plan == subscriptions[0].plan
        )
        async with following(policyd, "--content", "-n", "1"):
            await until(lambda: len(subscriptions) == 3, "a third one")
            assert subscriptions[2].content == Content.WRITE | Content.SPELLING
            play = Play()
            some(play)
            await policyd.tracerd.send(play.batch())
    await until(lambda: len(subscriptions) >= 4 and set(subscriptions[-1].codes) == first, "the first one again")
    await until(lambda: not subscriptions[-1].content, "one without content")
    assert not subscriptions[-1].followed
    assert (await policyd.ask("status"))["tails"]["open"] == 0


async def test_a_reload_keeps_what_a_tail_needs(policyd: Policyd) -> None:
    async with following(policyd, "--type", "ptrace", "-n", "1"):
        await policyd.ask("reload")
        assert codes("ptrace") <= set(policyd.tracerd.subscriptions[-1].codes)
        play = Play()
        play.event("ptrace", play.process(), request=16, ret=0)
        await policyd.tracerd.send(play.batch())


async def test_what_a_tail_asks_for_gets_into_no_alert(policyd: Policyd) -> None:
    async with following(policyd, "--content", "-n", "1", "--json") as tail:
        play = Play()
        some(play)
        theft(play)
        await policyd.tracerd.send(play.batch())
    assert json.loads(tail.result().stdout)["content"] == "root:x"
    alerts = await policyd.alerts_after(2)
    assert {alert["rule"]["name"] for alert in alerts} == {"writes", "theft"}
    assert "root:x" not in json.dumps(alerts)


async def test_without_a_sensor_it_says_so(config: Config) -> None:
    async with policyd_here(config, tracerd=FakeTracerd(config.stream_socket), wait=False) as policyd:
        line = ["--runtime-dir", str(config.runtime_dir), "events"]
        tail = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, line))
        while (await policyd.ask("status"))["tails"]["open"] == 0:
            pass
        await policyd.stop()
        result = await asyncio.wait_for(tail, DEADLINE_S)
    assert "policyd has no connection to tracerd" in result.stderr and "closed the connection" in result.stderr


async def test_detection_does_not_wait_for_a_tail_that_does_not_read(policyd: Policyd) -> None:
    _reader, writer = await asyncio.open_unix_connection(policyd.config.control_socket("policyd"))
    writer.write(b'{"v": 1, "op": "events", "args": {"types": ["open"]}}\n')
    while (await policyd.ask("status"))["tails"]["open"] == 0:
        pass
    play = Play()
    noisy = play.process(exe="/bin/noisy")
    for _ in range(40):
        for _ in range(500):
            play.event("open", noisy, path="/tmp/" + "x" * 900, flags=0, ret=3)
        await policyd.tracerd.send(play.batch())
    theft(play)
    await policyd.tracerd.send(play.batch())
    assert len(await policyd.alerts_after(1)) == 1
    tails = (await policyd.ask("status"))["tails"]
    assert tails["dropped"] and tails["delivered"] + sum(tails["dropped"].values()) >= 20_000 - 2048
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "args",
    [
        {"types": ["opne"]},
        {"types": "open"},
        {"types": [1]},
        {"pid": "1"},
        {"pid": True},
        {"exe": 1},
        {"path": "x" * 2000},
        {"uids": 1},
    ],
)
async def test_arguments_that_mean_nothing_are_refused(policyd: Policyd, args: dict[str, Any]) -> None:
    def ask() -> None:
        with ControlClient(policyd.config.control_socket("policyd"), DEADLINE_S) as client:
            next(client.follow("events", **args))

    with pytest.raises(OperationFailed):
        await asyncio.to_thread(ask)
    assert (await policyd.ask("status"))["tails"]["open"] == 0


async def test_content_is_for_root_alone() -> None:
    taps = Taps(lambda: None, logging.getLogger("policyd"))
    ops = EventOps(taps, logging.getLogger("policyd"))
    answer = ops.handlers()["events"](Request("events", {"content": True}), Peer(1, 1000, 1000))
    with pytest.raises(OperatorError, match="uid 1000 may not ask for `events with content`"):
        await anext(answer)  # type: ignore[arg-type]  # an op that follows something is a generator
    assert len(taps) == 0
