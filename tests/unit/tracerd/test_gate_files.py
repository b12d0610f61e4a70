"""tracerd/gate_files.py: what the kernel is told of the files that policies mean, when telling it fails."""

from __future__ import annotations

import errno
import struct
from typing import cast

import pytest

from execray.gate.hashes import exact_key
from execray.gate.plan import GatePlan
from execray.schema.layout import ER_GATE_FILE_ROW
from tracerd.bpf import Map, MapType
from tracerd.gate_files import GateFiles

FILES: dict[bytes | None, tuple[bytes, ...]] = {b"8:1:%d:7" % number: (b"/etc/%d" % number,) for number in (11, 12, 13)}


class FakeMap:
    """A hash map of the kernel's, which refuses an update when told to."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.until_error = -1  # updates that still succeed; negative: all do

    def update(self, key: bytes, value: bytes) -> None:
        if self.until_error == 0:
            self.until_error = -1
            raise OSError(errno.EBUSY, "busy")
        self.until_error -= 1
        self.held[key] = value


def plan_with(row: int) -> GatePlan:
    keys = {exact_key(name): row for names in FILES.values() for name in names}
    return GatePlan(rows=tuple(range(8)), keys=keys)


def first_half(kernel: FakeMap) -> set[int]:
    return {struct.unpack_from("<H", value)[0] & ~ER_GATE_FILE_ROW for value in kernel.held.values()}


@pytest.mark.parametrize("succeed", range(len(FILES)))
@pytest.mark.parametrize("then", [2, 3], ids=["the plan that was there", "the same plan"])
def test_after_an_error_every_file_is_told_what_the_next_plan_asks(
    monkeypatch: pytest.MonkeyPatch, succeed: int, then: int
) -> None:
    kernel = FakeMap()

    def create(kind: MapType, name: str, key_size: int, value_size: int, max_entries: int) -> Map:
        return cast(Map, kernel)

    monkeypatch.setattr(Map, "create", create)
    files = GateFiles()
    files.publish(FILES, lambda names: None)
    files.expect(plan_with(2), 1)
    assert (len(kernel.held), first_half(kernel)) == (len(FILES), {2})
    kernel.until_error = succeed
    with pytest.raises(OSError, match="busy"):
        files.expect(plan_with(3), 1)
    files.expect(plan_with(then), 1)
    assert first_half(kernel) == {then}
