"""Just enough of the pcap file format to end a file at a whole packet, and to count."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_FILE_HEADER: Final = 24
_RECORD_HEADER: Final = 16
_CHUNK: Final = 1 << 20
#: The file's own byte order, and whether its times are in micro- or nanoseconds, by its magic number.
_BYTE_ORDER: Final = {
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
}


def whole_packets(path: Path) -> tuple[int, int]:
    """Returns how many whole packets a pcap file holds, and the bytes up to the last one's end.

    (0, 0) for a file that isn't pcap. Reads the file once, in pieces. Raises OSError.
    """
    with path.open("rb") as file:
        header = file.read(_FILE_HEADER)
        order = _BYTE_ORDER.get(header[:4])
        if order is None or len(header) < _FILE_HEADER:
            return 0, 0
        record = struct.Struct(f"{order}8xII")
        packets, end, held, start = 0, _FILE_HEADER, b"", 0
        while chunk := file.read(_CHUNK):
            held, start = held[start:] + chunk, 0
            while len(held) - start >= _RECORD_HEADER:
                captured, _length = record.unpack_from(held, start)
                size = _RECORD_HEADER + captured
                if len(held) - start < size:
                    break
                packets, end, start = packets + 1, end + size, start + size
        return packets, end


def trim(path: Path) -> tuple[int, int]:
    """Cuts off a packet that was written in part. Returns the packets and bytes that remain. Raises OSError."""
    packets, end = whole_packets(path)
    if end < path.stat().st_size:
        os.truncate(path, end)
    return packets, end
