"""What is taken of the processors by us: by our programs in the kernel, by its own count, and by the daemons."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SWITCH: Final = Path("/proc/sys/kernel/bpf_stats_enabled")


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds on any processor. programs_s is part of the time of those who called, whoever did: the daemons as well."""

    programs_s: float
    daemons_s: float

    def __sub__(self, other: Taken) -> Taken:
        return Taken(self.programs_s - other.programs_s, self.daemons_s - other.daemons_s)


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Has the kernel count the time of BPF programs meanwhile: two readings of the clock for each run, which count, too."""
    before = _SWITCH.read_text(encoding="ascii")
    _SWITCH.write_text("1", encoding="ascii")
    try:
        yield
    finally:
        _SWITCH.write_text(before, encoding="ascii")


def taken(daemons: Sequence[int]) -> Taken:
    """Returns what was taken since they began. daemons: pids, of which any may have loaded programs."""
    return Taken(sum(map(_programs_s, daemons)), sum(map(_on_processor_s, daemons)))


def _programs_s(pid: int) -> float:
    times: dict[str, int] = {}  # by program: one may have several descriptors
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the listing
            found = dict(line.split(":", 1) for line in info.read_text(encoding="ascii").splitlines() if ":" in line)
            if "run_time_ns" in found:
                times[found["prog_id"]] = int(found["run_time_ns"])
    return sum(times.values()) / 1e9


def _on_processor_s(pid: int) -> float:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended since the listing
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9
