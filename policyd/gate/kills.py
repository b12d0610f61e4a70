"""What the kernel killed, seen from policyd: every such kill should be the work of a policy that matches here as well."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from execray.gate.inline import tag_of
from execray.schema.catalog import LOST, Flag
from execray.schema.event import Event
from execray.schema.field import KILLER_SHIFT
from execray.wire.frames import Batch
from policyd.engine.ids import finding_id
from policyd.engine.outputs import Match, Output, StepEvidence
from policyd.gate.exact import InlineBuilt
from policyd.program import CompiledPolicy

_KILLED = int(Flag.KILLED)
#: Processes that were killed, kept in mind: another of their threads may have made the last call at the same moment.
_MAX_ENDED: Final = 1024


def killed_in_kernel(event: Event, policy: CompiledPolicy) -> bool:
    """Whether the kernel killed the process in this call, and for this policy."""
    flags = int(event.flags)
    return bool(flags & _KILLED) and flags >> KILLER_SHIFT == tag_of(policy.hash)


class KernelKills:
    """Counts the kernel's kills, and makes matches of those that none found here explains: there should be few."""

    def __init__(self, log: logging.Logger) -> None:
        self.killed = 0
        self.unexplained = 0
        self._log = log
        self._loaded: dict[int, CompiledPolicy] = {}  # by tag
        self._former: dict[int, CompiledPolicy] = {}
        self._ended: OrderedDict[tuple[int, int, int], None] = OrderedDict()  # pid, start_ns, tag; the oldest first

    def loaded(self, policies: Iterable[CompiledPolicy]) -> None:
        """Takes those of the loaded policies that the kernel finishes. What is under way may still be of those before them."""
        self._former, self._loaded = self._loaded, {tag_of(policy.hash): policy for policy in policies}

    def look(self, batch: Batch, outputs: Iterable[Output], generation: int) -> list[Match]:
        """Looks at a batch and what was found in it. Returns matches for kills that nothing found is about.

        Of such a sequence the last step alone is known, so that is all of its evidence, and it is marked as degraded.
        """
        killed = [at for at, row in enumerate(batch.events) if row[0] != LOST and row[4] & _KILLED]
        marked = {batch.first_id + at: (at, batch.events[at][4] >> KILLER_SHIFT) for at in killed}
        if not marked:
            return []
        self.killed += len(marked)
        found = {(output.event.id, tag_of(output.policy.hash)) for output in outputs if isinstance(output, Match)}
        made = []
        for number, (at, tag) in marked.items():
            event, policy = batch.event(at), self._loaded.get(tag) or self._former.get(tag)
            pid, start_ns = event.actor.id
            if self._is_known(pid, start_ns, tag) or (number, tag) in found:
                continue
            self.unexplained += 1
            kv = {"policy": policy.name if policy else f"{tag:08x}", "pid": pid, "start_ns": start_ns}
            self._log.error("killed in the kernel, and no match", extra={"kv": kv})
            if policy is not None:
                made.append(_match(policy, event, generation))
        return made

    def _is_known(self, pid: int, start_ns: int, tag: int) -> bool:
        """Whether a kill of this process for this policy was looked at before; it is from now on."""
        known = (pid, start_ns, tag) in self._ended
        self._ended[pid, start_ns, tag] = None
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)
        return known

    def status(self, built: InlineBuilt) -> dict[str, object]:
        """Returns what `status` shows; built: the rules of the loaded policies."""
        return {
            "policies": len(built.plan.policies),
            "rules": len(built.plan.rules),
            "left_out": list(built.left_out),
            "killed": self.killed,
            "unexplained": self.unexplained,
        }


def _match(policy: CompiledPolicy, event: Event, generation: int) -> Match:
    """Returns the match that the kernel saw, as far as it is known here: the end of a plain sequence of one process."""
    place, number = 0, 0
    while not policy.states[place].accepting:
        transition = policy.states[place].transitions[0]
        place, number = transition.target, transition.step
    step = policy.steps[number]
    key = event.actor.id
    return Match(
        policy=policy,
        generation=generation,
        key=key,
        actor=event.actor,
        event=event,
        trail=(StepEvidence(step, number, (event,), 1),),
        bindings={} if step.alias is None else {step.alias: event},
        started_ns=event.time_ns,
        time_ns=event.time_ns,
        tainted=False,
        degraded=True,
        partial_evidence=False,
        id=finding_id("Match", policy, key, [event]),
    )
