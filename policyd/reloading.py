"""Reload: everything is compiled and built beside the running set, in a thread, and then swapped between two batches.

The loop, which kills, goes on meanwhile. It waits for the thread no longer than the interpreter's switch interval, which
policyd sets low. The garbage collector, which stops everybody, doesn't run meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from execray.errors import OperatorError
from execray.service import notify
from policyd.engine.generation import Generation
from policyd.engine.machine import LoadReport, Machine
from policyd.gate.exact import InlineBuilt, build_inline
from policyd.gate.known import Known
from policyd.gate.plan import Built, build_plan
from policyd.patterns import PatternError
from policyd.program import CompiledPolicy
from policyd.store import Candidate, PolicyStore, changes

T = TypeVar("T")

#: What sys.setswitchinterval gets: how long the loop may wait for a thread. The interpreter's own 5 ms would be felt in kills.
SWITCH_S: Final = 0.0005
RELOAD_TIMEOUT_S: Final = 120.0  # for whoever asked: thousands of new policies take their time
_TOLD_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class KernelSide:
    """What the kernel gets of the loaded policies: the gate's plan, and the rules by which it kills."""

    gate: Built
    inline: InlineBuilt


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a thread made: a candidate, and where it may be loaded, its generation and what the kernel gets of it."""

    candidate: Candidate
    fresh: Generation | None
    kernel: KernelSide | None = None
    refused: str = ""


class Reloader:
    """Replaces the running policies, one reload after the other."""

    def __init__(
        self, machine: Machine, store: PolicyStore, on_loaded: Callable[[KernelSide], None], log: logging.Logger
    ) -> None:
        """on_loaded: called after each swap, in the loop: the sensor may be needed for other events now, by another plan."""
        self._machine = machine
        self._store = store
        self._on_loaded = on_loaded
        self._log = log
        self._known = Known()  # for the thread, of which there is one at a time
        self._lock = asyncio.Lock()
        self._asked = False  # by SIGHUP, and not yet begun

    @property
    def under_way(self) -> bool:
        """Whether something is being built: a thread may be at it."""
        return self._lock.locked()

    async def hang_up(self) -> None:
        """Does what SIGHUP asks for: reloads, and tells the service manager when it begins and ends.

        One that comes while another still waits for its turn is the same one; while one is under way, files may have changed.
        """
        if self._asked:
            return
        self._asked = True
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        await self.reload()
        notify("READY=1")

    async def reload(self) -> dict[str, Any]:
        """Reads and compiles all policies, and swaps, or on any error changes nothing. Returns a report."""
        async with self._lock:
            self._asked = False
            return await self._load(self._store.compile)

    async def end_exceptions(self) -> None:
        """Loads the running policies anew, without reading any file, where an exception's last day is over."""
        async with self._lock:
            if not self._store.has_ended():
                return
            report = await self._load(self._store.recompile)
            if not report["ok"]:
                self._store.forget_ends()  # it was told; trying again wouldn't help

    async def _load(self, compile_: Callable[[], Candidate]) -> dict[str, Any]:
        started = time.perf_counter()
        ready = await _in_thread(partial(self._prepare, compile_))
        report = self._report(ready)
        if ready.fresh is not None and ready.kernel is not None:
            report |= _partials(self._machine.swap(ready.fresh))
            self._store.commit(ready.candidate)
            self._on_loaded(ready.kernel)
        report |= {"policies": len(self._store.policies), "generation": self._store.generation}
        report["ms"] = round((time.perf_counter() - started) * 1000, 1)
        generation, policies, ms = (report[name] for name in ("generation", "policies", "ms"))
        if report["ok"]:
            kv = {"generation": generation, "policies": policies, "ms": ms}
            self._log.info("policies loaded", extra={"kv": kv})
        else:
            why = report["rendered"][:_TOLD_CHARS]
            kv = {"generation": generation, "policies": policies, "ms": ms, "reason": why}
            self._log.error("policies refused", extra={"kv": kv})
        return report

    async def preview(self) -> dict[str, Any]:
        """Does all that reload does but the swap, and returns what it would report."""
        async with self._lock:
            started = time.perf_counter()
            ready = await _in_thread(partial(self._prepare, self._store.compile))
            report = self._report(ready)
            report |= {"policies": len(self._store.policies), "generation": self._store.generation, "dry_run": True}
            report["ms"] = round((time.perf_counter() - started) * 1000, 1)
        return report

    async def disable(self, names: frozenset[str]) -> dict[str, Any]:
        """Runs all loaded policies but these, without reading any file. Names that no policy has are kept for later.

        Raises OperatorError; then nothing has changed.
        """
        async with self._lock:
            policies = self._store.enabled(self._store.loaded, names)
            changed = changes(self._store.policies, policies)
            try:
                fresh, kernel = await _in_thread(partial(self._rebuild, policies))
            except PatternError as error:
                raise OperatorError(f"a regular expression is refused: {error}", "nothing was changed") from error
            self._machine.swap(fresh)
            self._store.disable(names)
            self._on_loaded(kernel)
            known = {policy.name for policy in self._store.loaded}
            kv = {"generation": self._store.generation, "policies": len(policies), "disabled": len(names & known)}
        self._log.info("policies enabled or disabled", extra={"kv": kv})
        return {**changed.to_json(), "disabled": sorted(names), "unknown": sorted(names - known), **kv}

    def _prepare(self, compile_: Callable[[], Candidate]) -> _Ready:
        with _collector_off():
            candidate = compile_()
            if not candidate.ok:
                return _Ready(candidate, None)
            try:
                return _Ready(candidate, *self._build(self._store.enabled(candidate.policies, self._store.disabled)))
            except PatternError as error:
                return _Ready(candidate, None, refused=f"error: a regular expression is refused: {error}\n")

    def _rebuild(self, policies: Sequence[CompiledPolicy]) -> tuple[Generation, KernelSide]:
        with _collector_off():
            return self._build(policies)

    def _build(self, policies: Sequence[CompiledPolicy]) -> tuple[Generation, KernelSide]:
        fresh = self._machine.prepare(policies, self._store.generation + 1)
        return fresh, KernelSide(build_plan(fresh.tables, self._known), build_inline(policies))

    def _report(self, ready: _Ready) -> dict[str, Any]:
        """Returns what came of it; called before the swap, for then nobody knows any more what it changed."""
        candidate, ok = ready.candidate, ready.fresh is not None
        report: dict[str, Any] = {
            "ok": ok,
            "compile_ms": candidate.ms,
            "diagnostics": list(candidate.diagnostics),
            "rendered": candidate.rendered + ready.refused,
        }
        if ok:
            running = self._store.enabled(candidate.policies, self._store.disabled)
            report |= changes(self._store.policies, running).to_json()
        return report


def _partials(report: LoadReport) -> dict[str, int]:
    return {"sequences_kept": report.partials_kept, "sequences_ended": report.partials_retired}


async def _in_thread(call: Callable[[], T]) -> T:
    """Returns what a thread returns. Who is cancelled meanwhile waits until it has ended, for the lock must cover it."""
    work = asyncio.get_running_loop().run_in_executor(None, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


@contextmanager
def _collector_off() -> Iterator[None]:
    """Keeps the garbage collector away from a reload, and afterwards from what it made, which stays.

    A collection stops every thread for as long as it takes to look at all there is: 90 ms with 1,000 policies. A reload
    itself leaves nothing for it to free.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
