"""The frames of one connection, handed on in the moment they come.

A task that waits for bytes costs a future and a turn of the loop for each batch, which on a quiet host is each event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import cast

from execray.errors import PeerError
from execray.wire.frames import Decoder, Frame


class Inbox(asyncio.Protocol):
    """Made for one connection. Holds the frames of one read at most: while nobody takes them, no more is read."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.bytes_read = 0
        self.held = False  # who takes frames has no room for more
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()
        self._take: Callable[[Frame], bool] | None = None
        self._error: Exception | None = None
        self._over = False  # nothing comes any more
        self._moved = asyncio.Event()
        self._closed = asyncio.Event()

    async def first(self) -> Frame | None:
        """Waits for the first frame; None where the connection ended before it. Raises PeerError and OSError."""
        await self._moved.wait()
        if self._frames:
            return self._frames.popleft()
        if self._error is not None:
            raise self._error
        return None

    async def serve(self, take: Callable[[Frame], bool], room: Callable[[], Awaitable[None]]) -> None:
        """Calls `take` with every frame, until the connection ends; where it returns False, no more before `room` returns.

        Raises PeerError, OSError, and what `take` raises.
        """
        self._take = take
        self._resume()
        self._hand_on()
        while True:
            await self._moved.wait()
            if self._error is not None:
                raise self._error
            if self.held:
                await room()
                self.held = False
                self._resume()
                self._hand_on()
            elif self._over:
                return

    async def close(self, timeout_s: float = 1.0) -> None:
        """Closes the connection and waits, within a bound, until it is closed."""
        if self.transport is None:
            return
        self.transport.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # which uvloop's are, but not by their class

    def data_received(self, data: bytes) -> None:
        self.bytes_read += len(data)
        try:
            self._frames.extend(self._decoder.feed(data))
        except PeerError as error:
            self._fail(error)
        else:
            self._hand_on()

    def eof_received(self) -> None:
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._end(exc)

    def _hand_on(self) -> None:
        frames, take = self._frames, self._take
        if take is None:
            if frames:  # the hello; what it tells decides whether anything else is taken
                self._moved.set()
                self._pause()
            return
        try:
            while frames and not self.held and self._error is None:
                if not take(frames.popleft()):
                    self.held = True
                    self._pause()
        except Exception as error:  # noqa: BLE001  # serve() raises it, where it is seen: nothing is swallowed
            self._fail(error)
        if self.held or self._over or self._error is not None:
            self._moved.set()
        else:
            self._moved.clear()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._pause()
        self._moved.set()

    def _end(self, error: Exception | None) -> None:
        self._over = True
        if error is not None and not self._frames:
            self._fail(error)
        self._moved.set()

    def _pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
