"""Lines of a connection: handed on as they come, in any pieces, and no further than there is room for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from enforcer.intake import Intake
from execray.errors import PeerError

MAX_LINE_BYTES = 64


class Wire(asyncio.Transport):
    """A transport that a test feeds by hand."""

    def __init__(self, intake: Intake) -> None:
        super().__init__()
        self.intake = intake
        self.reading = True
        self.closing = False
        intake.connection_made(self)

    def feed(self, data: bytes) -> None:
        while data:
            assert self.reading, "it is not read while there is no room"
            buffer = self.intake.get_buffer(-1)
            count = min(len(data), len(buffer))
            buffer[:count] = data[:count]
            data = data[count:]
            self.intake.buffer_updated(count)

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Taker:
    """Takes so many lines, then says that it has no room."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.lines: list[bytes] = []
        self.room = room

    def __call__(self, line: bytes) -> bool:
        if line == b"bad\n":
            raise PeerError("no order")
        self.lines.append(line)
        self.room -= 1
        return self.room > 0


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire(Intake(asyncio.StreamReader(), lambda _reader, _writer: None, MAX_LINE_BYTES))
    yield made
    made.closing = True


async def serve(made: Intake, taker: Taker) -> asyncio.Task[None]:
    task = asyncio.create_task(made.serve(taker))
    await asyncio.sleep(0)
    return task


async def test_lines_are_taken_before_the_feeding_call_returns(wire: Wire) -> None:
    made = wire.intake
    taker = Taker()
    task = await serve(made, taker)
    wire.feed(b"one\ntwo\n")
    assert taker.lines == [b"one\n", b"two\n"]
    made.eof_received()
    await task


@pytest.mark.parametrize("size", [1, 2, 5, 7, 64])
async def test_pieces_make_no_difference(wire: Wire, size: int) -> None:
    made = wire.intake
    taker = Taker()
    task = await serve(made, taker)
    sent = [b"%d%s\n" % (number, b"x" * (number % 60)) for number in range(100)]
    data = b"".join(sent)
    for at in range(0, len(data), size):
        wire.feed(data[at : at + size])
    made.eof_received()
    await task
    assert taker.lines == sent


async def test_what_comes_before_somebody_takes_it_waits(wire: Wire) -> None:
    made = wire.intake
    wire.feed(b"one\nhal")
    made.eof_received()
    taker = Taker()
    with pytest.raises(PeerError, match="has no end"):
        await made.serve(taker)
    assert taker.lines == [b"one\n"]


async def test_lines_wait_while_there_is_no_room_and_the_peer_is_not_read_for_ever(wire: Wire) -> None:
    made = wire.intake
    taker = Taker(room=2)
    task = await serve(made, taker)
    count = 0
    while wire.is_reading():
        wire.feed(b"0123456789\n")
        count += 1
    assert len(taker.lines) == 2 and 2 < count < 100_000
    for room in (1, 3, 1_000_000):
        before, taker.room = len(taker.lines), room
        made.resume()
        assert len(taker.lines) == min(count, before + room)
    assert wire.is_reading()
    made.eof_received()
    await task
    assert taker.lines == [b"0123456789\n"] * count


async def test_end_is_seen_behind_lines_that_wait(wire: Wire) -> None:
    made = wire.intake
    taker = Taker(room=1)
    task = await serve(made, taker)
    wire.feed(b"one\ntwo\n")
    made.eof_received()
    await asyncio.sleep(0)
    assert taker.lines == [b"one\n"] and not task.done()
    taker.room = 5
    made.resume()
    await task
    assert taker.lines == [b"one\n", b"two\n"]


async def test_refused_line_ends_it_and_nothing_behind_it_is_taken(wire: Wire) -> None:
    made = wire.intake
    taker = Taker()
    task = await serve(made, taker)
    wire.feed(b"one\nbad\ntwo\n")
    with pytest.raises(PeerError, match="no order"):
        await task
    assert made.refused == b"bad\n" and taker.lines == [b"one\n"]
    wire.feed(b"three\n" * 100_000)
    made.resume()
    assert taker.lines == [b"one\n"]


@pytest.mark.parametrize("pieces", [(b"x" * MAX_LINE_BYTES,), (b"x" * (MAX_LINE_BYTES - 1), b"x"), (b"x" * 100_000,)])
async def test_line_that_does_not_end_is_refused_once_it_is_too_long(wire: Wire, pieces: tuple[bytes, ...]) -> None:
    made = wire.intake
    task = await serve(made, Taker())
    for piece in pieces:
        wire.feed(piece)
    with pytest.raises(PeerError, match="too long"):
        await task
    assert made.refused == b""


async def test_longest_line_is_taken(wire: Wire) -> None:
    made = wire.intake
    taker = Taker()
    task = await serve(made, taker)
    line = b"x" * (MAX_LINE_BYTES - 1) + b"\n"
    wire.feed(line * 3)
    made.eof_received()
    await task
    assert taker.lines == [line] * 3


async def test_bug_of_who_takes_lines_comes_out_where_it_is_seen(wire: Wire) -> None:
    made = wire.intake

    def fail(_line: bytes) -> bool:
        raise ZeroDivisionError

    task = asyncio.create_task(made.serve(fail))
    await asyncio.sleep(0)
    wire.feed(b"one\n")
    with pytest.raises(ZeroDivisionError):
        await task


async def test_lost_connection_ends_it(wire: Wire) -> None:
    made = wire.intake
    task = await serve(made, Taker())
    wire.feed(b"half")
    wire.closing = True
    made.connection_lost(ConnectionResetError())
    await task


async def test_nothing_is_taken_once_it_was_stopped(wire: Wire) -> None:
    made = wire.intake
    taker = Taker()
    task = await serve(made, taker)
    made.stop()
    wire.feed(b"one\n")
    await asyncio.gather(task, return_exceptions=True)
    assert taker.lines == []
