"""The lines of one connection, handed on in the turn of the loop in which they come.

A stream reader costs an order a block of memory that is mapped for it and unmapped again, a future, and another turn of the
loop: a sixth of a millisecond on a host where nothing else is being killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from execray.errors import PeerError

#: More than a Unix socket holds unread by default: whoever sends nonsense is read up, and so gets the answer to it.
_HELD_BYTES: Final = 256 * 1024


class Intake(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """Reads lines, into memory of its own; what is written goes through the stream's writer, as ever.

    While nobody takes lines, or who does has no room for more, the peer is read no further than it takes to hold some in store.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], None],
        max_line_bytes: int,
    ) -> None:
        """reader: of nothing; there is one because a stream's writer goes with one."""
        super().__init__(reader, connected)
        #: The line that was refused.
        self.refused = b""
        self._max = max_line_bytes
        self._held = bytearray(_HELD_BYTES)  # of which only what was ever read into is memory
        self._room = memoryview(self._held)
        self._begin = 0  # of the next line
        self._end = 0  # of what was read
        self._take: Callable[[bytes], bool] | None = None
        self._more = False  # who takes lines has room for them
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(self, take: Callable[[bytes], bool]) -> None:
        """Calls `take` with each line, its newline at its end, until the peer ends; where it returns False, resume() comes first.

        Raises PeerError for a line that is too long or has no end, and what `take` raises: then nothing more is taken.
        """
        self._take = take
        self.resume()
        await self._over

    @property
    def waits(self) -> bool:
        """Whether there is more than the line that is being taken."""
        return self._begin < self._end

    def resume(self) -> None:
        """There is room for more lines."""
        if not self._over.done():
            self._more = True
            self._hand_on()

    def stop(self) -> None:
        """Takes no more lines."""
        self._over.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        super().connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._over.done():
            return  # nobody wants it any more
        self._end += nbytes
        self._hand_on()

    def eof_received(self) -> bool:
        super().eof_received()
        self._ended = True
        if not self._over.done():
            self._hand_on()
        return True  # it may still read

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._over.done():
            self._over.set_result(None)

    def _hand_on(self) -> None:
        take, line = self._take, b""
        try:
            while take is not None and self._more and (after := self._held.find(b"\n", self._begin, self._end) + 1):
                line, self._begin = bytes(self._room[self._begin : after]), after
                self._more = take(line)
            line = b""
            self._make_room()
            if self._more and self._end >= self._max:
                raise PeerError("the line is too long")
            if self._more and self._ended:
                if self._end:
                    raise PeerError("the line has no end")
                self._over.set_result(None)
        except Exception as error:  # noqa: BLE001  # serve() raises it, where it is seen: nothing is swallowed
            self.refused, self._end = line, 0
            self._over.set_exception(error)
        self._read(self._more or self._end < _HELD_BYTES // 2)

    def _make_room(self) -> None:
        left = self._end - self._begin
        if self._begin:
            self._held[:left] = self._held[self._begin : self._end]
        self._begin, self._end = 0, left

    def _read(self, wanted: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or transport.is_reading() is wanted:
            return
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()
