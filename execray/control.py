"""The server of a daemon's control socket. Its client is execray.control_client.

execray.wire.control declares the messages. A handler is an async function (one result) or an async generator (an op that
follows something: one item for each value it yields, or the item's line where it is encoded already; it is closed when the
peer goes away).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from execray.control_client import NOT_PERMITTED, daemon_of
from execray.errors import OperatorError, PeerError
from execray.listener import Listener, ListenerStats, read_line, send
from execray.service import Peer, group_id, in_group
from execray.version import VERSION
from execray.wire.control import (
    CONTROL_VERSION,
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Request,
    decode_object,
    decode_request,
    encode_item,
    encode_line,
    encode_request,
)

Handler: TypeAlias = Callable[[Request, Peer], "Awaitable[object] | AsyncGenerator[object, None]"]
T = TypeVar("T")

MAX_CONNECTIONS: Final = 32
REQUEST_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 60.0


def argument(request: Request, name: str, kind: type[T], default: T | None = None) -> T:
    """Returns one argument of a request. Raises OperatorError when it is missing without a default, or of another type."""
    value = request.args.get(name, default)
    if value is None or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise OperatorError(f"`{request.op}` needs `{name}`, of type {kind.__name__}", "see docs/wire.md")
    return value


def require_root(peer: Peer, op: str) -> None:
    """Raises OperatorError for everybody but root: what changes how far ExecRay may go is not for a group."""
    if peer.uid != 0:
        raise OperatorError(f"uid {peer.uid} may not ask for `{op}`", "be root")


def asked_mode(request: Request, peer: Peer, log: logging.Logger) -> str:
    """Returns the mode that `mode` asks for, and says in the log who did. Raises OperatorError, also for all but root."""
    mode = argument(request, "mode", str)
    require_root(peer, request.op)
    if mode not in ("audit", "enforce"):
        raise OperatorError(f"there is no mode `{mode[:32]}`", "it is audit or enforce")
    log.warning("mode changed", extra={"kv": {"mode": mode, "uid": peer.uid, "peer": peer.pid}})
    return mode


class ControlServer:
    """Answers control requests of root, our own uid and the members of a group."""

    def __init__(
        self,
        path: Path,
        group: str,
        handlers: Mapping[str, Handler],
        log: logging.Logger,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        slow: Mapping[str, float] | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """path: in a folder named after the daemon. `version` is answered here; a handler of that name wins.

        slow: bounds, in seconds, of the operations that may take longer than request_timeout_s.
        """
        self._daemon = daemon_of(path)
        self._group = group
        self._handlers: dict[str, Handler] = {"version": self._version, **handlers}
        self._log = log
        self._timeout_s = request_timeout_s
        self._slow = dict(slow or {})
        self._listener = Listener(
            path,
            group,
            permits=self._permits,
            serve=self._serve,
            refusal=self._refusal,
            max_connections=max_connections,
            max_line_bytes=MAX_REQUEST_BYTES,
        )

    @property
    def stats(self) -> ListenerStats:
        """Connections accepted, refused and open."""
        return self._listener.stats

    async def open(self) -> None:
        """Binds the socket. Raises OperatorError."""
        await self._listener.open()

    async def run(self) -> None:
        """Serves until cancelled, then removes the socket. open() comes first."""
        await self._listener.run()

    def close(self) -> None:
        """Stops listening, for a daemon that gives up between open() and run()."""
        self._listener.close()

    def _permits(self, peer: Peer) -> bool:
        if peer.uid in (0, os.geteuid()):
            return True
        gid = group_id(self._group) if self._group else None
        return gid is not None and in_group(peer, gid)

    def _refusal(self, reason: str, peer: Peer) -> bytes:
        self._log.warning("control peer refused", extra={"kv": {"reason": reason, "uid": peer.uid, "peer": peer.pid}})
        hint = f"be root, or a member of the group `{self._group}`" if reason == NOT_PERMITTED else "try again later"
        return _failure(reason, hint)

    async def _version(self, _request: Request, _peer: Peer) -> object:
        return {"name": self._daemon, "version": VERSION, "pid": os.getpid(), "control": CONTROL_VERSION}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> None:
        while True:
            try:
                line = await read_line(reader, IDLE_TIMEOUT_S)
                if line is None:
                    return
                request = decode_request(line)
            except PeerError as error:
                self._log.warning(
                    "bad control request", extra={"kv": {"reason": error, "uid": peer.uid, "peer": peer.pid}}
                )
                await send(writer, _failure(str(error), f"this is {self._daemon} {VERSION}"))
                raise
            handler = self._handlers.get(request.op)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                await send(writer, _failure(f"{self._daemon} has no operation `{request.op[:64]}`", f"it has {known}"))
                continue
            answer = handler(request, peer)
            if isinstance(answer, AsyncGenerator):
                await self._follow(answer, reader, writer)
                return
            await send(writer, await self._reply(request, answer))

    async def _reply(self, request: Request, answer: Awaitable[object]) -> bytes:
        timeout_s = self._slow.get(request.op, self._timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                result = await answer
        except OperatorError as error:
            return _failure(error.message, error.hint)
        except TimeoutError:
            return _failure(f"`{request.op}` took longer than {timeout_s:g} s", f"is {self._daemon} overloaded?")
        except OSError as error:
            return _failure(f"`{request.op}` failed: {error}", f"{self._daemon}'s log may say more")
        line = encode_line({"ok": True, "result": result})
        if len(line) > MAX_REPLY_BYTES:
            return _failure(f"the answer to `{request.op}` has {len(line)} bytes", "ask for less at a time")
        return line

    async def _follow(
        self, items: AsyncGenerator[object, None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Sends items until they end or the peer closes its side, or writes another byte."""
        pump = asyncio.create_task(_pump(items, writer))
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            pump.cancel()
            await asyncio.wait({pump, gone})
            await items.aclose()
        # What a finished task raised belongs to the caller; a cancelled one was stopped above.
        for task in (pump, gone):
            if not task.cancelled():
                task.result()


async def _pump(items: AsyncGenerator[object, None], writer: asyncio.StreamWriter) -> None:
    try:
        async for item in items:
            await send(writer, item if isinstance(item, bytes) else encode_item(item))
    except OperatorError as error:
        await send(writer, _failure(error.message, error.hint))


def _failure(error: str, hint: str) -> bytes:
    return encode_line({"ok": False, "error": error, "hint": hint})


async def ask(path: Path, op: str, timeout_s: float) -> dict[str, Any]:
    """Asks another daemon something, and returns the whole reply. Raises OSError, TimeoutError or PeerError for none."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path, limit=MAX_REPLY_BYTES)
        try:
            await send(writer, encode_request(Request(op)))
            line = await read_line(reader)
        finally:
            writer.close()
    return decode_object(line or b"")


async def no_answer(path: Path, timeout_s: float) -> str:
    """Asks a daemon for its version; returns "" when it answers, else why not. That it has no time for us is an answer."""
    try:
        await ask(path, "version", timeout_s)
    except TimeoutError:
        return f"no answer at {path} within {timeout_s:g} s"
    except (OSError, PeerError) as error:
        return f"no answer at {path}: {error}"
    return ""
