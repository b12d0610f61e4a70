"""policyd's signs of life: they come from work that was done, and stop when it is stuck."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from execray import watchdog
from execray.config import Config
from policyd.sinks.base import Alert
from policyd.sinks.jsonl import AlertFile
from tests.support.fake_tracerd import FakeTracerd
from tests.support.manager import Manager, service_manager
from tests.support.playbook import Play
from tests.support.policyds import THEFT, policyd_here, private_config, theft

PATIENCE_S = 1.0


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT}) as made:
        yield made


@pytest.fixture
def manager(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with service_manager(config.runtime_dir) as made:
        for name, value in made.environment(PATIENCE_S).items():
            monkeypatch.setenv(name, value)
        yield made


@contextlib.asynccontextmanager
async def beating(tracerd: FakeTracerd) -> AsyncIterator[None]:
    """A tracerd that gives a sign of life ten times a second."""

    async def beat() -> None:
        while True:
            await tracerd.heartbeat()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fed_for(manager: Manager, span_s: float) -> bool:
    return await asyncio.to_thread(manager.fed_for, span_s, PATIENCE_S)


async def test_it_is_fed_while_tracerd_speaks(config: Config, manager: Manager) -> None:
    async with policyd_here(config) as policyd, beating(policyd.tracerd):
        await asyncio.to_thread(manager.await_word, "READY=1")
        assert await fed_for(manager, 3 * PATIENCE_S)


async def test_it_is_fed_while_there_is_no_tracerd(config: Config, manager: Manager) -> None:
    """It can do nothing about that, and must not die of it."""
    async with policyd_here(config, tracerd=FakeTracerd(config.stream_socket), wait=False):
        await asyncio.to_thread(manager.await_word, "READY=1")
        assert await fed_for(manager, 3 * PATIENCE_S)


async def test_it_is_fed_while_tracerd_hangs(config: Config, manager: Manager) -> None:
    async with policyd_here(config):  # connected, and nothing ever comes
        await asyncio.to_thread(manager.await_word, "READY=1")
        assert await fed_for(manager, 3 * PATIENCE_S)


async def test_feeding_stops_when_the_disk_hangs_and_goes_on_with_it(
    config: Config, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = threading.Event()
    write_all = AlertFile.write_all

    def hanging(self: AlertFile, alerts: Sequence[Alert]) -> None:
        assert disk.wait(30)
        write_all(self, alerts)

    monkeypatch.setattr(AlertFile, "write_all", hanging)
    play = Play()
    theft(play)
    async with policyd_here(config) as policyd, beating(policyd.tracerd):
        await asyncio.to_thread(manager.await_word, "READY=1")
        try:
            assert await fed_for(manager, PATIENCE_S)
            await policyd.tracerd.send(play.batch())
            await asyncio.to_thread(manager.await_silence, PATIENCE_S)
        finally:
            disk.set()
        await asyncio.to_thread(manager.await_word, "WATCHDOG=1")
        assert await fed_for(manager, PATIENCE_S)


async def test_status_line_says_how_it_is(config: Config, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STATUS_EVERY_S", 1.5)
    async with policyd_here(config) as policyd, beating(policyd.tracerd):
        line = await asyncio.to_thread(manager.await_word, "STATUS=")
    assert line == "STATUS=1 policy, enforce, 0 events/s, sensor live"
