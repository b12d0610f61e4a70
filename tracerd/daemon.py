"""Connects tracerd's parts: ring -> decoder -> batches -> stream, and the control socket. The only place that does."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from execray.config import Config, uids_of
from execray.control import ControlServer, Handler, argument
from execray.errors import OperatorError, PeerError
from execray.extensions import Outcome
from execray.gate.encoding import decode_plan
from execray.gate.inline import InlinePlan, decode_inline
from execray.memory import settle_memory
from execray.schema.catalog import EVENTS, Content
from execray.service import Peer, notify, prepare_runtime
from execray.version import VERSION
from execray.watchdog import Watchdog, sign_interval_s
from execray.wire.control import Request
from execray.wire.frames import Settle, Subscribe
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder, is_compiled
from tracerd.heartbeat import PROBED, HeartbeatThread, Liveness, Pulse
from tracerd.inline import LEASE_NS, Limits
from tracerd.losses import Losses
from tracerd.names import Names
from tracerd.objects import OBJECT_DIR
from tracerd.pacing import Pacing
from tracerd.processes import Process, ProcessTable
from tracerd.report import LIFE, Report
from tracerd.sensor import Sensor, own_identity
from tracerd.stream import StreamServer
from tracerd.watched import PathWatch

_LAST_TURNS: Final = 64  # of reading, when we end
_MAX_BATCH_EVENTS: Final = 2048
_MAX_BATCH_BYTES: Final = 512 * 1024
_LEASE_RENEWED_S: Final = 1.0
_CHECK_EVERY: Final = 16  # records between two looks at the clock
#: So few records are sent before their room in the ring is given back; what more takes to encode, a flood may fill the ring in.
_FEW: Final = 16


class Tracerd:
    """One running sensor."""

    def __init__(
        self, config: Config, log: logging.Logger, object_dir: Path = OBJECT_DIR, extensions: Sequence[Outcome] = ()
    ) -> None:
        """Loads everything into the kernel. extensions: what packages add to the catalogue. Raises OperatorError."""
        self._config = config
        self._log = log
        self._extensions = extensions
        own = config.tracerd
        self._started = time.monotonic()
        # the host's mode is the configuration's word here, not the subscriber's
        limits = Limits.of(config) if own.inline == "on" and config.mode == "enforce" else None
        self._sensor = Sensor(counter=own.syscall_counter, object_dir=object_dir, gate=own.gate, kills=limits)
        self._table = ProcessTable(own.process_cache)
        self._builder = BatchBuilder()
        self._decoder = Decoder(self._table, self._builder)
        # Where the service manager waits for signs of life, they come as often as it needs them.
        self._interval_s = min(own.heartbeat_s, sign_interval_s())
        liveness = Liveness(self._decoder.heartbeats, self._interval_s, min(5.0, sign_interval_s()))
        self._pulse = Pulse(self._decoder.heartbeats)
        self._stream = StreamServer(
            {**own_identity(), "version": VERSION},
            self._uids("tracerd.subscribers", own.subscribers),
            own.buffer_mib * 1024 * 1024,
            self._subscribe,
            self._settle,
            self._unsubscribed,
            log,
        )
        self._registrants = self._uids("tracerd.registrants", own.registrants) | {0, os.geteuid()}
        self._orderers = self._uids("enforcer.orderers", config.enforcer.orderers) | {0} if limits else frozenset()
        self._flush_ns = int(own.flush_ms * 1_000_000)
        self._losses = Losses(self._builder)
        self._waiting = False
        self._spared = 0  # the subscriber's pid
        self._drops = 0  # of batches, before sequences were last left to user space
        self._running = True
        self._pacing: Pacing | None = None
        self._failure: asyncio.Future[None] | None = None  # of what the loop calls by itself
        self._paths = PathWatch(self._take_names)
        self._report = Report(
            self._sensor,
            self._decoder,
            self._table,
            liveness,
            self._losses,
            self._stream.retention,
            self._paths,
            counts_calls=own.syscall_counter,
        )
        self._heartbeat = HeartbeatThread(self._interval_s, self._report.probes_needed, self._report.spawn_due)

    def _uids(self, key: str, accounts: tuple[str | int, ...]) -> frozenset[int]:
        uids, missing = uids_of(accounts)
        for name in missing:
            self._log.warning("no such account", extra={"kv": {"key": key, "account": name}})
        return uids

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then takes everything down. Raises OperatorError when it can't start."""
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        config = self._config
        prepare_runtime(config.runtime_dir, config.daemon_dir("tracerd"), config.group)
        handlers: dict[str, Handler] = {
            "status": self._op_status,
            "doctor": self._op_doctor,
            "register_self": self._op_register,
        }
        control = ControlServer(config.control_socket("tracerd"), config.group, handlers, self._log)
        try:
            self._sensor.start(self._table)
            self._hide_self()
            self._paths.start()
            self._pacing = Pacing(self._sensor.ring, self._config.tracerd.rest_ms / 1000, self._readable)
            await self._stream.start(config.stream_socket, config.group)
            await control.open()
            settle_memory()
            notify("READY=1")
            self._log.info("started", extra={"kv": {"processes": len(self._table), "version": VERSION}})
            async with asyncio.TaskGroup() as group:
                watchdog = Watchdog(self._stuck, self._in_words, self._log)
                runs = (control.run(), watchdog.run(), self._keep_lease(), self._fail_with(self._failure))
                tasks = [group.create_task(run) for run in runs]
                await self._beat_until(stop)
                self._drain_up()  # what gathered in the last rest
                for task in tasks:
                    task.cancel()
        finally:
            notify("STOPPING=1")
            self._running = False
            self._heartbeat.stop()
            self._paths.stop()
            if self._pacing is not None:
                self._pacing.close()
            control.close()
            await self._stream.close()
            if self._heartbeat.ident is not None:
                self._heartbeat.join(2 * self._interval_s + 1)
            if self._paths.ident is not None:
                self._paths.join(1.0)  # one that is stuck ends with the process
            self._sensor.close()
            self._log.info("stopped", extra={"kv": {"events": self._decoder.decoded}})

    def _hide_self(self) -> None:
        me = self._table.find(os.getpid())
        if me is not None:
            self._sensor.hide(me.pid, me.start_ns)
            self._sensor.armed.arm(me.pid, me.start_ns)  # for the probes; what else we do is hidden
        self._heartbeat.start()
        self._heartbeat.started_as.wait(5)
        self._sensor.set_heartbeat_thread(os.getpid(), self._heartbeat.tid)

    async def _beat_until(self, stop: asyncio.Event) -> None:
        before, at = 0, time.monotonic()
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._interval_s):
                    await stop.wait()
            except TimeoutError:
                now = time.monotonic()
                self._report.rate = (self._decoder.decoded - before) / (now - at)
                before, at = self._decoder.decoded, now
                # The clock is read before the ring: a heartbeat must not be later than an event still to come.
                beat_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                end = self._sensor.ring.end
                self._drain()
                self._sensor.sweep()
                # a record that is still being written holds up those behind it
                if not self._waiting and self._sensor.ring.position >= end:
                    said = self._report.heartbeat()
                    self._publish()  # the losses that it has found come before what counts them
                    self._stream.heartbeat(beat_ns, said)

    async def _stuck(self) -> str:
        """Returns which program in the kernel gave no record lately, of those that we can ask for one."""
        askable = {event.code for event in EVENTS if event.name in PROBED}
        if self._heartbeat.spawns:
            askable |= {event.code for event in EVENTS if event.name in LIFE}
        signs = {name: codes & askable for name, codes in self._sensor.signs().items()}
        silent = self._pulse.missing({name: codes for name, codes in signs.items() if codes})
        return f"no record from {silent}" if silent else ""

    def _in_words(self) -> str:
        return self._report.in_words(self._stream.subscriber is not None)

    def _take_names(self, names: Names) -> None:
        self._sensor.gate.files.publish(names, partial(setattr, self._decoder, "names"))

    def _subscribe(self, wanted: Subscribe, peer: Peer) -> None:
        known = {event.code for event in EVENTS}
        plan = decode_plan(wanted.plan) if wanted.plan else None
        rules = decode_inline(wanted.inline)
        if rules.rules and self._sensor.inline.limits is not None and peer.uid not in self._orderers:
            raise PeerError(f"uid {peer.uid} may not have the kernel kill: it isn't among enforcer.orderers")
        if wanted.paths != self._paths.paths:
            self._decoder.watch_names(wanted.paths, self._paths.wake)
            self._paths.watch(wanted.paths)
        self._spare(peer.pid)
        refused = self._sensor.want(
            known.intersection(wanted.codes),
            wanted.content,
            wanted.numbers,
            plan=plan,
            followed=wanted.followed,
            inline=rules,
            urgent=wanted.urgent,
            failed=wanted.failed,
        )
        self._sensor.inline.renew()
        self._look_for_kills()
        taken = ",".join(str(kind.name).lower() for kind in Content if kind & wanted.content)
        self._log.info(
            "subscribed",
            extra={"kv": {"peer": peer.pid, "events": len(self._sensor.wanted), "content": taken}},
        )
        for message in refused:
            self._log.error("hook refused", extra={"kv": {"reason": message}})

    def _settle(self, settled: Settle) -> None:
        ends = dict(zip(settled.ends[::2], settled.ends[1::2], strict=True))
        if self._sensor.gate.settle(settled.generation, ends):
            self._log.info("gate settled", extra={"kv": {"count": len(ends)}})

    def _spare(self, pid: int) -> None:
        """Lets the kernel spare the subscriber, and no former one."""
        if pid == self._spared:
            return
        self._sensor.inline.spare_process(pid)
        if self._spared:
            self._sensor.inline.forget_process(self._spared)
        self._spared = pid

    def _unsubscribed(self) -> None:
        """Lets the kernel kill nobody, and forget what has begun: whoever subscribes next may not know of it.

        Nor what hasn't: the gate takes everything to have, until that one has said.
        """
        if self._running:
            self._sensor.inline.end_lease()
            self._sensor.inline.load(InlinePlan())
            self._sensor.gate.unsettle()
            self._look_for_kills()

    def _look_for_kills(self) -> None:
        if self._pacing is not None:
            self._pacing.keep_looking(bool(self._sensor.inline.plan.rules))

    async def _keep_lease(self) -> None:
        """Lets the kernel kill as long as somebody is there who takes its evidence, and gets all of it."""
        inline = self._sensor.inline
        while True:
            await asyncio.sleep(_LEASE_RENEWED_S)
            if not self._stream.listening or self._stream.retention.waiting_s() * 1e9 > LEASE_NS:
                continue
            try:
                if self._drops != (drops := self._stream.retention.drops):
                    inline.forget()
                    self._drops = drops
                inline.renew()
            except OSError as error:
                inline.end_lease()
                self._log.error("kills in the kernel suspended", extra={"kv": {"reason": error}})

    def _hide(self, peer: Peer, *, children: bool) -> Process | None:
        """Drops the events of one of our own; its exact start time comes from the table, once the ring is read up.

        The peer's pid is from when it connected: a process of another account under it is another process.
        """
        self._drain()
        process = self._table.find(peer.pid)
        try:
            if process is None or Path(f"/proc/{peer.pid}").stat().st_uid not in (peer.uid, 0):
                return None
            self._sensor.hide(process.pid, process.start_ns, children=children)
        except OSError as error:
            self._log.error("can't hide", extra={"kv": {"peer": peer.pid, "reason": error}})
            return None
        return process

    def _readable(self) -> None:
        # Without this a ring that takes several turns to empty would be drained twice in one of them.
        if not self._waiting:
            self._drain_or_fail()

    def _drain_again(self) -> None:
        self._waiting = False
        if self._running:
            self._drain_or_fail()

    def _drain_or_fail(self) -> None:
        # Called by the loop, which would log an error and go on: with a sensor that says it lives, and sends nothing.
        try:
            self._drain()
        except Exception as error:  # noqa: BLE001  # run() raises it, where it is seen: nothing is swallowed
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(error)

    @staticmethod
    async def _fail_with(failure: asyncio.Future[None]) -> None:
        await failure

    def _drain_up(self) -> None:
        # Not for ever: others may write as fast as we read.
        for _ in range(_LAST_TURNS):
            self._waiting = False
            self._drain()
            if not self._waiting:
                break
        self._report.note_losses(self._sensor.counters())
        self._publish()

    def _drain(self) -> None:
        """Decodes what is in the ring, for at most flush_ms, and publishes it as one batch."""
        ring, decode, builder = self._sensor.ring, self._decoder.decode, self._builder
        deadline = time.monotonic_ns() + self._flush_ns
        taken = 0
        more = False
        while (record := ring.next()) is not None:
            decode(ring.data, *record)
            taken += 1
            if builder.bytes > _MAX_BATCH_BYTES or (
                taken % _CHECK_EVERY == 0 and (time.monotonic_ns() > deadline or taken >= _MAX_BATCH_EVENTS)
            ):
                more = True
                break
        if taken <= _FEW:
            self._publish()  # first of all, for it may be what a kill waits for
        # Where half of it was free, any record found room; and to ask the kernel takes longer than a few events do.
        crowded = ring.waiting_bytes > ring.size_bytes // 2
        # Read up: what comes from here on gathers, and to the kernel we are behind until that has been read.
        rests = self._pacing is not None and taken > 0 and not more
        ring.release(but_last=rests)
        if self._pacing is not None and rests:
            self._pacing.rest()
        if crowded or self._decoder.refused != self._losses.counts["malformed"]:
            self._report.note_losses(self._sensor.counters())
        self._publish()
        if more and not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().call_soon(self._drain_again)

    def _publish(self) -> None:
        if self._builder.events:
            self._stream.publish(self._builder.take())
            self._report.batches += 1
            if self._drops != self._stream.retention.drops:
                self._sensor.inline.end_lease()  # until sequences that are only known in the kernel are forgotten

    async def _op_status(self, request: Request, peer: Peer) -> dict[str, Any]:
        subscriber = self._stream.subscriber is not None
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "subscriber": subscriber,
            "hidden": self._sensor.hidden(),
            "refused_peers": self._stream.refused_peers,
            "bad_peers": self._stream.bad_peers,
            "decoder": {"compiled": is_compiled()},
            "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            **self._report.statistics(),
        }

    async def _op_doctor(self, request: Request, peer: Peer) -> dict[str, Any]:
        return self._report.doctor(self._extensions)

    async def _op_register(self, request: Request, peer: Peer) -> AsyncGenerator[object, None]:
        """Hides one of ExecRay's own daemons. Only `tracerd.registrants` may: who hides is unseen from then on.

        The connection stays open, so that a daemon notices when tracerd is another one and asks again. When it ends, so does the
        hiding; and so it does when the process executes another program.
        """
        role = argument(request, "role", str)
        if peer.uid not in self._registrants or role not in ("enforcer", "policyd"):
            raise OperatorError(f"uid {peer.uid} may not register as {role}", "add it to tracerd.registrants")
        try:
            self._sensor.inline.spare_process(peer.pid)  # also where it can't be hidden, and until it is
        except OSError as error:
            raise OperatorError(f"the kernel can't spare pid {peer.pid}: {error.strerror}", "try again") from error
        hidden = None
        try:
            hidden = self._hide(peer, children=role == "enforcer")
            kv = {"peer": peer.pid, "uid": peer.uid, "role": role, "hidden": hidden is not None}
            self._log.warning("registered as ours", extra={"kv": kv})
            yield {"hidden": hidden is not None}
            await asyncio.Event().wait()
        finally:
            if self._running:
                self._sensor.inline.forget_process(peer.pid)
            if hidden is not None and self._running:
                self._sensor.show(hidden.pid, hidden.start_ns)
                self._log.warning("no longer ours", extra={"kv": {"peer": peer.pid}})
