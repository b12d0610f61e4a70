"""policyd's parts, and how they are connected: the only place that knows them all."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import pwd
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from execray.config import Config
from execray.control import ControlServer
from execray.errors import OperatorError
from execray.gate.encoding import digest_of
from execray.gate.inline import tag_of
from execray.guard import OwnProcesses
from execray.memory import Collector
from execray.process import boot_id
from execray.schema.catalog import Content
from execray.selfreg import Registration
from execray.service import notify, prepare_dir, prepare_runtime
from execray.version import VERSION
from execray.watchdog import Watchdog, patience_s
from execray.wire.frames import Batch, Heartbeat, Subscribe
from execray.wire.orders import Outcome
from policyd.alerts import Origin
from policyd.control_ops import ControlOps, Parts
from policyd.engine.machine import Machine
from policyd.engine.outputs import SensorLoss
from policyd.gate.exact import InlineBuilt
from policyd.gate.kills import KernelKills
from policyd.gate.known import EXEC
from policyd.gate.plan import build_plan
from policyd.gate.watch import GateWatch
from policyd.gate.ways import is_gated
from policyd.plugins import Plugins
from policyd.privileges import become
from policyd.pulse import Pulse
from policyd.reloading import RELOAD_TIMEOUT_S, KernelSide, Reloader
from policyd.respond import Enforcer, Pending, Responder
from policyd.sinks.base import Sink
from policyd.sinks.fanout import Fanout
from policyd.sinks.journal import JournalSink
from policyd.sinks.jsonl import AlertFile
from policyd.sinks.stdout import StdoutSink
from policyd.store import PolicyStore, utc_today
from policyd.stream_client import StreamClient
from policyd.tap_filter import SECRETS, without_content
from policyd.taps import Taps
from policyd.writer import Followers, Item, Writer

TICK_S: Final = 1.0
DRAIN_S: Final = 3.0


class Daemon:
    """One policyd. `run` is all there is to call; it is the stream's receiver too."""

    def __init__(
        self,
        config: Config,
        log: logging.Logger,
        enforcer: Enforcer,
        own: OwnProcesses | None = None,
        user: pwd.struct_passwd | None = None,
        today: Callable[[], datetime.date] = utc_today,
    ) -> None:
        """enforcer: who carries out orders. own: takes in tracerd's process, which the enforcer's fallback then spares.

        user: the account to change to once what only root may open is open. today: by which exceptions in policies end.
        """
        self._config = config
        self._registration = Registration(config.control_socket("tracerd"), "policyd", log, own)
        self._log = log
        self._user = user
        self._stop = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._rate = 0.0
        self._collector = Collector()
        self._machine = Machine()
        self._needs = self._machine.needs()
        self._gate = build_plan([])
        self._gate_watch = GateWatch(log)
        self._plan_sent = ""
        self._inline = InlineBuilt()
        self._kernel_kills = KernelKills(log)
        uid = os.geteuid() if user is None else user.pw_uid
        self._store = PolicyStore(
            config.policyd.policy_dirs,
            frozenset({0, uid}),
            disabled=frozenset(config.policyd.disabled),
            plugins=frozenset(config.policyd.actions),
            budget_bytes=config.policyd.state_budget_mib << 20,
            today=today,
        )
        self._stream = StreamClient(config.stream_socket, self, config.tracerd.heartbeat_s, log)
        self._taps = Taps(self._stream.resubscribe, log)
        self._reloader = Reloader(self._machine, self._store, self._loaded, log)
        self.followers = Followers()
        self._fanout = Fanout(log)
        self._plugins = Plugins(config.policyd, log)
        limit, per_s = config.policyd.alert_throttle
        self._responder = Responder(
            enforcer,
            self._spawn,
            self._fanout.holds,
            log,
            host_mode=config.mode,
            order_timeout_s=config.policyd.order_timeout_ms / 1000,
            default_throttle=(limit, int(per_s * 1e9)),
            tell=self._plugins.tell,
        )
        self._writer = Writer(self._responder, self._fanout, self._stream.acknowledge, self.followers)
        self._pulse = Pulse(
            self._stream,
            self._writer,
            heartbeat_s=config.tracerd.heartbeat_s,
            patience_s=patience_s(),
            outcome_s=self._responder.outcome_bound_s,
        )

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then writes what is under way and ends. Raises OperatorError when it can't start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        config = self._config
        folder = config.daemon_dir("policyd")
        prepare_runtime(config.runtime_dir, folder, config.group, self._user)
        prepare_dir(config.alerts_file.parent, 0o750, user=self._user)
        if self._user is not None:
            become(self._user)
            if not os.access(folder, os.X_OK):
                raise OperatorError(f"user `{self._user.pw_name}` can't enter {folder}", "is a folder above it closed?")
        parts = Parts(
            self._machine,
            self._store,
            self._stream,
            self._responder,
            self._fanout,
            self.followers,
            self._plugins,
            self._taps,
            lambda: self._gate_watch.status(self._gate),
            lambda: self._kernel_kills.status(self._inline),
        )
        ops = ControlOps(parts, config, reloader=self._reloader, log=self._log, rate=lambda: self._rate)
        path = config.control_socket("policyd")
        control = ControlServer(path, config.group, ops.handlers(), self._log, slow={"reload": RELOAD_TIMEOUT_S})
        await control.open()
        try:
            self._plugins.start()  # makes threads, as the next line does: after become
            self._fanout.open(self._open_file(), _other_sinks(config.policyd.sinks), self._plugins.sinks)
            await self._first_load()
            self._collector.start()
            await self._serve(control)
        finally:
            self._collector.stop()
            control.close()
            await asyncio.gather(self._fanout.close(), self._plugins.close())
            self._log.info("stopped", extra={"kv": {"events": self._stream.stats.events}})

    def stop(self) -> None:
        """Makes run() write what is under way and return; what SIGTERM does."""
        self._stop.set()

    @property
    def live(self) -> bool:
        """Whether the sensor gave a sign of life lately."""
        return self._stream.live

    def sink_status(self) -> dict[str, object]:
        """Returns what became of the alerts in each sink."""
        return self._fanout.status()

    def plugin_status(self) -> list[dict[str, object]]:
        """Returns what became of the plug-ins."""
        return self._plugins.status()

    async def _serve(self, control: ControlServer) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._group:
            start = self._group.create_task
            reading = start(self._stream.run())
            tasks = [
                start(control.run()),
                start(self._writer.run()),
                start(self._tick()),
                start(self._responder.enforcer.run()),
                start(self._registration.run()),
                start(Watchdog(self._stuck, self._in_words, self._log).run()),
            ]
            loop.add_signal_handler(signal.SIGHUP, self._hangup)
            notify("READY=1")
            self._log.info(
                "started",
                extra={
                    "kv": {"version": VERSION, "mode": self._responder.host_mode, "policies": len(self._store.policies)}
                },
            )
            await self._stop.wait()
            notify("STOPPING=1")
            reading.cancel()
            await asyncio.wait({reading})
            await self._drain()
            for task in tasks:
                task.cancel()

    async def _drain(self) -> None:
        """Writes what was found before the end. What does not get done, tracerd sends again to the next of us."""
        await self._responder.settle(DRAIN_S)
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._writer.put(Item(self._responder.rest_of_losses(self._origin())))
                await self._writer.drain(DRAIN_S)
        except TimeoutError:
            self._log.error("alerts not written in time")

    # --- the stream's receiver ----------------------------------------------------------------------------------------

    def subscription(self) -> Subscribe:
        """What the loaded policies need, and whoever follows events."""
        needs, taps = self._needs, self._taps
        codes, numbers = (needs.codes | taps.codes) - self._stream.missing.keys(), sorted(needs.numbers)
        self._plan_sent = digest_of(self._gate.raw)
        return Subscribe(
            tuple(sorted(codes)),
            int(needs.content | taps.content),
            tuple(numbers),
            plan=self._gate.raw,
            paths=needs.paths,
            followed=tuple(sorted(filter(is_gated, codes & taps.codes))),
            inline=self._inline.raw if self._responder.host_mode == "enforce" else b"",
            urgent=tuple(sorted(needs.urgent)),
            failed=self._gate.failed_execs or EXEC in taps.codes,
        )

    def batch(self, batch: Batch, stream_id: str) -> bool:
        """Feeds the engine, orders what it calls for at once, and queues the alerts."""
        hidden = self._taps.content & SECRETS & ~self._needs.content if self._taps else Content(0)
        outputs = self._machine.feed(without_content(batch, hidden) if hidden else batch)
        if self._config.tracerd.inline == "on":
            outputs = [*outputs, *self._kernel_kills.look(batch, outputs, self._store.generation)]
        pending: Sequence[Pending] = ()
        if outputs:
            pending = self._responder.respond(outputs, self._origin())
            self._gate_watch.look(outputs)
        self._taps.offer(batch, self._needs, losses=any(isinstance(found, SensorLoss) for found in outputs))
        return self._writer.offer(Item(pending, stream_id, batch.seq))

    async def room(self) -> None:
        """Waits while too many alerts are on their way to the disk."""
        await self._writer.room()

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        """Moves the engine's clock while nothing happens."""
        self._machine.advance_clock(heartbeat.time_ns)
        self._settle(heartbeat)
        self._taps.heartbeat(heartbeat.stats, self._needs)

    def _settle(self, heartbeat: Heartbeat) -> None:
        """Tells the gate what has begun, where it has got our plan since and takes everything to have.

        The heartbeat comes behind all that was recorded before the plan, and with the engine's state as it is now.
        """
        match heartbeat.stats.get("gate"):
            case {"plan": self._plan_sent, "settled": False, "generation": int(generation)}:
                self._stream.settle(generation, self._gate.ends(self._machine.under_way(), self._machine.now_ns))

    def _origin(self) -> Origin:
        return Origin(boot_id(), self._stream.position.stream_id)

    def _spawn(self, call: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        assert self._group is not None
        return self._group.create_task(call)

    async def _tick(self) -> None:
        before = 0
        ending: asyncio.Task[None] | None = None
        while True:
            await asyncio.sleep(TICK_S)
            events = self._stream.stats.events
            if not self._reloader.under_way:  # what is being built is much that is young, and no garbage
                self._collector.look(events - before)
            self._rate, before = (events - before) / TICK_S, events
            due = self._responder.due_losses(time.clock_gettime_ns(time.CLOCK_BOOTTIME), self._origin())
            if due:
                await self._writer.put(Item(due))
            if self._store.has_ended() and (ending is None or ending.done()):
                assert self._group is not None
                ending = self._group.create_task(self._reloader.end_exceptions())

    async def _stuck(self) -> str:
        return self._pulse.missing()

    def _in_words(self) -> str:
        sensor = "sensor live" if self.live else "sensor silent" if self._stream.link.connected else "no sensor"
        count = len(self._store.policies)
        policies = "1 policy" if count == 1 else f"{count} policies"
        return f"{policies}, {self._responder.host_mode}, {self._rate:.0f} events/s, {sensor}"

    # --- policies -----------------------------------------------------------------------------------------------------

    async def _first_load(self) -> None:
        # With a mistake in some file the daemon still starts, without policies: it can then say so, and be reloaded.
        await self._reloader.reload()

    def _loaded(self, kernel: KernelSide) -> None:
        self._needs = self._machine.needs()
        if self._needs.left_out:
            kv = {"paths": len(self._needs.paths), "left_out": self._needs.left_out}
            self._log.warning("paths matched by name only", extra={"kv": kv})
        self._gate, self._inline = kernel.gate, kernel.inline
        tags = {policy.tag for policy in kernel.inline.plan.policies}
        self._kernel_kills.loaded(policy for policy in self._store.policies if tag_of(policy.hash) in tags)
        if self._inline.left_out and self._config.tracerd.inline == "on":
            kv = {"policies": len(self._inline.plan.policies), "left_out": len(self._inline.left_out)}
            self._log.warning("no room for policies to kill in the kernel", extra={"kv": kv})
        self._stream.resubscribe()

    def _hangup(self) -> None:
        if self._group is not None:
            self._group.create_task(self._reloader.hang_up())

    def _open_file(self) -> AlertFile | None:
        own = self._config.policyd
        if "file" not in own.sinks:
            return None
        path = self._config.alerts_file
        try:
            return AlertFile(path, max_bytes=own.alerts_max_mib * 1024 * 1024, keep=own.alerts_keep)
        except OSError as error:
            raise OperatorError(
                f"can't write alerts to {path}: {error.strerror}", "check its owner and mode"
            ) from error


def _other_sinks(names: Sequence[str]) -> list[Sink]:
    makers = {"stdout": StdoutSink, "journal": JournalSink}
    return [makers[name]() for name in dict.fromkeys(names) if name in makers]
