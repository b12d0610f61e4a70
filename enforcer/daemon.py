"""Connects the enforcer's parts and runs them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
import time

from enforcer.audit import AuditLog
from enforcer.capture import Capturer
from enforcer.server import OrderServer
from execray.config import Config, uids_of
from execray.control import ControlServer, asked_mode, no_answer
from execray.guard import Budget, OwnProcesses, settings_of
from execray.killer import Killer
from execray.memory import settle_memory
from execray.scheduling import take_short_turns
from execray.selfreg import Registration
from execray.service import Peer, notify, prepare_dir, prepare_runtime
from execray.version import VERSION
from execray.watchdog import Watchdog, sign_interval_s
from execray.wire.control import Request
from execray.wire.orders import Mode


class Enforcer:
    """The daemon: an order server, a control server, and the registration with tracerd."""

    def __init__(self, config: Config, log: logging.Logger) -> None:
        own = OwnProcesses()
        self._config = config
        self._log = log
        self._began = time.monotonic()
        self._audit = AuditLog(config.audit_log, log)
        self._budget = Budget(config.enforcer.kills_per_minute, config.enforcer.kills_per_minute_per_policy)
        self._killer = Killer(settings_of(config), self._budget, own, "enforcer")
        self._capturer = Capturer(config.enforcer, config.capture_dir, own, log)
        orderers, missing = uids_of(config.enforcer.orderers)
        for name in missing:
            log.warning("no such account", extra={"kv": {"key": "enforcer.orderers", "account": name}})
        self._orders = OrderServer(
            config.order_socket,
            config.group,
            orderers,
            self._killer,
            self._capturer,
            self._audit,
            own,
            log,
        )
        handlers = {"status": self._status, "mode": self._mode}
        self._control = ControlServer(config.control_socket("enforcer"), config.group, handlers, log)
        self._registration = Registration(config.control_socket("tracerd"), "enforcer", log, own)

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then answers what is under way and ends. Raises OperatorError."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        config = self._config
        prepare_runtime(config.runtime_dir, config.daemon_dir("enforcer"), config.group)
        prepare_dir(config.audit_log.parent, 0o700)
        prepare_dir(config.capture_dir, 0o700)
        try:
            await self._orders.open()
            await self._control.open()
            settle_memory()
            notify("READY=1")
            self._log.info(
                "started",
                extra={"kv": {"version": VERSION, "mode": config.mode, "tcpdump": self._capturer.tcpdump}},
            )
            await self._serve_until(stop)
        finally:
            self._control.close()
            self._orders.close()
            self._audit.close()
            self._log.info("stopped", extra={"kv": {"killed": self._killer.results["killed"]}})

    async def _serve_until(self, stop: asyncio.Event) -> None:
        watchdog = Watchdog(self._stuck, self._in_words, self._log)
        async with asyncio.TaskGroup() as group:
            serving = [
                group.create_task(service.run())
                for service in (self._orders, self._control, self._registration, watchdog)
            ]
            await stop.wait()
            notify("STOPPING=1")
            await self._orders.drain()
            for task in serving:
                task.cancel()

    async def _stuck(self) -> str:
        """Asks ourselves, the way anybody asks: through the socket, the listener and the loop that orders go through."""
        return await no_answer(self._config.control_socket("enforcer"), min(2.0, sign_interval_s()))

    def _in_words(self) -> str:
        words = [
            self._killer.settings.host_mode.value,
            f"{self._killer.results['killed']} killed",
            f"{self._budget.left} kills left this minute",
            "can capture" if self._capturer.tcpdump else "no tcpdump: no captures",
        ]
        return ", ".join(words)

    async def _mode(self, request: Request, peer: Peer) -> object:
        mode = asked_mode(request, peer, self._log)
        self._killer.settings = dataclasses.replace(self._killer.settings, host_mode=Mode(mode))
        return {"mode": mode}

    async def _status(self, _request: Request, _peer: Peer) -> object:
        peers = self._orders.stats
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._began, 3),
            "mode": self._killer.settings.host_mode.value,
            "orders": {"taken": self._orders.actions.total(), **self._killer.results},
            "killed": self._killer.results["killed"],
            "refused": dict(self._killer.refusals),
            "captures": {"running": self._capturer.running, "done": self._capturer.done},
            "peers": {
                "open": peers.open,
                "accepted": peers.accepted,
                "refused": peers.refused,
                "over_limit": peers.over_limit,
                "bad": peers.bad,
            },
            "undelivered": self._orders.undelivered,
            "audit_lost": self._audit.lost,
            "budget_left": self._budget.left,
            "tcpdump": self._capturer.tcpdump,
            "tracerd": {"registered": self._registration.registered},
        }


def run(config: Config, log: logging.Logger) -> None:
    """Runs the daemon in a loop of its own. Raises OperatorError."""
    if sys.version_info < (3, 12):
        # Later ones do so by themselves: reap children in the loop, not in a thread that races with stop_child.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    take_short_turns()
    asyncio.run(Enforcer(config, log).run())
