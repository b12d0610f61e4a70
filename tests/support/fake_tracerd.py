"""tracerd's end of the event stream on a real socket, with real frames, sending what a test tells it to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from execray.errors import PeerError
from execray.process import boot_id
from execray.service import close_writer
from execray.wire.frames import Ack, Batch, Decoder, Frame, Heartbeat, Hello, Settle, Subscribe, Taken, encode

DEADLINE_S = 10.0


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Waits until the condition holds. Raises AssertionError after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what or condition}"
        await asyncio.sleep(0.002)


class FakeTracerd:
    """Listens like tracerd. What the subscriber sent is kept in lists, over all its connections."""

    def __init__(self, path: Path, stream_id: str = "stream-1") -> None:
        """path: config.stream_socket. stream_id: another one after a restart."""
        self.path = path
        self.stream_id = stream_id
        self.hellos: list[Hello] = []
        self.subscriptions: list[Subscribe] = []
        self.acks: list[int] = []
        self.settled: list[Settle] = []
        self.broken: list[str] = []  # what the subscriber did wrong
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.takes = True  # whether it says that it has taken a subscription
        self._taken = 0
        self._subscribed = False

    def hello(self) -> Frame:
        """What it says first; a test may replace it."""
        facts: dict[str, Any] = {"boot_id": boot_id(), "stream_id": self.stream_id, "pid": os.getpid(), "version": "0"}
        return Hello("tracerd", facts)

    async def start(self) -> None:
        """Listens."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def stop(self) -> None:
        """Goes away like a killed process: the connection is cut, the socket file stays and answers nobody."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        while self._tasks:
            await asyncio.wait(self._tasks, timeout=DEADLINE_S)

    def cut(self) -> None:
        """Cuts the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        self._subscribed = False

    @property
    def subscribed(self) -> bool:
        """Whether the subscriber of the connection as it is has said what it wants."""
        return self._subscribed

    async def send(self, *frames: Frame) -> None:
        """Sends frames to the subscriber; waits for one."""
        await self.send_raw(b"".join(encode(frame) for frame in frames))

    async def send_raw(self, data: bytes) -> None:
        """Sends any bytes to the subscriber; waits for one."""
        await until(lambda: self._subscribed, "a subscriber")
        assert self._writer is not None
        self._writer.write(data)
        await asyncio.wait_for(self._writer.drain(), DEADLINE_S)

    async def heartbeat(self, time_ns: int = 1, **stats: Any) -> None:
        """Sends a heartbeat."""
        await self.send(Heartbeat(time_ns, stats))

    async def acknowledged(self, batch: Batch) -> None:
        """Waits until the subscriber is done with a batch."""
        await until(lambda: self.acks and self.acks[-1] >= batch.seq, f"ack of {batch.seq}")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._writer = writer
        self._subscribed = False
        self._taken = 0
        decoder = Decoder()
        try:
            writer.write(encode(self.hello()))
            while data := await reader.read(1 << 16):
                for frame in decoder.feed(data):
                    self._take(frame)
        except PeerError as error:
            self.broken.append(str(error))
        except OSError:
            pass  # cut
        finally:
            if self._writer is writer:
                self.cut()
            await close_writer(writer)
            self._tasks.discard(task)

    def _take(self, frame: Frame) -> None:
        match frame:
            case Hello():
                self.hellos.append(frame)
            case Subscribe():
                self.subscriptions.append(frame)
                self._subscribed = True
                self._taken += 1
                if self.takes and self._writer is not None:
                    self._writer.write(encode(Taken(self._taken)))
            case Ack(seq):
                self.acks.append(seq)
            case Settle():
                self.settled.append(frame)
            case _:
                self.broken.append(f"unexpected {frame}")
