"""A BPF ring buffer, read by mapping it: descriptor in, records out. Knows no record's layout.

Layout of the mapping (Linux Documentation/bpf/ringbuf.rst): one page with the consumer's position, one with the producer's,
then the data twice in a row, so that a record which wraps around is contiguous all the same. Each record has a header of
8 bytes: its length, with a bit for "still being written" and one for "discarded", and 4 bytes of the kernel's own.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_HEADER_BYTES: Final = 8
_LENGTH = struct.Struct("<I")


class RingReader:
    """The one consumer of a ring. Wait for the descriptor to be readable, then take records until there are none."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        """Maps the ring. Raises OSError."""
        page = mmap.PAGESIZE
        self.fd = fd
        self.size_bytes = size_bytes
        self.used_max_bytes = 0  # the fullest it was
        self._mask = size_bytes - 1
        self._consumer_map = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._data_map = mmap.mmap(fd, page + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # A cast view stores all 8 bytes at once; a slice assignment might not, and the kernel reads this concurrently.
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._data_map)[:page].cast("Q")
        self.data = memoryview(self._data_map)[page:]
        self.position: int = self._consumer[0]  # of the next record
        self._last = self.position  # of the last one that was taken

    @property
    def end(self) -> int:
        """The position behind the last record, whole or still being written."""
        end: int = self._producer[0]
        return end

    @property
    def waiting_bytes(self) -> int:
        """How much lies in the ring as the kernel sees it, which is behind by what wasn't given back."""
        waiting: int = self._producer[0] - self._consumer[0]
        return waiting

    def next(self) -> tuple[int, int] | None:
        """Returns (offset in data, length) of the next whole record and steps over it; None when there is none yet.

        The bytes stay valid until release() gives them back.
        """
        while self.position < self._producer[0]:
            offset = self.position & self._mask
            (word,) = _LENGTH.unpack_from(self.data, offset)
            if word & _BUSY:
                return None
            length = word & ~_DISCARDED
            self._last = self.position
            self.position += _step(length)
            if not word & _DISCARDED:
                return offset + _HEADER_BYTES, length
        return None

    def look_ahead(self) -> Iterator[int | None]:
        """Yields where in data each record is that wasn't taken; None for one that is still being written, and ends there."""
        position = self.position
        while position < self._producer[0]:
            offset = position & self._mask
            (word,) = _LENGTH.unpack_from(self.data, offset)
            if word & _BUSY:
                yield None
                return
            if not word & _DISCARDED:
                yield offset + _HEADER_BYTES
            position += _step(word & ~_DISCARDED)

    def release(self, *, but_last: bool = False) -> None:
        """Gives everything taken so far back to the kernel.

        but_last: but for the last record, so that to the kernel the reader hasn't caught up, and is woken only by force.
        """
        # just before room is made, it is as full as it gets
        self.used_max_bytes = max(self.used_max_bytes, self._producer[0] - self._consumer[0])
        self._consumer[0] = self._last if but_last else self.position

    def close(self) -> None:
        """Unmaps the ring; the descriptor stays its owner's."""
        self.data.release()
        self._producer.release()
        self._consumer.release()
        self._data_map.close()
        self._consumer_map.close()


def _step(length: int) -> int:
    """From a record of so many bytes to the next."""
    return (length + _HEADER_BYTES + 7) & ~7
