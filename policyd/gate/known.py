"""What the kernel can test of the policies of the last plan: costly to find out, and the next plan has most of them too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from execray.schema.catalog import EVENT_BY_NAME
from policyd.engine.table import PolicyTable
from policyd.gate.ways import Bit, bits_of, meets_failed
from policyd.program import CompiledPolicy

EXEC: Final = EVENT_BY_NAME["exec"].code


class Known:
    """The bits of policies that have been seen. Not for several threads at once."""

    def __init__(self) -> None:
        #: By identity: a policy's hash takes its time.
        self._seen: dict[int, tuple[CompiledPolicy, int, list[Bit], bool]] = {}

    @property
    def failed_execs(self) -> bool:
        """Whether one of the policies that were asked for last has a step that an exec which fails may meet."""
        return any(failed for *_, failed in self._seen.values())

    def bits(self, tables: Iterable[PolicyTable]) -> list[Bit]:
        """Returns the bits of all policies, numbered as they come, each bit once, and forgets those of any others."""
        seen = {}
        found: dict[Bit, None] = {}
        for number, table in enumerate(tables):
            policy, at, bits, failed = self._seen.get(id(table.policy), (table.policy, number, None, False))
            if bits is None:
                bits, failed = [bit for _, bit in bits_of(table, number)], meets_failed(table, EXEC)
            elif at != number:
                bits = [_moved(bit, number) for bit in bits]
            seen[id(policy)] = policy, number, bits, failed
            found.update(dict.fromkeys(bits))
        self._seen = seen
        return list(found)


def _moved(bit: Bit, number: int) -> Bit:
    return replace(bit, opens=None if bit.opens is None else number, waits=None if bit.waits is None else number)
