"""What waits for one plug-in, and the thread that hands it over, one item at a time, to a process that is watched.

A plug-in that raises costs the item. One that doesn't answer in time, ends, or talks nonsense costs its process too, which is
killed and started anew after a while. Whoever puts something in never waits.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from execray.errors import PeerError
from execray.plugins import SINKS
from execray.wire.plugins import MAX_ITEM_BYTES, Answer, encode_item
from policyd.plugin_facts import PluginOptions, PluginStats, State, kind_of
from policyd.plugin_process import OUTPUT_PAUSE_S, OutputTail, PluginProcess

if TYPE_CHECKING:
    from execray.plugin_index import Installed

T = TypeVar("T")

START_TIMEOUT_S: Final = 20.0  # to import and make the plug-in
CLOSE_TIMEOUT_S: Final = 1.0  # to close and end, of the time that close() has
ENDING_S: Final = 3.0  # for one that has closed its side to end by itself, and so to say how
BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 15.0, 60.0)  # between one end and the next start
TELL_PAUSE_S: Final = 10.0  # between two lines about failed items
STEADY_S: Final = 60.0  # a run as long as this was a good one: the next start is not put off more
_JOIN_GRACE_S: Final = 6.0  # beyond what close() was given: the kernel ends what was killed


class _Failed(Exception):
    """The process is of no use any more. count: the counter in PluginStats that says why."""

    def __init__(self, words: str, count: str = "crashes", *, patience_s: float = 0.0, of_plugin: str = "") -> None:
        """patience_s: how long the process may take to end by itself. of_plugin: the plug-in's own words, not for the log."""
        super().__init__(words)
        self.count = count
        self.patience_s = patience_s
        self.of_plugin = of_plugin


class _Ended(_Failed):
    """It closed its side: it is about to end by itself, and then says how."""

    def __init__(self) -> None:
        super().__init__("it ended", patience_s=ENDING_S)


class PluginLane(Generic[T]):
    """A plug-in with its bounded queue, its thread and its process."""

    def __init__(
        self, plugin: Installed, options: PluginOptions, to_json: Callable[[T], dict[str, Any]], log: logging.Logger
    ) -> None:
        """to_json: makes what is sent of an item, in the thread. start() comes next."""
        self.plugin = plugin
        self.name = plugin.name
        self.stats = PluginStats()
        self.state = State.STARTING
        self._options = options
        self._to_json = to_json
        self._log = log
        self._kind = "sink" if plugin.group == SINKS else "action"
        self._queue: deque[T] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = threading.Lock()  # nobody writes to the descriptor once it is closed
        self._open = True
        self._closing = False
        self._close_by_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"plugin-{plugin.name}", daemon=True)
        # From here on, the thread's alone.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._output = OutputTail()
        self._process: PluginProcess | None = None
        self._n = 0  # of the item in hand, or of the last one
        self._deadline_s = 0.0  # for the answer that is awaited
        self._attempt = 0
        self._next_start_s = 0.0
        self._started_s = 0.0
        self._listen_at_s = 0.0  # to its output again
        self._tell_at_s = 0.0  # of a failed item again

    def start(self) -> None:
        """Starts the thread, which starts the process."""
        self._thread.start()

    def put(self, item: T) -> bool:
        """Queues an item, for the only thread that calls this; returns False where it doesn't fit, and is counted as dropped."""
        if len(self._queue) >= self._options.max_waiting or self._closing or not self._open:
            self.stats.dropped += 1
            return False
        self._queue.append(item)
        self._rouse()
        return True

    def counts(self) -> dict[str, object]:
        """Returns the counts that every sink has."""
        stats = self.stats
        found: dict[str, object] = {"written": stats.done, "failed": stats.failed, "dropped": stats.dropped}
        return {**found, "last_error": stats.last_error} if stats.last_error else found

    def status(self) -> dict[str, object]:
        """Returns all counts, and how the process is."""
        process = self._process
        found: dict[str, object] = {
            "kind": self._kind,
            "name": self.name,
            "package": self.plugin.package,
            "state": self.state.value,
            "pid": None if process is None else process.pid,
            "waiting": len(self._queue),
            **asdict(self.stats),
            "output_bytes": self._output.bytes,
            "output": self._output.lines(),
        }
        return {name: value for name, value in found.items() if value is not None and value != ""}

    def close(self, timeout_s: float) -> None:
        """Delivers what is queued, for as long as that, and ends the process; what is left then counts as dropped.

        start() came before.
        """
        self._close_by_s = time.monotonic() + timeout_s
        self._closing = True
        self._rouse()
        self._thread.join(timeout_s + _JOIN_GRACE_S)

    def _rouse(self) -> None:
        with self._wake_lock:
            if self._open:
                os.eventfd_write(self._wake, 1)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_done():
                try:
                    self._turn()
                except _Failed as failed:
                    self._give_up(failed)
        finally:
            self._end()

    def _is_done(self) -> bool:
        if not self._closing:
            return False
        working = self.state is State.BUSY or (self._queue and self.state in (State.IDLE, State.STARTING))
        return not working or time.monotonic() >= self._close_by_s - CLOSE_TIMEOUT_S

    def _turn(self) -> None:
        """Does what is to be done now, and waits for what comes next."""
        now_s = time.monotonic()
        if self._process is None and now_s >= self._next_start_s:
            self._start(now_s)
        elif self.state in (State.STARTING, State.BUSY) and now_s >= self._deadline_s:
            what = "wasn't ready" if self.state is State.STARTING else "gave no answer"
            raise _Failed(f"it {what} within {self._patience_s():g} s", "timeouts")
        elif self.state is State.IDLE and self._queue:
            self._hand_over(self._queue.popleft(), now_s)
        self._watch(now_s)
        for key, _ in self._selector.select(max(0.0, self._next_s() - now_s)):
            if key.fileobj is self._wake:
                os.eventfd_read(self._wake)
            elif self._process is not None and key.fileobj is self._process.channel:
                self._converse(self._process)
            elif self._process is not None:
                self._listen(self._process)

    def _patience_s(self) -> float:
        return START_TIMEOUT_S if self.state is State.STARTING else self._options.timeout_s

    def _next_s(self) -> float:
        """When to look again, though nothing happened."""
        due = [time.monotonic() + 1.0]
        if self._process is None:
            due.append(self._next_start_s)
        if self.state in (State.STARTING, State.BUSY):
            due.append(self._deadline_s)
        if self.state is State.IDLE and self._queue:
            due.append(0.0)
        if self._process is not None and self._listen_at_s > time.monotonic():
            due.append(self._listen_at_s)
        if self._closing:
            due.append(self._close_by_s - CLOSE_TIMEOUT_S)
        return min(due)

    def _start(self, now_s: float) -> None:
        options = self._options
        self.state = State.STARTING
        self.stats.starts += 1
        self._started_s, self._deadline_s, self._listen_at_s = now_s, now_s + START_TIMEOUT_S, 0.0
        try:
            self._process = PluginProcess(self.plugin, options.settings, options.folder, options.memory_mib)
        except OSError as error:
            raise _Failed(f"it can't be started: {error.strerror}") from error
        self._send(self._process, b"")

    def _hand_over(self, item: T, now_s: float) -> None:
        assert self._process is not None
        self._n += 1
        line = encode_item(self._n, self._to_json(item))
        if len(line) > MAX_ITEM_BYTES:
            self._item_failed(f"an item of {len(line)} bytes")
            return
        self.state, self._deadline_s = State.BUSY, now_s + self._options.timeout_s
        self._send(self._process, line)

    def _send(self, process: PluginProcess, line: bytes) -> None:
        try:
            process.send(line)
        except OSError as error:
            raise _Ended from error

    def _watch(self, now_s: float) -> None:
        """Has the selector watch what is of interest now."""
        if (process := self._process) is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if process.sending else 0)
        self._select(process.channel, events)
        self._select(process.output, selectors.EVENT_READ if now_s >= self._listen_at_s else 0)

    def _select(self, fileobj: Any, events: int) -> None:
        known = self._selector.get_map().get(fileobj)
        if known is None and events:
            self._selector.register(fileobj, events)
        elif known is not None and not events:
            self._selector.unregister(fileobj)
        elif known is not None and known.events != events:
            self._selector.modify(fileobj, events)

    def _converse(self, process: PluginProcess) -> None:
        try:
            process.flush()
            answers = process.answers()
        except (EOFError, OSError) as error:
            raise _Ended from error
        except PeerError as error:
            raise _Failed(f"it talks nonsense: {error}") from error
        for answer in answers:
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        if self.state is State.STARTING and answer.n == 0:
            if answer.error is not None:
                raise _Failed("it refuses to start", patience_s=ENDING_S, of_plugin=answer.error)
            self.state = State.IDLE
            facts = {"plugin": self.name, "kind": self._kind, "package": self.plugin.package}
            self._log.info("plug-in started", extra={"kv": facts})
        elif self.state is State.BUSY and answer.n == self._n:
            self.state = State.IDLE
            if answer.error is None:
                self.stats.done += 1
            else:
                self._item_failed(answer.error)
        else:
            raise _Failed("it answers what it wasn't asked")

    def _listen(self, process: PluginProcess) -> None:
        data = process.read_output()
        self._output.take(data or b"")
        # No data, and not because there is none yet: it has closed its output.
        self._listen_at_s = math.inf if data == b"" else time.monotonic() + OUTPUT_PAUSE_S

    def _item_failed(self, words: str) -> None:
        self.stats.failed += 1
        self.stats.last_error = words
        now_s = time.monotonic()
        if now_s >= self._tell_at_s:  # the counts tell of the others
            self._tell_at_s = now_s + TELL_PAUSE_S
            facts = {"plugin": self.name, "kind": self._kind, "reason": kind_of(words)}
            self._log.warning("plug-in failed an item", extra={"kv": facts})

    def _give_up(self, failed: _Failed) -> None:
        """Kills the process and puts off the next one."""
        words = str(failed)
        if self.state is State.BUSY:
            self.stats.failed += 1
        if self._process is not None:
            how = self._let_go(self._process, failed.patience_s)
            words = words if failed.of_plugin or failed.count == "timeouts" else f"{words}: {how}"
        setattr(self.stats, failed.count, getattr(self.stats, failed.count) + 1)
        self.stats.last_error = f"{words}: {failed.of_plugin}" if failed.of_plugin else words
        self.state = State.DOWN
        now_s = time.monotonic()
        self._attempt = 0 if now_s - self._started_s >= STEADY_S else self._attempt
        pause_s = BACKOFF_S[min(self._attempt, len(BACKOFF_S) - 1)]
        self._attempt += 1
        self._next_start_s = now_s + pause_s
        told = f"{words}: {kind_of(failed.of_plugin)}" if failed.of_plugin else words
        facts = {"plugin": self.name, "kind": self._kind, "reason": told, "next_start_s": pause_s}
        self._log.error("plug-in ended", extra={"kv": facts})

    def _let_go(self, process: PluginProcess, patience_s: float) -> str:
        self._select(process.channel, 0)
        self._select(process.output, 0)
        how = process.end(patience_s)
        self._output.take(process.read_output() or b"")
        self._output.end()
        self._process = None
        process.close()
        return how

    def _end(self) -> None:
        process, busy = self._process, self.state is State.BUSY
        self.state = State.STOPPED
        self.stats.failed += busy
        self.stats.dropped += len(self._queue)
        self._queue.clear()
        if process is not None:
            left_s = 0.0 if busy else max(0.0, self._close_by_s - time.monotonic())
            try:
                process.finish()
            except OSError:
                left_s = 0.0  # gone already
            self._let_go(process, left_s)
        self._selector.close()
        with self._wake_lock:
            self._open = False
            os.close(self._wake)
