"""Ending a pcap file at a whole packet."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.pcap import trim, whole_packets

HEADER = {"<": b"\xd4\xc3\xb2\xa1", ">": b"\xa1\xb2\xc3\xd4"}


def pcap(order: str, packets: list[bytes]) -> bytes:
    parts = [HEADER[order] + struct.pack(f"{order}HHiIII", 2, 4, 0, 0, 65535, 276)]
    for packet in packets:
        parts.append(struct.pack(f"{order}IIII", 1, 2, len(packet), len(packet) + 5) + packet)
    return b"".join(parts)


@given(
    order=st.sampled_from("<>"),
    packets=st.lists(st.binary(max_size=60), max_size=8),
    cut=st.integers(0, 600),
)
def test_any_cut_leaves_the_packets_before_it(
    tmp_path_factory: pytest.TempPathFactory, order: str, packets: list[bytes], cut: int
) -> None:
    file = tmp_path_factory.mktemp("pcap") / "f.pcap"
    raw = pcap(order, packets)[: max(24, cut)]
    file.write_bytes(raw)
    ends = [24]
    for packet in packets:
        ends.append(ends[-1] + 16 + len(packet))
    whole = max(number for number, end in enumerate(ends) if end <= len(raw))
    assert trim(file) == (whole, ends[whole])
    assert file.read_bytes() == raw[: ends[whole]]
    assert trim(file) == (whole, ends[whole])


def test_file_larger_than_one_read_is_counted_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "f.pcap"
    file.write_bytes(pcap("<", [bytes(1000)] * 3000)[:-1])
    assert whole_packets(file) == (2999, 24 + 2999 * 1016)


@pytest.mark.parametrize("raw", [b"", b"\xd4\xc3\xb2\xa1", b"no pcap at all, but long enough to be one"])
def test_file_that_is_no_pcap_holds_nothing(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "f.pcap"
    file.write_bytes(raw)
    assert trim(file) == (0, 0) and file.read_bytes() == b""
