"""A Unix socket server with its bounds: who may connect, how many at once, how long a line.

The order server and the control servers are both built on it. Connections run in the task group of `run`, so a bug in one
ends the daemon with its traceback instead of being logged and forgotten.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from execray.errors import PeerError
from execray.service import Peer, close_writer, listen_unix, peer_of, write

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Peer], Awaitable[None]]
Connected: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]

WRITE_TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class ListenerStats:
    """Counts since start, and the connections open now."""

    accepted: int = 0
    refused: int = 0  # peers that are not permitted
    over_limit: int = 0  # turned away because too many were connected
    bad: int = 0  # peers that broke the protocol
    open: int = 0


class Listener:
    """Listens on a path, authorises each accept by SO_PEERCRED, and runs `serve` for every connection."""

    def __init__(
        self,
        path: Path,
        group: str,
        *,
        permits: Callable[[Peer], bool],
        serve: Serve,
        refusal: Callable[[str, Peer], bytes],
        max_connections: int,
        max_line_bytes: int,
        protocol: Callable[
            [asyncio.StreamReader, Connected], asyncio.StreamReaderProtocol
        ] = asyncio.StreamReaderProtocol,
    ) -> None:
        """refusal: makes the line sent before a connection is closed, from `not permitted` or `too many connections`.

        protocol: makes what takes the bytes of a connection.
        """
        self.path = path
        self.stats = ListenerStats()
        self._group = group
        self._permits = permits
        self._serve = serve
        self._refusal = refusal
        self._max_connections = max_connections
        self._max_line_bytes = max_line_bytes
        self._protocol = protocol
        self._server: asyncio.Server | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._inode = (0, 0)

    async def open(self) -> None:
        """Binds the socket; from here on peers can connect. Raises OperatorError."""
        sock = listen_unix(self.path, self._group)
        found = self.path.stat()
        self._inode = (found.st_dev, found.st_ino)
        # Accepting begins in run(): what connects before that waits in the backlog.
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: self._protocol(asyncio.StreamReader(self._max_line_bytes), self._accept),
            sock=sock,
            start_serving=False,
        )

    async def run(self) -> None:
        """Serves until cancelled, then removes the socket and closes every connection."""
        assert self._server is not None, "open() comes first"
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._server.start_serving()
                await asyncio.get_running_loop().create_future()
        finally:
            self.close()

    def close(self) -> None:
        """Stops listening and removes the socket file. Connections live on until run() is cancelled."""
        if self._server is None:
            return
        # The file goes first, and only when it is still ours: a successor may have bound the same path meanwhile.
        try:
            found = self.path.stat()
            if (found.st_dev, found.st_ino) == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            pass
        except PermissionError:
            pass  # the folder was taken from us: the file stays, answers nobody, and the next start replaces it
        self._server.close()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None or self._tasks is None:
            writer.transport.abort()
            return
        self._tasks.create_task(self._connection(reader, writer))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = peer_of(writer.get_extra_info("socket"))
            if not self._permits(peer):
                self.stats.refused += 1
                write(writer, self._refusal("not permitted", peer))
            elif self.stats.open >= self._max_connections:
                self.stats.over_limit += 1
                write(writer, self._refusal("too many connections", peer))
            else:
                await self._serve_counted(reader, writer, peer)
        except (OSError, TimeoutError):
            pass  # the peer is gone, or doesn't read: nothing is left to tell it
        finally:
            await close_writer(writer)

    async def _serve_counted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        self.stats.accepted += 1
        self.stats.open += 1
        try:
            await self._serve(reader, writer, peer)
        except PeerError:
            self.stats.bad += 1
        finally:
            self.stats.open -= 1


def permits_uids(*uids: int) -> Callable[[Peer], bool]:
    """Returns a check that lets in root, our own uid and these."""
    permitted = {0, os.geteuid(), *uids}
    return lambda peer: peer.uid in permitted


async def read_line(reader: asyncio.StreamReader, timeout_s: float | None = None) -> bytes | None:
    """Returns one line with its newline, None at the end of the stream.

    Raises PeerError for a line over the reader's limit or cut off by the end, TimeoutError when none came in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as error:
        raise PeerError("the line is too long") from error
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise PeerError("the line has no end") from error
        return None


async def send(writer: asyncio.StreamWriter, line: bytes, timeout_s: float = WRITE_TIMEOUT_S) -> None:
    """Writes a line and waits until the peer takes it up. Raises OSError, or TimeoutError for one that doesn't read."""
    write(writer, line)
    async with asyncio.timeout(timeout_s):
        await writer.drain()
