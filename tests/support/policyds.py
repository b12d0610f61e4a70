"""A policyd in this process, on private folders, with a fake tracerd and a fake enforcer around it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from execray.config import Config, PolicydConfig
from execray.control_client import ControlClient
from execray.wire.orders import Mode, Order, Outcome, Result
from policyd.daemon import Daemon
from policyd.enforcer_client import ClientStats
from policyd.store import utc_today
from tests.support.fake_tracerd import DEADLINE_S, FakeTracerd, until
from tests.support.playbook import Play, Proc

THEFT = """
path "theft" within 1m response enforce {
    meta { id: "t-1" severity: high attack: ["T1003.008", "T1041"] description: "Reads hashes, connects." }
    open { path = "/etc/shadow" } as hashes
    connect { } as out
    on match { alert; kill }
}
"""
TOUCH = 'path "touch" { meta { severity: low } open { path startswith "/touched/" } }\n'


class FakeEnforcer:
    """Takes orders down and answers them when it is told to."""

    def __init__(self) -> None:
        self.stats = ClientStats(connected=True)
        self.mode = Mode.ENFORCE
        self.kills: list[Order] = []
        self.kernel_kills: list[Order] = []
        self.captures: list[Order] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.outcome = Result.KILLED
        self.before_answer: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """There is no connection to keep."""
        await asyncio.get_running_loop().create_future()

    async def kill(self, order: Order) -> Outcome:
        """Answers with `outcome`, once `hold` is set."""
        self.kills.append(order)
        self.before_answer()
        await asyncio.wait_for(self.hold.wait(), DEADLINE_S)
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return Outcome(order.order_id, self.outcome, "", "", "enforcer", now_ns, 250_000, dead=True)

    def set_mode(self, mode: Mode) -> None:
        """Takes it down."""
        self.mode = mode

    def spent(self, order: Order) -> None:
        """Takes it down: a kill that was the kernel's."""
        self.kernel_kills.append(order)

    async def capture(self, order: Order) -> Outcome:
        """Says that packets are being recorded."""
        self.captures.append(order)
        return Outcome(order.order_id, Result.CAPTURING, "", "", "enforcer", 1, file="/captures/1.pcap")


@dataclasses.dataclass(slots=True)
class Policyd:
    """One that runs, and the fakes around it."""

    config: Config
    daemon: Daemon
    tracerd: FakeTracerd
    enforcer: FakeEnforcer
    task: asyncio.Task[None]

    @property
    def policies(self) -> Path:
        """Its policy folder."""
        return self.config.policyd.policy_dirs[0]

    def alerts(self) -> list[dict[str, Any]]:
        """What is in the alert file."""
        path = self.config.alerts_file
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    async def alerts_after(self, count: int) -> list[dict[str, Any]]:
        """Waits for that many alerts, and returns all."""
        await until(lambda: len(self.alerts()) >= count, f"{count} alerts")
        return self.alerts()

    async def ask(self, op: str, **args: Any) -> Any:
        """Asks over the real control socket."""

        def call() -> Any:
            with ControlClient(self.config.control_socket("policyd"), DEADLINE_S) as client:
                return client.call(op, **args)

        return await asyncio.to_thread(call)

    async def stop(self) -> None:
        """Ends it in order."""
        self.daemon.stop()
        await asyncio.wait_for(self.task, DEADLINE_S)


@contextlib.contextmanager
def private_config(folder: Path, policies: dict[str, str], mode: str = "enforce", **own: Any) -> Any:
    """Yields a configuration on private folders; sockets lie below /run, since their paths must be short."""
    runtime = Path(tempfile.mkdtemp(prefix="exr-", dir="/run"))
    runtime.chmod(0o755)  # each daemon's folder in it has its own lock
    dirs = folder / "policies"
    dirs.mkdir(exist_ok=True)
    dirs.chmod(0o755)
    for name, text in policies.items():
        write_policy(dirs / name, text)
    try:
        yield Config(
            mode=mode,
            runtime_dir=runtime,
            state_dir=folder / "state",
            group="",
            policyd=PolicydConfig(policy_dirs=(dirs,), sinks=("file",), **own),
        )
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


def write_policy(path: Path, text: str) -> None:
    """Writes a policy file that nobody else may write to, whatever the umask."""
    path.write_text(text)
    path.chmod(0o644)


@contextlib.asynccontextmanager
async def policyd_here(
    config: Config,
    *,
    tracerd: FakeTracerd | None = None,
    wait: bool = True,
    today: Callable[[], datetime.date] = utc_today,
) -> AsyncIterator[Policyd]:
    """A policyd in this process, its control socket open, and subscribed unless wait is False. today: when exceptions end."""
    own = tracerd is None
    tracerd = tracerd or FakeTracerd(config.stream_socket)
    if own:
        await tracerd.start()
    enforcer = FakeEnforcer()
    daemon = Daemon(config, logging.getLogger("policyd"), enforcer, today=today)
    task = asyncio.create_task(daemon.run())
    running = Policyd(config, daemon, tracerd, enforcer, task)
    fake = tracerd
    try:
        await until(lambda: task.done() or config.control_socket("policyd").is_socket(), "the control socket")
        if wait:
            await until(lambda: task.done() or fake.subscribed, "a subscription")
        if task.done():
            task.result()
        yield running
        if not task.done():
            await running.stop()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if own:
            await tracerd.stop()


def theft(play: Play, thief: Proc | None = None) -> Proc:
    """Adds the two events of THEFT."""
    thief = thief or play.process(exe="/tmp/thief", comm="thief", argv=["thief", "--now"])
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3)
    play.event("connect", thief, family=2, dst_ip="192.0.2.1", dst_port=443, ret=0)
    return thief
