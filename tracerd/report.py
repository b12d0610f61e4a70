"""What heartbeats, `status` and `doctor` say of the sensor and of what it saw."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from execray.extensions import Outcome
from execray.schema.catalog import EVENTS, FIRST_ADDED
from tracerd.decode import Decoder
from tracerd.heartbeat import Liveness
from tracerd.losses import Losses
from tracerd.processes import ProcessTable
from tracerd.sensor import Sensor
from tracerd.stream import Retention
from tracerd.watched import PathWatch

#: Events of which some process has to be made to see whether their hooks live.
LIFE: Final = ("exec", "fork", "exit")
#: How old a heartbeat's counts of the kernel's tables may be: to count them takes longer than all else that it says.
_TABLES_MAX_AGE_S: Final = 10.0


class Report:
    """Asks the sensor and its company. Every number only grows, but rate and the gauges of ring, buffer and tables."""

    def __init__(
        self,
        sensor: Sensor,
        decoder: Decoder,
        table: ProcessTable,
        liveness: Liveness,
        losses: Losses,
        retention: Retention,
        paths: PathWatch,
        *,
        counts_calls: bool,
    ) -> None:
        """counts_calls: whether all system calls are counted (tracerd.syscall_counter)."""
        self.batches = 0  # published
        self.rate = 0.0  # events a second
        self._sensor = sensor
        self._decoder = decoder
        self._processes = table
        self._liveness = liveness
        self._losses = losses
        self._retention = retention
        self._paths = paths
        self._counts_calls = counts_calls
        self._tables: dict[str, dict[str, int]] = {}
        self._tables_at = -_TABLES_MAX_AGE_S  # time.monotonic()

    def probes_needed(self) -> frozenset[str]:
        """Returns the events that are wanted, by name."""
        return frozenset(event.name for event in EVENTS if event.code in self._sensor.wanted)

    def spawn_due(self) -> bool:
        """Returns whether no process was seen to be made, to run a program or to end for so long that one should be made."""
        ages = [self._liveness.last_seen_ms(event.code) for event in EVENTS if event.name in LIFE]
        return any(age is None or age > self._liveness.quiet_s * 1000 for age in ages)

    def in_words(self, subscribed: bool) -> str:
        """Returns one line for the service manager."""
        hooks = self.hooks()
        silent = sorted(name for name, hook in hooks.items() if hook["needed"] and not hook["live"])
        lost = sum(self._losses.counts.values()) + self._retention.lost
        words = [
            "policyd subscribed" if subscribed else "no subscriber",
            f"{self.rate:.0f} events/s",
            f"silent: {', '.join(silent)}" if silent else f"{sum(h['live'] for h in hooks.values())} hooks live",
            f"{lost} events lost" if lost else "nothing lost",
        ]
        return ", ".join(words)

    def hooks(self) -> dict[str, dict[str, Any]]:
        """Returns for each event the state of its hooks, and whether they gave a sign of life lately."""
        hooks = self._sensor.hooks()
        for event in EVENTS:
            hook = hooks[event.name]
            hook["last_seen_ms"] = self._liveness.last_seen_ms(event.code)
            # a package's event can't be asked for a sign of life, and so has none to miss
            alive = event.code >= FIRST_ADDED or self._liveness.live(event.code, probed=event.name not in LIFE)
            hook["live"] = hook["attached"] and alive
        return hooks

    def heartbeat(self) -> dict[str, Any]:
        """Returns the same as statistics(), but for the kernel's tables, which may be those of some seconds ago."""
        return self._said(_TABLES_MAX_AGE_S)

    def statistics(self) -> dict[str, Any]:
        """Returns all that changes while the sensor runs. Notes losses, too. Raises OSError."""
        return self._said(0.0)

    def doctor(self, extensions: Sequence[Outcome]) -> dict[str, Any]:
        """Returns what was loaded and attached, and how full everything is. extensions: what packages add. Raises OSError."""
        return {
            "objects": self._sensor.doctor(),
            "hooks": self._sensor.hooks(),
            "packages": [found.to_json() for found in extensions],
            "paths": {**self._paths.report(), "by_name_only": self._paths.unresolved()},
            "gate": self._sensor.gate_status(self._sensor.counters()),
            "ring": self._ring(),
            "tables": self._sensor.tables(),
        }

    def note_losses(self, counters: Mapping[str, int]) -> None:
        """Tells the stream of what found no room in the ring or couldn't be decoded. counters: Sensor.counters()."""
        self._losses.note({"ring": counters["DROPPED"], "malformed": self._decoder.refused})

    def _said(self, tables_max_age_s: float) -> dict[str, Any]:
        skipped, counters = self._sensor.misses(), self._sensor.counters()
        self.note_losses(counters)
        self._losses.note({"skipped": sum(skipped.values())})
        retention = self._retention
        return {
            "events": self._decoder.decoded,
            "batches": self.batches,
            "rate": round(self.rate, 1),
            "lost": {**self._losses.counts, "stream": retention.lost},
            "skipped": skipped,
            "hooks": self.hooks(),
            "tables": self._tables_of(tables_max_age_s),
            "ring": self._ring(),
            "buffer": {
                "bytes": retention.bytes,
                "max": retention.max_bytes,
                "newest": retention.newest,
                "done": retention.done_seq,
            },
            "paths": self._paths.report(),
            "self_dropped": counters["SELF"],
            "syscalls": counters["SYSCALLS"] if self._counts_calls else None,
            "gate": self._sensor.gate_status(counters),
            "inline": self._sensor.inline.status(),
            "processes": len(self._processes),
            "creds_full": counters["CREDS_FULL"],
            "self_full": counters["SELF_FULL"],
            "names_full": counters["NAMES_FULL"],
            "lines_cut": self._processes.lines_cut,
            "evicted": self._processes.evicted,
        }

    def _tables_of(self, max_age_s: float) -> dict[str, dict[str, int]]:
        now = time.monotonic()
        if now - self._tables_at >= max_age_s:
            self._tables, self._tables_at = self._sensor.tables(), now
        return self._tables

    def _ring(self) -> dict[str, int]:
        return {"size": self._sensor.ring.size_bytes, "used_max": self._sensor.ring.used_max_bytes}
