"""From what the engine found to what is done about it: kill orders at once, captures, and alerts in the making.

Order matters here. A kill order leaves before anything is built or written; the alert waits for its outcome, within a bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from execray.process import ProcessKey
from execray.schema.event import Event, actor_get, text
from execray.wire.orders import MAX_FLOWS, MAX_POLICY_CHARS, Action, CaptureSpec, Flow, Mode, Order, Outcome, Result
from policyd.alerts import Json, Origin, finding_alert, kill_json, loss_alert
from policyd.enforcer_client import ClientStats
from policyd.engine.outputs import Excepted, Finding, Match, Output, SensorLoss, StepDone
from policyd.gate.kills import killed_in_kernel
from policyd.lag import Lag
from policyd.plan import DEFAULT_THROTTLE, Admission, Plan, plan_of
from policyd.plugin_requests import Notices, Tell
from policyd.program import Response
from policyd.throttle import LossSum, LossSummary

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, Outcome]], "asyncio.Task[Outcome]"]

#: Beyond the enforcer's bound: the direct kill, and the wait for the process's end.
OUTCOME_GRACE_S: Final = 0.9
MAX_ORDERS: Final = 256  # under way at once
MAX_CAPTURES: Final = 1024  # remembered for the alerts of the matches that follow
_MAX_EXE_BYTES: Final = 4096
KERNEL: Final = "kernel"  # by whom, where it was the kernel


class Enforcer(Protocol):
    """Who carries out orders. Neither kill nor capture raises for an enforcer that is away: the outcome says so."""

    @property
    def stats(self) -> ClientStats:
        """The connection, and what was sent over it or done without it."""
        ...

    async def run(self) -> None:
        """Stays connected until cancelled."""
        ...

    def kill(self, order: Order) -> Coroutine[Any, Any, Outcome]:
        """Kills, through the enforcer or directly: at once, before it returns. The coroutine says what came of it."""
        ...

    async def capture(self, order: Order) -> Outcome:
        """Begins a capture, and returns when packets are being recorded, or says why not."""
        ...

    def set_mode(self, mode: Mode) -> None:
        """Takes the host's mode, for what it does without the enforcer."""
        ...

    def spent(self, order: Order) -> None:
        """Counts a kill that somebody else did, and that this order would have asked for, against the budget."""
        ...


@dataclass(slots=True)
class Pending:
    """An alert that waits for the outcome of what was ordered."""

    build: Callable[[Json], Json]
    event_ns: int = 0
    kill: asyncio.Task[Outcome] | None = None
    killed: Json = field(default_factory=dict)  # what is known of the kill without waiting
    capture: asyncio.Task[Outcome] | None = None
    told: Sequence[Json] = ()  # what became of each `notify`
    deadline: float = 0.0  # of the loop's clock

    @property
    def ready(self) -> bool:
        """Whether the alert can be built without waiting."""
        return self.kill is None or self.kill.done()


@dataclass(slots=True)
class ResponseStats:
    """Counts since start."""

    matches: int = 0
    excepted: int = 0  # matches that an exception held back
    raised: int = 0
    duplicates: int = 0  # on file already: the batch came again after a restart
    sensor_loss: int = 0
    kills: dict[str, int] = field(default_factory=dict)  # by result
    captures: dict[str, int] = field(default_factory=dict)


class Responder:
    """Decides and orders; keeps the throttles. Does no file or socket work of its own."""

    def __init__(
        self,
        enforcer: Enforcer,
        spawn: Spawn,
        on_file: Callable[[str], bool],
        log: logging.Logger,
        *,
        host_mode: str,
        order_timeout_s: float,
        default_throttle: tuple[int, int] = DEFAULT_THROTTLE,
        tell: Tell | None = None,
    ) -> None:
        """on_file: whether an alert of that id was written before. default_throttle: for policies that name none, N per ns.

        tell: hands on what policies notify; None: no plug-in is allowed on this host.
        """
        self.stats = ResponseStats()
        self.admission = Admission(default_throttle)
        self.losses = LossSummary()
        self.lag = Lag()
        self.enforcer = enforcer
        self._spawn = spawn
        self._on_file = on_file
        self._log = log
        self._mode_now = host_mode
        self.outcome_bound_s = order_timeout_s + OUTCOME_GRACE_S  # the longest that an alert waits for its outcomes
        self.notices = Notices(tell, host_mode)
        self._orders: set[asyncio.Task[Outcome]] = set()
        self._kills: dict[Hashable, asyncio.Task[Outcome]] = {}  # under way, by process and policy
        self._captures: OrderedDict[Hashable, tuple[int, asyncio.Task[Outcome]]] = OrderedDict()

    @property
    def host_mode(self) -> str:
        """`audit` or `enforce`: how far any policy may go on this host."""
        return self._mode_now

    @host_mode.setter
    def host_mode(self, mode: str) -> None:
        self._mode_now = self.notices.host_mode = mode
        self.enforcer.set_mode(Mode(mode))

    def respond(self, outputs: Sequence[Output], origin: Origin) -> list[Pending]:
        """Sends the orders that the outputs call for, and returns the alerts to be, in order."""
        pending = []
        for output in outputs:
            match output:
                case SensorLoss():
                    made = self._loss(output, origin)
                case Excepted():
                    self.stats.excepted += 1
                    continue
                case _:
                    made = self._finding(output, origin)
            if made is not None:
                pending.append(made)
        self.notices.send()  # only now: what a plug-in is told keeps no order waiting
        return pending

    def due_losses(self, now_ns: int, origin: Origin) -> list[Pending]:
        """Returns the alerts for losses that were summed up long enough."""
        return [self._loss_pending(loss, origin) for loss in self.losses.due(now_ns)]

    def rest_of_losses(self, origin: Origin) -> list[Pending]:
        """Returns the alerts for all losses not told yet, before the end."""
        return [self._loss_pending(loss, origin) for loss in self.losses.rest()]

    async def finish(self, pending: Pending) -> Json:
        """Waits for the outcome, until the bound, and returns the alert."""
        action: Json = {}
        if pending.kill is not None:
            left = pending.deadline - asyncio.get_running_loop().time()
            await asyncio.wait({pending.kill}, timeout=max(0.0, left))
            if pending.kill.done():
                pending.killed = _outcome_json(pending.kill.result(), pending.event_ns)
            else:
                reason = f"no outcome within {self.outcome_bound_s:g} s"
                pending.killed = kill_json("pending", reason=reason)
        if pending.killed:
            action["kill"] = pending.killed
        if pending.capture is not None:
            done = pending.capture.done()
            action["capture"] = _outcome_json(pending.capture.result(), None) if done else {"result": "ordered"}
        if pending.told:
            action["notify"] = list(pending.told)
        self.stats.raised += 1
        return pending.build(action)

    async def settle(self, timeout_s: float) -> None:
        """Waits until no order is under way, at most that long."""
        if self._orders:
            await asyncio.wait(self._orders, timeout=timeout_s)

    def _loss(self, loss: SensorLoss, origin: Origin) -> Pending | None:
        if self._on_file(loss.id):
            self.stats.duplicates += 1
            return None
        told = self.losses.add(loss.where, loss.count, loss.since_ns, loss.time_ns, loss.id)
        return None if told is None else self._loss_pending(told, origin)

    def _loss_pending(self, loss: LossSum, origin: Origin) -> Pending:
        self.stats.sensor_loss += 1
        return Pending(lambda _action: loss_alert(loss, origin, host_mode=self._mode_now))

    def _finding(self, finding: Match | StepDone, origin: Origin) -> Pending | None:
        plan, known = plan_of(finding), self._on_file(finding.id)
        found_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        pending = Pending(lambda _action: {}, finding.event.time_ns)
        if not known:
            if plan.kill:
                self._kill(finding, origin, pending)
            pending.capture = self._capture(finding, plan, origin)
        if isinstance(finding, Match):
            self.stats.matches += 1
            if not known:
                self.lag.note(finding.event.time_ns, found_ns)
        if plan.log:
            pid, start_ns = finding.actor.id
            kv = {"policy": finding.policy.name, "pid": pid, "start_ns": start_ns}
            self._log.info("policy log", extra={"kv": kv})
        if plan.severity is None and not plan.notices:
            return None
        # A repeated one goes through the throttle too: what it held back the first time is then held back again.
        held = self.admission.admit(finding, plan)
        if known:
            self.stats.duplicates += 1
            return None
        if held is None:
            return None
        severity = finding.policy.meta.severity if plan.severity is None else plan.severity
        pending.told = self.notices.add(plan.notices, finding, origin, severity, held)
        if plan.severity is None:
            return None
        pending.build = lambda action: finding_alert(
            finding, origin, severity, host_mode=self._mode_now, suppressed=held, action=action
        )
        return pending

    def _kill(self, finding: Finding, origin: Origin, pending: Pending) -> None:
        audit = [
            words
            for words, is_audit in (
                ("the host's mode is audit", self._mode_now != "enforce"),
                ("the policy's response is audit", finding.policy.response is not Response.ENFORCE),
            )
            if is_audit
        ]
        if killed_in_kernel(finding.event, finding.policy):
            pending.killed = kill_json(Result.KILLED.value, by=KERNEL)
            self.enforcer.spent(_order(finding, origin, Action.KILL, Mode.ENFORCE))
            kv = {"order_id": f"{finding.id}-{Action.KILL.value}", "result": "killed", "by": KERNEL, "reason": None}
            self._log.warning("kill", extra={"kv": kv})
        elif finding.partial_evidence:
            pending.killed = kill_json("withheld", reason="the match rests on a value captured only in part")
        elif audit:
            pending.killed = kill_json(Result.WOULD_KILL.value, reason=", ".join(audit))
        elif (under_way := self._kills.get(victim := (finding.actor.id, finding.policy.name))) is not None:
            # One process that matches again and again before it is gone must not use up what others need.
            pending.kill = under_way
            pending.deadline = asyncio.get_running_loop().time() + self.outcome_bound_s
            return
        elif len(self._orders) >= MAX_ORDERS:
            pending.killed = kill_json(Result.FAILED.value, reason=f"{MAX_ORDERS} orders are under way")
            self._count_kill(Result.FAILED.value)
        else:
            pending.kill = self._order(self.enforcer.kill(_order(finding, origin, Action.KILL, Mode.ENFORCE)))
            pending.deadline = asyncio.get_running_loop().time() + self.outcome_bound_s
            self._kills[victim] = pending.kill
            pending.kill.add_done_callback(lambda _: self._kills.pop(victim, None))
            pending.kill.add_done_callback(self._kill_done)
            return
        self._count_kill(pending.killed["result"])

    def _order(self, call: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        task = self._spawn(call)
        self._orders.add(task)
        task.add_done_callback(self._orders.discard)
        return task

    def _kill_done(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled() or task.exception() is not None:
            return  # the task group that it runs in deals with that
        outcome = task.result()
        self._count_kill(outcome.result.value)
        reason = outcome.text or None
        kv = {"order_id": outcome.order_id, "result": outcome.result.value, "by": outcome.by, "reason": reason}
        self._log.warning("kill", extra={"kv": kv})

    def _count_kill(self, result: str) -> None:
        self.stats.kills[result] = self.stats.kills.get(result, 0) + 1

    def _capture(self, finding: Finding, plan: Plan, origin: Origin) -> asyncio.Task[Outcome] | None:
        """Begins a capture where one is asked for; else returns the one that an earlier step of the sequence began."""
        key = (finding.policy.hash, finding.key)
        if plan.capture is None:
            begun_ns, task = self._captures.get(key, (0, None))
            return task if task is not None and begun_ns >= finding.started_ns else None
        if len(self._orders) >= MAX_ORDERS:
            self.stats.captures["failed"] = self.stats.captures.get("failed", 0) + 1
            return None
        spec = CaptureSpec(plan.capture.duration_ns / 1e9, plan.capture.max_bytes, tuple(_flows(finding)))
        order = _order(finding, origin, Action.CAPTURE, self._mode(finding), spec)
        task = self._order(self.enforcer.capture(order))
        task.add_done_callback(self._capture_done)
        self._captures[key] = (finding.time_ns, task)
        self._captures.move_to_end(key)
        if len(self._captures) > MAX_CAPTURES:
            self._captures.popitem(last=False)
        return task

    def _capture_done(self, task: asyncio.Task[Outcome]) -> None:
        if not task.cancelled() and task.exception() is None:
            result = task.result().result.value
            self.stats.captures[result] = self.stats.captures.get(result, 0) + 1

    def _mode(self, finding: Finding) -> Mode:
        both = self._mode_now == "enforce" and finding.policy.response is Response.ENFORCE
        return Mode.ENFORCE if both else Mode.AUDIT


def _order(finding: Finding, origin: Origin, action: Action, mode: Mode, capture: CaptureSpec | None = None) -> Order:
    return Order(
        order_id=f"{finding.id}-{action.value}",
        action=action,
        process=ProcessKey(*finding.actor.id, origin.boot_id),
        policy=finding.policy.name[:MAX_POLICY_CHARS],
        alert_id=finding.id,
        mode=mode,
        issued_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        exe=_exe(finding),
        capture=capture,
    )


def _exe(finding: Finding) -> str:
    """Returns the program's path, or "" where it is unknown, incomplete or too long for an order's line."""
    exe = actor_get(finding.actor, "exe")
    shown = text(exe) if isinstance(exe, bytes) and not finding.partial_evidence else ""
    # no character takes more than 12 bytes of JSON, so of an ordinary path that need not be seen
    return shown if len(shown) * 12 + 2 <= _MAX_EXE_BYTES or len(json.dumps(shown)) <= _MAX_EXE_BYTES else ""


def _flows(finding: Finding) -> Iterator[Flow]:
    """Yields the connections among the evidence, the latest first, as far as an order can name them."""
    events = [event for step in finding.trail for event in step.events]
    found = dict.fromkeys(flow for event in reversed(events) for flow in _flow_of(event))
    yield from list(found)[:MAX_FLOWS]


def _flow_of(event: Event) -> Iterator[Flow]:
    if event.type.name != "connect":
        return
    shown = event.to_json()
    ip, port = shown.get("dst.ip"), shown.get("dst.port")
    if not isinstance(ip, str) or not isinstance(port, int):
        return
    source, source_port = shown.get("src.ip"), shown.get("src.port")
    for proto in ("tcp", "udp"):  # the event doesn't tell which
        yield Flow(
            proto,
            ip,
            port,
            source if isinstance(source, str) else None,
            source_port if isinstance(source_port, int) else None,
        )


def _outcome_json(outcome: Outcome, event_ns: int | None) -> Json:
    latency = None if event_ns is None else max(0, outcome.time_ns - event_ns) // 1000
    return kill_json(
        outcome.result.value,
        by=outcome.by,
        reason=outcome.text or None,
        code=outcome.code or None,
        order_id=outcome.order_id,
        latency_us=latency,
        took_us=outcome.took_ns // 1000 if outcome.took_ns else None,
        dead=outcome.dead if event_ns is not None else None,
        file=outcome.file,
        packets=outcome.packets,
        bytes=outcome.bytes,
    )
