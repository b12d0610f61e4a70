"""What the service manager expects, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.watchdog import Watchdog, patience_s, sign_interval_s
from tests.support.manager import Manager, service_manager

LOG = logging.getLogger("enforcer")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with (
        tempfile.TemporaryDirectory(prefix="er", dir="/run" if os.access("/run", os.W_OK) else None) as name,
        service_manager(Path(name)) as made,
    ):
        for key, value in made.environment(0.4).items():
            monkeypatch.setenv(key, value)
        yield made


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("10000000", None, 10.0),
        ("10000000", os.getpid(), 10.0),
        ("10000000", os.getpid() + 1, 0.0),  # meant for the process that started us
        (None, None, 0.0),
        ("soon", None, 0.0),
        ("-5", None, 0.0),
    ],
    ids=["ours", "ours by pid", "another's", "none", "no number", "negative"],
)
def test_patience_is_the_managers(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: int | None, expected: float
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(value))
    assert patience_s() == expected
    assert sign_interval_s() == (expected / 8 if expected else float("inf"))


async def test_signs_stop_while_work_is_stuck_which_is_logged_once_and_go_on_after(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    why = ""

    async def stuck() -> str:
        return why

    watchdog = Watchdog(stuck, lambda: "well", LOG)
    task = asyncio.create_task(watchdog.run())
    try:
        assert await asyncio.to_thread(manager.fed_for, 0.5, 0.4)
        why = "the disk hangs"
        await asyncio.to_thread(manager.await_silence, 0.4)
        why = ""
        assert await asyncio.to_thread(manager.await_word, "WATCHDOG=1")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (record,) = [record for record in caplog.records if record.getMessage() == "no sign of life"]
    assert record.kv == {"reason": "the disk hangs"}  # type: ignore[attr-defined]
    assert "STATUS=well" in manager.said


async def test_nothing_is_done_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    async def stuck() -> str:
        raise AssertionError("asked for nobody")

    await asyncio.wait_for(Watchdog(stuck, lambda: "", LOG).run(), 5)


async def test_manager_that_does_not_read_is_not_waited_for(manager: Manager) -> None:
    """Its queue is full at once; the loop goes on all the same."""

    async def well() -> str:
        return ""

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
        other.setblocking(False)
        for _ in range(100_000):
            other.sendto(b"X=1", os.fspath(manager.address))
        pytest.fail("the queue has no end")
    task = asyncio.create_task(Watchdog(well, lambda: "", LOG).run())
    loop = asyncio.get_running_loop()
    longest = 0.0
    for _ in range(200):
        before = loop.time()
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert longest < 0.9  # notify would wait a second
