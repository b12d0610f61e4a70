"""What the kernel can test of the policies of the last plan: costly to find out, and the next plan has most of them too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from policyd.engine.table import PolicyTable
from policyd.gate.ways import Bit, bits_of
from policyd.program import CompiledPolicy


class Known:
    """The bits of policies that have been seen. Not for several threads at once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[CompiledPolicy, int, list[Bit]]] = {}  # by identity: a policy's hash takes its time

    def bits(self, tables: Iterable[PolicyTable]) -> list[Bit]:
        """Returns the bits of all policies, numbered as they come, each bit once, and forgets those of any others."""
        seen = {}
        found: dict[Bit, None] = {}
        for number, table in enumerate(tables):
            policy, at, bits = self._seen.get(id(table.policy), (table.policy, number, None))
            if bits is None:
                bits = [bit for _, bit in bits_of(table, number)]
            elif at != number:
                bits = [_moved(bit, number) for bit in bits]
            seen[id(policy)] = policy, number, bits
            found.update(dict.fromkeys(bits))
        self._seen = seen
        return list(found)


def _moved(bit: Bit, number: int) -> Bit:
    return replace(bit, opens=None if bit.opens is None else number, waits=None if bit.waits is None else number)
