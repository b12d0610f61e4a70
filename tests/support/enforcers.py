"""Enforcers for tests: one in this process, one as a process of its own, both on private folders."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from enforcer.daemon import Enforcer
from execray.config import Config, EnforcerConfig, PolicydConfig
from execray.control_client import ControlClient
from execray.errors import OperatorError
from execray.wire.orders import Order, Outcome, decode_outcome, encode_order

DEADLINE_S = 10.0


def config_in(run_dir: Path, *, mode: str = "enforce", timeout_ms: int = 1000, **enforcer: Any) -> Config:
    """A configuration whose sockets and state lie in run_dir."""
    return Config(
        mode=mode,
        runtime_dir=run_dir / "r",
        state_dir=run_dir / "s",
        group="",
        enforcer=EnforcerConfig(**enforcer),
        policyd=PolicydConfig(order_timeout_ms=timeout_ms),
    )


@contextlib.asynccontextmanager
async def enforcer_here(config: Config) -> AsyncIterator[asyncio.Task[None]]:
    """An enforcer in this process, stopped the way SIGTERM stops it."""
    daemon = Enforcer(config, logging.getLogger("enforcer"))
    task = asyncio.create_task(daemon.run())
    try:
        await asyncio.to_thread(wait_for_socket, config.order_socket)
        yield task
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, DEADLINE_S)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def wait_for_socket(path: Path) -> None:
    """Waits until something listens. Raises AssertionError after the deadline."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        if path.is_socket():
            return
        time.sleep(0.005)
    raise AssertionError(f"nothing listens on {path}")


class EnforcerProcess:
    """An enforcer as its users run it."""

    def __init__(self, config: Config, folder: Path) -> None:
        """Only mode, folders and the enforcer's numbers of the configuration are passed on."""
        self.config = config
        numbers = {"kills_per_minute": config.enforcer.kills_per_minute}
        file = folder / "execray.yaml"
        file.write_text(json.dumps({"group": config.group, "enforcer": numbers}))
        self._command = [sys.executable, "-m", "enforcer.cli", "--config", os.fspath(file), "--mode", config.mode]
        self._command += ["--runtime-dir", os.fspath(config.runtime_dir), "--state-dir", os.fspath(config.state_dir)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns when it takes orders."""
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        until = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OperatorError), ControlClient(self.config.control_socket("enforcer")) as client:
                client.call("version")
                return
            assert self.process.poll() is None and time.monotonic() < until, "the enforcer doesn't start"
            time.sleep(0.005)

    def run_to_the_end(self) -> tuple[int, str]:
        """Starts one that is expected to give up, and returns its exit code and how the error begins."""
        done = subprocess.run(self._command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return done.returncode, " ".join(errors[0].split()[:5])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops it by a signal and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def enforcer_process(config: Config, folder: Path) -> Iterator[EnforcerProcess]:
    """An enforcer that runs; ended at the end in any case."""
    enforcer = EnforcerProcess(config, folder)
    try:
        enforcer.start()
        yield enforcer
    finally:
        if enforcer.process is not None:
            enforcer.process.kill()
            enforcer.process.wait(DEADLINE_S)


class Orderer:
    """A bare connection to the order socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *orders: Order) -> None:
        """Sends orders in one piece."""
        self.writer.write(b"".join(encode_order(order) for order in orders))
        await self.writer.drain()

    async def outcome(self) -> Outcome:
        """Returns the next outcome."""
        return decode_outcome(await asyncio.wait_for(self.reader.readline(), DEADLINE_S))

    async def ask(self, order: Order) -> Outcome:
        """Sends one order and returns the next outcome."""
        await self.send(order)
        return await self.outcome()

    async def lines(self) -> list[dict[str, Any]]:
        """Returns everything up to the end of the connection."""
        raw = await asyncio.wait_for(self.reader.read(), DEADLINE_S)
        return [json.loads(line) for line in raw.splitlines()]


@contextlib.asynccontextmanager
async def connection(config: Config) -> AsyncIterator[Orderer]:
    """A connection to the enforcer's order socket."""
    reader, writer = await asyncio.open_unix_connection(config.order_socket, limit=1 << 20)
    try:
        yield Orderer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def status_of(config: Config) -> dict[str, Any]:
    """Returns what the enforcer's `status` says."""

    def ask() -> Any:
        with ControlClient(config.control_socket("enforcer"), DEADLINE_S) as client:
            return client.call("status")

    status: dict[str, Any] = await asyncio.to_thread(ask)
    return status


def audit_lines(config: Config) -> list[dict[str, Any]]:
    """Returns the lines of the audit log."""
    return [json.loads(line) for line in config.audit_log.read_bytes().splitlines()]
