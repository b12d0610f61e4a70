"""The enforcer's signs of life: it asks itself, by the way that everybody asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from execray.config import Config
from execray.control import MAX_CONNECTIONS
from tests.support.enforcers import config_in
from tests.support.manager import Manager, service_manager
from tests.support.orders import runtime_dir

PATIENCE_S = 1.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        yield folder


@contextlib.contextmanager
def enforcer(folder: Path) -> Iterator[tuple[Config, Manager, subprocess.Popen[bytes]]]:
    """One that is ready, under a manager that waits a second for signs of life."""
    config = config_in(folder)
    file = folder / "execray.yaml"
    folders = {"runtime_dir": str(config.runtime_dir), "state_dir": str(config.state_dir)}
    file.write_text(yaml.safe_dump({"mode": "enforce", "group": "", **folders}))
    file.chmod(0o644)
    command = [sys.executable, "-m", "enforcer.cli", "--config", os.fspath(file)]
    with service_manager(folder) as manager:
        environment = {**os.environ, **manager.environment(PATIENCE_S)}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            try:
                manager.await_word("READY=1")
                yield config, manager, process
            finally:
                process.kill()


def test_it_is_fed_says_how_it_is_and_that_it_stops(run_dir: Path) -> None:
    with enforcer(run_dir) as (_, manager, process):
        assert manager.fed_for(3 * PATIENCE_S, PATIENCE_S)
        (line, *_) = [word for word in manager.said if word.startswith("STATUS=")]
        assert line.startswith("STATUS=enforce, 0 killed, 30 kills left this minute, ")
        process.send_signal(signal.SIGTERM)
        assert manager.await_word("STOPPING=1")
        assert process.wait(10) == 0


def test_feeding_stops_when_nobody_can_reach_it_any_more_and_the_log_says_so(run_dir: Path) -> None:
    with enforcer(run_dir) as (config, manager, process):
        assert manager.fed_for(PATIENCE_S, PATIENCE_S)
        config.control_socket("enforcer").unlink()
        manager.await_silence(PATIENCE_S)
        process.terminate()
        assert process.stderr is not None
        log = process.stderr.read().decode()
    assert 'event="no sign of life" reason="no answer at ' in log


def test_feeding_stops_when_the_loop_hangs(run_dir: Path) -> None:
    with enforcer(run_dir) as (_, manager, process):
        process.send_signal(signal.SIGSTOP)
        manager.await_silence(PATIENCE_S)
        process.send_signal(signal.SIGCONT)
        assert manager.await_word("WATCHDOG=1")


async def test_peers_who_take_every_connection_do_not_starve_it(run_dir: Path) -> None:
    """Whoever may talk to it could otherwise have it killed."""
    with enforcer(run_dir) as (config, manager, _), contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 4):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(os.fspath(config.control_socket("enforcer")))
        assert await asyncio.to_thread(manager.fed_for, 2 * PATIENCE_S, PATIENCE_S)
