"""When the ring is read: at once what may ask for something to be done, and what comes alone; the rest in company.

Most events of a busy host lead to nothing by themselves, and two daemons that wake for each of them cost the host many times
what the events do. So after a look into the ring, records gather for a while. The last one that was read isn't given back until
then: the kernel takes the reader to be behind, and wakes it only for a record that is urgent (er_send_as() in
bpf/include/execray/maps.h), which ends the wait.

Nobody is woken for the record of a kill in the kernel: that would keep the processor from the kill. The process's end wakes the
reader a moment later (er_inline_put_last() in bpf/include/execray/inline.h); should that be held up, a look without being woken
finds it, as the end of a rest does.
"""

from __future__ import annotations

import asyncio
import select
import struct
from collections.abc import Callable
from typing import Final

from execray.schema.layout import ER_GATHERED, ER_KIND_URGENT
from tracerd.ringbuf import RingReader

_KIND: Final = struct.Struct("<H")
_KIND_AT: Final = 4  # er_header::kind
#: More records than so many are read before it is known what is among them.
_LOOKED_THROUGH: Final = 64
#: How long what nobody is woken for may lie in the ring while none gather, in s.
_LOOK_S: Final = 0.1
_EDGE: Final = select.EPOLLIN | select.EPOLLET


class Pacing:
    """Calls `read` when it is time to. The loop must be running; close() before the ring is unmapped."""

    def __init__(self, ring: RingReader, rest_s: float, read: Callable[[], None]) -> None:
        """read: takes what is in the ring, and calls rest(). rest_s: how long records gather after it has."""
        self._ring = ring
        self._rest_s = rest_s
        self._read = read
        self._loop = asyncio.get_running_loop()
        # Edge-triggered, for while records gather there is always one to be read.
        self._edges = select.epoll()
        self._edges.register(ring.fd, _EDGE)
        self._timer: asyncio.TimerHandle | None = None
        self._looks = False
        self._look: asyncio.TimerHandle | None = None  # never beside the other
        self._loop.add_reader(self._edges.fileno(), self._woken)

    def rest(self) -> None:
        """Lets records gather: the ring has just been read up, and given back but for the last record."""
        if self._timer is None:
            self._look_later(False)
            self._timer = self._loop.call_later(self._rest_s, self._rested)

    def keep_looking(self, on: bool) -> None:
        """on: the kernel may put in what it wakes nobody for, so while none gather the ring is looked at every 0.1 s."""
        self._looks = on
        self._look_later(self._timer is None)

    def close(self) -> None:
        """Calls nobody any more."""
        self._loop.remove_reader(self._edges.fileno())
        self._look_later(False)
        if self._timer is not None:
            self._timer.cancel()
        self._edges.close()

    def _woken(self) -> None:
        self._edges.poll(0)  # takes the edge, so that the next one is seen
        if self._timer is None or self._ring.waiting_bytes >= ER_GATHERED or self._is_urgent():
            self._read()

    def _rested(self) -> None:
        self._timer = None
        if self._ring.position < self._ring.end:
            self._read()
        else:
            self._ring.release()
        # What was submitted just before that woke nobody, also where nothing was whole yet. The kernel looks again, behind a
        # barrier, and it is an edge.
        if self._timer is None:
            self._edges.modify(self._ring.fd, _EDGE)
            self._look_later(True)

    def _look_later(self, on: bool) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self._loop.call_later(_LOOK_S, self._looked) if on and self._looks else None

    def _looked(self) -> None:
        self._look_later(True)
        if self._ring.position < self._ring.end:
            self._read()

    def _is_urgent(self) -> bool:
        data = self._ring.data
        for looked, at in enumerate(self._ring.look_ahead()):
            # One that is still being written may hide another, of whose wake-up this is.
            if looked >= _LOOKED_THROUGH or at is None or _KIND.unpack_from(data, at + _KIND_AT)[0] & ER_KIND_URGENT:
                return True
        return False
