"""All that tracerd sees, into a file. `execray-ctl record` leaves out what policyd has no time for; a build is more."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import zstandard

from execray.wire.frames import Batch, Decoder, Heartbeat, Subscribe, encode
from policyd.stream_client import StreamClient

CONNECT_S: Final = 15.0
HEARTBEAT_S: Final = 10.0  # a busy machine's may be late
_CHUNK: Final = 1 << 20


class _Recorder:
    """Stands where policyd would, and keeps what it is given."""

    def __init__(self, file: IO[bytes], codes: Iterable[int]) -> None:
        self.client: StreamClient | None = None
        self.connected = threading.Event()
        self._file = file
        self._codes = tuple(sorted(codes))

    def subscription(self) -> Subscribe:
        return Subscribe(self._codes, 0)

    def batch(self, batch: Batch, stream_id: str) -> bool:
        self._file.write(encode(batch))
        assert self.client is not None
        self.client.acknowledge(stream_id, batch.seq)
        return True

    async def room(self) -> None:
        """There always is some."""

    def heartbeat(self, heartbeat: Heartbeat) -> None:
        self.connected.set()


@contextmanager
def recording(stream_socket: Path, output: Path, codes: Iterable[int]) -> Iterator[None]:
    """Writes the events of these kinds from a stream socket into a file, for as long as the body runs."""
    with zstandard.open(output, "wb") as file:
        recorder = _Recorder(file, codes)
        client = recorder.client = StreamClient(stream_socket, recorder, HEARTBEAT_S, logging.getLogger("recorder"))
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.run())

        def serve() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass  # the ordinary way to end it
            finally:
                loop.close()

        thread = threading.Thread(target=serve, name="recorder")
        thread.start()
        try:
            if not recorder.connected.wait(CONNECT_S):
                raise TimeoutError(f"no sign of life from {stream_socket}: {client.link.error}")
            yield
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()


def recorded(path: Path) -> Iterator[Batch]:
    """Yields the batches of such a file."""
    decoder = Decoder()
    with zstandard.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for frame in decoder.feed(chunk):
                assert isinstance(frame, Batch)
                yield frame
