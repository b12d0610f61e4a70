"""The gate under watch: which kinds of event its plan leaves open, and in shadow mode, whether it was ever wrong.

There everything is sent, and what the kernel would have dropped is flagged. Such an event in the evidence of anything that the
engine finds is one that must not be dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Final

from execray.schema.catalog import EVENT_BY_CODE, Flag
from policyd.engine.outputs import Finding, Output
from policyd.gate.plan import Built

_DROP: Final = int(Flag.GATE_DROP)
_REMEMBERED: Final = 1024


class GateWatch:
    """What `status` tells of the gate's plan, and of events that it would have lost."""

    def __init__(self, log: logging.Logger) -> None:
        self.needed = 0  # flagged events that were evidence
        self._seen: deque[int] = deque(maxlen=_REMEMBERED)
        self._log = log

    def look(self, outputs: Iterable[Output]) -> None:
        """Counts the flagged events in the evidence of what was found, and says so."""
        for found in outputs:
            if not isinstance(found, Finding):
                continue
            for event in (event for part in found.trail for event in part.events):
                if int(event.flags) & _DROP and event.id not in self._seen:
                    self._seen.append(event.id)
                    self.needed += 1
                    kv = {"policy": found.policy.name, "of": event.type.name}
                    self._log.error("gate would have lost an event", extra={"kv": kv})

    def status(self, built: Built) -> dict[str, object]:
        """Returns what `status` shows; built: the plan in use."""
        reasons = {EVENT_BY_CODE[code].name: why for code, why in built.open_reasons.items()}
        return {"bytes": len(built.raw), "open": dict(sorted(reasons.items())), "needed": self.needed}
