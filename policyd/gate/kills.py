"""What the kernel killed, seen from policyd: every such kill must be the work of a policy that matches here as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from execray.gate.inline import tag_of
from execray.schema.catalog import LOST, Flag
from execray.schema.event import Event
from execray.schema.field import KILLER_SHIFT
from execray.wire.frames import Batch, Row
from policyd.engine.outputs import Match, Output
from policyd.gate.exact import InlineBuilt
from policyd.program import CompiledPolicy

_KILLED = int(Flag.KILLED)


def killed_in_kernel(event: Event, policy: CompiledPolicy) -> bool:
    """Whether the kernel killed the process in this call, and for this policy."""
    flags = int(event.flags)
    return bool(flags & _KILLED) and flags >> KILLER_SHIFT == tag_of(policy.hash)


class KernelKills:
    """Counts the kernel's kills, and those that no match here explains: there should be none."""

    def __init__(self, log: logging.Logger) -> None:
        self.killed = 0
        self.unexplained = 0
        self._log = log

    def look(self, batch: Batch, outputs: Iterable[Output], name_of: Callable[[int], str | None]) -> None:
        """Looks at a batch and what was found in it. name_of: the policy of a tag, for the log."""
        marked = {
            batch.first_id + at: (row, _flags(row) >> KILLER_SHIFT)
            for at, row in enumerate(batch.events)
            if _flags(row) & _KILLED
        }
        if not marked:
            return
        self.killed += len(marked)
        found = {(output.event.id, tag_of(output.policy.hash)) for output in outputs if isinstance(output, Match)}
        for number, (row, tag) in marked.items():
            if (number, tag) not in found:
                self.unexplained += 1
                actor = batch.actor(row[2])
                kv = {"policy": name_of(tag) or f"{tag:08x}", "pid": actor.id[0], "start_ns": actor.id[1]}
                self._log.error("killed in the kernel, and no match", extra={"kv": kv})

    def status(self, built: InlineBuilt) -> dict[str, object]:
        """Returns what `status` shows; built: the rules of the loaded policies."""
        return {
            "policies": len(built.plan.policies),
            "rules": len(built.plan.rules),
            "left_out": list(built.left_out),
            "killed": self.killed,
            "unexplained": self.unexplained,
        }


def _flags(row: Row) -> int:
    flags: int = 0 if row[0] == LOST else row[4]
    return flags
