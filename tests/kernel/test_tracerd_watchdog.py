"""tracerd's signs of life: records that came through the kernel's ring, of every program that is attached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from execray import watchdog
from execray.config import Config, TracerdConfig
from execray.schema.catalog import EVENT_BY_NAME
from execray.wire.frames import Hello, Subscribe, encode
from tests.support.manager import Manager, service_manager
from tracerd.daemon import Tracerd

PATIENCE_S = 3.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="execray-", dir="/run") as name:
        yield Path(name)


@pytest.fixture
def manager(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with service_manager(folder) as made:
        for name, value in made.environment(PATIENCE_S).items():
            monkeypatch.setenv(name, value)
        yield made


@contextlib.asynccontextmanager
async def tracerd(folder: Path, manager: Manager, *, heartbeat_s: float = 1.0) -> AsyncIterator[Tracerd]:
    """One in this process, so that a test can take from it what nobody else can."""
    config = Config(runtime_dir=folder, group="", tracerd=TracerdConfig(heartbeat_s=heartbeat_s))
    daemon = Tracerd(config, logging.getLogger("tracerd"))
    task = asyncio.create_task(daemon.run())
    try:
        await asyncio.to_thread(manager.await_word, "READY=1")
        yield daemon
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, 15)
        await asyncio.to_thread(manager.await_word, "STOPPING=1")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def subscriber(folder: Path, *names: str) -> AsyncIterator[None]:
    """Somebody who wants events, and reads whatever comes."""
    reader, writer = await asyncio.open_unix_connection(folder / "tracerd" / "stream.sock")
    codes = tuple(EVENT_BY_NAME[name].code for name in names)
    writer.write(encode(Hello("policyd", {})) + encode(Subscribe(codes, 0)))

    async def read() -> None:
        while await reader.read(1 << 16):
            pass

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()


async def fed_for(manager: Manager, span_s: float) -> bool:
    return await asyncio.to_thread(manager.fed_for, span_s, PATIENCE_S)


async def test_it_is_fed_while_it_waits_for_a_subscriber_and_while_it_has_one(folder: Path, manager: Manager) -> None:
    async with tracerd(folder, manager):
        assert await fed_for(manager, 2 * PATIENCE_S)
        async with subscriber(folder, "open", "write", "exec"):
            assert await fed_for(manager, 2 * PATIENCE_S)
        assert await fed_for(manager, PATIENCE_S)


async def test_it_is_fed_in_time_also_with_a_slow_heartbeat(folder: Path, manager: Manager) -> None:
    async with tracerd(folder, manager, heartbeat_s=30.0), subscriber(folder, "open"):
        assert await fed_for(manager, 3 * PATIENCE_S)


@pytest.mark.parametrize("program", ["er_sys_exit", "er_fork"])
async def test_feeding_stops_when_a_hook_is_gone(folder: Path, manager: Manager, program: str) -> None:
    async with tracerd(folder, manager) as daemon, subscriber(folder, "open"):
        assert await fed_for(manager, PATIENCE_S)
        # Behind its back: it still takes the hook for attached.
        daemon._sensor._program(program).handle.detach()
        await asyncio.to_thread(manager.await_silence, PATIENCE_S)


async def test_status_line_says_how_it_is(folder: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STATUS_EVERY_S", 1.5)
    async with tracerd(folder, manager), subscriber(folder, "open"):
        await asyncio.to_thread(manager.await_word, "STATUS=")
        line = await asyncio.to_thread(manager.await_word, "STATUS=")
    assert line.startswith("STATUS=policyd subscribed, ") and " events/s, 4 hooks live, nothing lost" in line
