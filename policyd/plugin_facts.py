"""How a plug-in is run, how its process is, and what is counted of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

MAX_WAITING: Final = 256  # items that one plug-in may be behind


class State(enum.Enum):
    """What a plug-in's process is doing; its words are those of `status`."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DOWN = "down"  # until the next start
    STOPPED = "stopped"


@dataclass(slots=True)
class PluginStats:
    """Counts since start."""

    done: int = 0  # items, by the plug-in's own account
    failed: int = 0  # it raised, or its process did not live to answer
    dropped: int = 0  # not tried: it was too far behind, or policyd ended
    starts: int = 0
    crashes: int = 0  # ends that nobody asked for
    timeouts: int = 0  # killed for giving no answer in time
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class PluginOptions:
    """How one plug-in is run."""

    settings: dict[str, object]
    folder: str  # where plug-ins are, beside our own environment
    timeout_s: float  # for one item
    memory_mib: int
    max_waiting: int = MAX_WAITING


def kind_of(words: str) -> str:
    """Returns what of an error's words may be logged: the kind that it begins with. The rest may repeat anything."""
    kind, _, rest = words.partition(":")
    return kind if kind.isidentifier() and (rest or len(kind) == len(words)) else "see execray-ctl status"
