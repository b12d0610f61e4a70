"""The only place that sends signals to other processes.

The pidfd is opened first, and everything after it is asked of, and done to, the process behind that fd. A pid that is
reused in between either shows another start time, and is refused, or leaves us with an fd whose process is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import select
import signal
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from execray.guard import (
    Allow,
    Budget,
    Facts,
    GuardSettings,
    OutcomeMemory,
    OwnProcesses,
    Reason,
    Refuse,
    Verdict,
    WouldKill,
    facts_of,
    judge_identity,
    judge_order,
    judge_process,
)
from execray.process import ProcessKey
from execray.schema.records import compared
from execray.wire.orders import Order, Outcome, Result

#: How long a kill waits to see the end. Well under policyd's 100 ms for an outcome: a process that sleeps in the kernel
#: must not turn a kill that was sent into a second one by the fallback.
DEATH_WAIT_S: Final = 0.05
REMEMBERED_KILLS: Final = 1024


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, the clock of events, orders and start times."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def open_process(pid: int) -> tuple[int, Facts]:
    """Returns a pidfd, which the caller closes, and the facts about its process.

    Raises ProcessLookupError when it is gone or only waits to be reaped, other OSError for a pid that is no process's.
    """
    pidfd = os.pidfd_open(pid)
    try:
        facts = facts_of(pid)
        if facts.ended and _has_ended(pidfd):
            raise ProcessLookupError(errno.ESRCH, "ended")
        return pidfd, facts
    except FileNotFoundError as error:
        os.close(pidfd)
        raise ProcessLookupError(errno.ESRCH, "ended") from error
    except OSError:
        os.close(pidfd)
        raise


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def ended_at_once(pidfd: int, other: int, patience_ms: int) -> bool:
    """Sleeps until the end of the process behind a pidfd, or until `other` can be read; returns whether it has ended.

    Not for long: it is for whom a signal was just sent, and who may need this very processor to end.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(other, select.POLLIN)
    return any(fd == pidfd for fd, _ in poll.poll(patience_ms))


async def ended(pidfd: int, timeout_s: float) -> bool:
    """Waits for the end of the process behind a pidfd; False when it still lives after timeout_s."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(pidfd, seen.set)
    try:
        async with asyncio.timeout(timeout_s):
            await seen.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


@compared(frozen=True, slots=True)
class KillResult:
    """What kill_process did: it sent the signal, or `why` says what kept it. A sent one's pidfd is the caller's."""

    pidfd: int | None
    why: WouldKill | Refuse | ProcessLookupError | OSError | None = None


def kill_process(key: ProcessKey, check: Callable[[Facts], Verdict]) -> KillResult:
    """Sends SIGKILL to this very process if `check` allows it, judging by facts read behind an open pidfd."""
    try:
        pidfd, facts = open_process(key.pid)
    except OSError as error:
        return KillResult(None, error)
    verdict = judge_identity(key, facts.start_ticks) or check(facts)
    try:
        if isinstance(verdict, Allow):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return KillResult(pidfd)
    except OSError as error:
        os.close(pidfd)
        return KillResult(None, error)
    # Of one that ended meanwhile, what was read may be another's, who has its pid now: then nothing is known of it.
    gone = _has_ended(pidfd)
    os.close(pidfd)
    return KillResult(None, ProcessLookupError(errno.ESRCH, "ended") if gone else verdict)


def stop_child(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signals a child of ours that may have ended already."""
    with contextlib.suppress(ProcessLookupError):  # reaped between the decision and now
        process.send_signal(number)


@compared(frozen=True, slots=True)
class Strike:
    """A kill order that is decided. pidfd is open where the signal was sent, and its end not yet seen."""

    order: Order
    outcome: Outcome
    began_ns: int
    pidfd: int | None = None


class Killer:
    """Carries out kill orders: guard, budget, memory of repeated orders, signal. One for each daemon that kills."""

    def __init__(
        self,
        settings: GuardSettings,
        budget: Budget,
        own: OwnProcesses,
        by: str,
        *,
        memory: OutcomeMemory | None = None,
        clock_ns: Callable[[], int] = boottime_ns,
        death_wait_s: float = DEATH_WAIT_S,
    ) -> None:
        """by: `enforcer` or `policyd`, for the outcomes."""
        self.settings = settings
        self.budget = budget
        self.own = own
        self.memory = memory or OutcomeMemory()
        self._struck: OrderedDict[ProcessKey, None] = (
            OrderedDict()
        )  # lately sent the signal, by us or by another for us
        self.results: Counter[str] = Counter()  # by result
        self.refusals: Counter[str] = Counter()  # by code
        self._by = by
        self._clock_ns = clock_ns
        self._death_wait_s = death_wait_s

    async def execute(self, order: Order) -> Outcome:
        """Kills, or says why not. The signal is sent before the first suspension; then it waits for the end, bounded."""
        return await self.finish(self.strike(order))

    def strike(self, order: Order, sent: Callable[[int], bool] | None = None) -> Strike:
        """Kills, or decides why not, at once. What it returns has to be given to finish(), or to follow().

        sent: called with the pidfd as soon as the signal is sent; returns whether the end was seen already.
        """
        began_ns = self._clock_ns()
        known = self.memory.recall(order)
        if isinstance(known, Outcome):
            return Strike(order, known, began_ns)
        if known is not None:
            return Strike(order, self.refused(order, known, remember=False), began_ns)
        refusal = judge_order(order, self.settings, began_ns)
        if refusal is not None:
            return Strike(order, self.refused(order, refusal), began_ns)
        done = kill_process(order.process, lambda facts: self._check(order, facts))
        if done.pidfd is None:
            return Strike(order, self._not_sent(order, done.why), began_ns)
        outcome = self.outcome(order, Result.KILLED)
        dead = sent is not None and sent(done.pidfd)
        if dead:
            os.close(done.pidfd)
            outcome = dataclasses.replace(outcome, dead=True, took_ns=self._clock_ns() - began_ns)
        self.charge(order)
        # From here on a repeated order is known, also while this one still waits.
        return Strike(order, self.settle(order, outcome), began_ns, None if dead else done.pidfd)

    def over_budget(self, order: Order) -> Outcome | None:
        """Returns the refusal of an order that the budget has no room for, None for any other. Spends nothing."""
        refusal = None if order.process in self._struck else self.budget.refusal(order.policy)
        return None if refusal is None else self.refused(order, refusal)

    def charge(self, order: Order) -> None:
        """Counts the kill of a process against the budget, once: several orders may name it before it is gone."""
        if order.process in self._struck:
            return
        self.budget.spend(order.policy)
        self._struck[order.process] = None
        if len(self._struck) > REMEMBERED_KILLS:
            self._struck.popitem(last=False)

    async def finish(self, strike: Strike) -> Outcome:
        """Waits, bounded, for the end of a process that was killed, and returns the outcome."""
        if strike.pidfd is None:
            return strike.outcome
        try:
            dead = await ended(strike.pidfd, self._death_wait_s)
        finally:
            os.close(strike.pidfd)
        return self._concluded(strike, dead)

    def follow(self, strike: Strike, done: Callable[[Outcome], None]) -> None:
        """Calls `done` with the outcome when finish() would return it, where the signal was sent: without a task.

        A task takes a turn of the loop to begin, on a processor that whom the signal was sent to may need in order to end.
        """
        assert strike.pidfd is not None
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._death_wait_s, self._followed, loop, strike, done, None)
        loop.add_reader(strike.pidfd, self._followed, loop, strike, done, timer)

    def _followed(
        self,
        loop: asyncio.AbstractEventLoop,
        strike: Strike,
        done: Callable[[Outcome], None],
        timer: asyncio.TimerHandle | None,
    ) -> None:
        """timer: None where it is that which ends the wait."""
        assert strike.pidfd is not None
        loop.remove_reader(strike.pidfd)
        os.close(strike.pidfd)
        if timer is not None:
            timer.cancel()
        done(self._concluded(strike, dead=timer is not None))

    def _concluded(self, strike: Strike, dead: bool) -> Outcome:
        outcome = dataclasses.replace(strike.outcome, dead=dead, took_ns=self._clock_ns() - strike.began_ns)
        self.memory.remember(strike.order, outcome)
        return outcome

    def refused(self, order: Order, refusal: Refuse, *, remember: bool = True) -> Outcome:
        """Returns and counts a refusal."""
        return self.settle(order, self.outcome(order, Result.REFUSED, refusal.code, refusal.text), remember=remember)

    def outcome(self, order: Order, result: Result, code: Reason | None = None, text: str = "") -> Outcome:
        """Makes an outcome of now."""
        return Outcome(order.order_id, result, code.value if code else "", text, self._by, self._clock_ns())

    def settle(self, order: Order, outcome: Outcome, *, remember: bool = True) -> Outcome:
        """Counts an outcome and remembers it for a repeated order."""
        self.results[outcome.result.value] += 1
        if outcome.result is Result.REFUSED:
            self.refusals[outcome.code] += 1
        if remember:
            self.memory.remember(order, outcome)
        return outcome

    def _check(self, order: Order, facts: Facts) -> Verdict:
        verdict = judge_process(order, facts, self.settings, self.own)
        if isinstance(verdict, Allow) and order.process not in self._struck:
            return self.budget.refusal(order.policy) or verdict
        return verdict

    def _not_sent(self, order: Order, why: WouldKill | Refuse | OSError | None) -> Outcome:
        match why:
            case Refuse():
                return self.refused(order, why)
            case WouldKill(code, text):
                return self.settle(order, self.outcome(order, Result.WOULD_KILL, code, text))
            case ProcessLookupError():
                return self.settle(order, self.outcome(order, Result.GONE, None, "the process had ended before"))
            case _:
                text = f"can't kill pid {order.process.pid}: {os.strerror(why.errno or 0) if why else ''}"
                return self.settle(order, self.outcome(order, Result.FAILED, Reason.NO_PERMISSION, text))
