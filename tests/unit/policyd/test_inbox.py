"""The stream's frames as they come: handed on at once, in order, and held back while there is no room."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
import uvloop

from execray.errors import PeerError
from execray.wire.frames import Ack, Frame, Hello, encode
from policyd.inbox import Inbox
from tests.support.fake_tracerd import until

HELLO = Hello("tracerd", {})
Test: TypeAlias = Callable[["Ends"], Awaitable[None]]


class Ends:
    """An inbox, the other end of its connection, and what was taken from it."""

    def __init__(self, inbox: Inbox, writer: asyncio.StreamWriter) -> None:
        self.inbox = inbox
        self.writer = writer
        self.taken: list[Frame] = []
        self.most = 1 << 30  # that are taken before there is no room
        self.space = asyncio.Event()
        self.asked = 0  # for room

    def take(self, frame: Frame) -> bool:
        self.taken.append(frame)
        return len(self.taken) < self.most

    async def room(self) -> None:
        self.asked += 1
        await self.space.wait()
        self.most = 1 << 30

    async def serve(self) -> None:
        await self.inbox.serve(self.take, self.room)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def connected(request: pytest.FixtureRequest) -> Iterator[Callable[[Test], None]]:
    """Runs a test with a connection whose other end has sent its hello."""

    async def run(path: Path, test: Test) -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue(1)
        server = await asyncio.start_unix_server(lambda _, writer: accepted.put_nowait(writer), path)
        inbox = Inbox()
        try:
            async with asyncio.timeout(20):
                await asyncio.get_running_loop().create_unix_connection(lambda: inbox, str(path))
                writer = await accepted.get()
                writer.write(encode(HELLO) + encode(Ack(0)))
                assert await inbox.first() == HELLO
                await test(Ends(inbox, writer))
        finally:
            await inbox.close()
            writer.close()
            server.close()
            await server.wait_closed()

    def runs(test: Test) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(run(Path(folder) / "s", test))

    with tempfile.TemporaryDirectory(prefix="er", dir="/run" if os.access("/run", os.W_OK) else None) as folder:
        yield runs


def test_frames_are_handed_on_in_order_until_the_connection_ends(connected: Callable[[Test], None]) -> None:
    async def test(ends: Ends) -> None:
        serving = asyncio.create_task(ends.serve())
        await until(lambda: ends.taken == [Ack(0)])  # it came with the hello
        raw = b"".join(encode(Ack(seq)) for seq in range(1, 100))
        for at in range(0, len(raw), 7):
            ends.writer.write(raw[at : at + 7])
        ends.writer.close()
        await serving
        assert ends.taken == [Ack(seq) for seq in range(100)] and ends.asked == 0

    connected(test)


def test_nothing_is_taken_while_there_is_no_room_and_nothing_is_lost(connected: Callable[[Test], None]) -> None:
    async def test(ends: Ends) -> None:
        ends.most = 3
        serving = asyncio.create_task(ends.serve())
        ends.writer.write(b"".join(encode(Ack(seq)) for seq in range(1, 50)))
        await until(lambda: ends.asked == 1)
        ends.writer.write(encode(Ack(50)))
        ends.writer.close()
        await asyncio.wait({serving}, timeout=0.05)
        assert len(ends.taken) == 3 and ends.inbox.held
        ends.space.set()
        await serving
        assert ends.taken == [Ack(seq) for seq in range(51)] and not ends.inbox.held

    connected(test)


def test_what_is_no_frame_ends_it_with_the_peers_error(connected: Callable[[Test], None]) -> None:
    async def test(ends: Ends) -> None:
        ends.writer.write(b"\0\0\0\1\xc1")
        with pytest.raises(PeerError):
            await ends.serve()
        assert ends.taken == [Ack(0)]

    connected(test)


def test_a_mistake_of_who_takes_the_frames_is_raised(connected: Callable[[Test], None]) -> None:
    async def test(ends: Ends) -> None:
        def take(frame: Frame) -> bool:
            raise KeyError(frame)

        with pytest.raises(KeyError):
            await ends.inbox.serve(take, ends.room)

    connected(test)
