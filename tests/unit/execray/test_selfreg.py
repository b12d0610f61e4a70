"""Registering with tracerd, and again with its successor."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from execray import selfreg
from execray.control import ControlServer, argument
from execray.errors import OperatorError
from execray.guard import OwnProcesses
from execray.process import start_ticks_of
from execray.selfreg import Registration
from execray.service import Peer
from execray.wire.control import Request
from tests.support.orders import runtime_dir

LOG = logging.getLogger("test")
DEADLINE_S = 5.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        (folder / "tracerd").mkdir()
        yield folder


class FakeTracerd:
    """A control server whose register_self behaves like tracerd's."""

    def __init__(self, path: Path, refuses: bool = False) -> None:
        self.roles: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self.refuses = refuses
        self.server = ControlServer(path, "", {"register_self": self._register}, LOG)

    async def _register(self, request: Request, peer: Peer) -> AsyncGenerator[object, None]:
        self.roles.put_nowait((argument(request, "role", str), peer.pid))
        if self.refuses:
            raise OperatorError("uid may not register")
        yield {"hidden": True}
        await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        await self.server.open()
        task = asyncio.create_task(self.server.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.server.close()


@contextlib.asynccontextmanager
async def registering(registration: Registration) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(registration.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: object) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  # the object's own state, checked each turn
            await asyncio.sleep(0)


async def test_registers_when_tracerd_comes_and_again_when_it_comes_back(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfreg, "RETRY_S", 0.01)
    path = run_dir / "tracerd" / "ctl.sock"
    own = OwnProcesses()
    registration = Registration(path, "enforcer", LOG, own)
    async with registering(registration):
        for _ in range(2):
            tracerd = FakeTracerd(path)
            async with tracerd.running():
                assert await asyncio.wait_for(tracerd.roles.get(), DEADLINE_S) == ("enforcer", os.getpid())
                await until(lambda: registration.registered)
                assert (os.getpid(), start_ticks_of(os.getpid())) in own
            await until(lambda: not registration.registered)
    assert (os.getpid(), start_ticks_of(os.getpid())) in own  # itself, as ever


async def test_refusal_is_told_once_and_tried_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(selfreg, "RETRY_S", 0.01)
    caplog.set_level(logging.INFO)
    tracerd = FakeTracerd(run_dir / "tracerd" / "ctl.sock", refuses=True)
    registration = Registration(run_dir / "tracerd" / "ctl.sock", "policyd", LOG)
    async with tracerd.running(), registering(registration):
        for _ in range(3):
            await asyncio.wait_for(tracerd.roles.get(), DEADLINE_S)
        assert not registration.registered
    told = [record for record in caplog.records if record.getMessage() == "not registered"]
    assert len(told) == 1
