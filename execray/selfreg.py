"""Tells tracerd which processes are ExecRay's own, so that their events aren't reported: each batch would make another.

tracerd knows the daemon by SO_PEERCRED, and keeps the connection open. When it closes, tracerd is gone, and its successor
has to be told again.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final

from execray.control_client import OperationFailed
from execray.errors import PeerError
from execray.guard import OwnProcesses
from execray.listener import read_line, send
from execray.service import close_writer, peer_of
from execray.wire.control import MAX_REQUEST_BYTES, Request, decode_object, encode_request

RETRY_S: Final = 1.0
ANSWER_TIMEOUT_S: Final = 5.0


class Registration:
    """Keeps this process registered with tracerd until run() is cancelled."""

    def __init__(self, path: Path, role: str, log: logging.Logger, own: OwnProcesses | None = None) -> None:
        """path: tracerd's control socket. role: `enforcer` or `policyd`. own: takes in tracerd's process while it lives."""
        self.registered = False
        self._path = path
        self._role = role
        self._log = log
        self._own = own
        self._complained = False

    async def run(self) -> None:
        """Registers, waits until tracerd goes away, and does it again, once a second while it isn't there."""
        while True:
            try:
                await self._register()
            except (OSError, PeerError, OperationFailed, TimeoutError) as error:
                if not self._complained:
                    self._complained = True
                    self._log.info("not registered", extra={"kv": {"reason": error}})
            await asyncio.sleep(RETRY_S)

    async def _register(self) -> None:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_REQUEST_BYTES)
        entry = None
        try:
            if self._own is not None:
                entry = self._own.add(peer_of(writer.get_extra_info("socket")).pid)
            await send(writer, encode_request(Request("register_self", {"role": self._role})))
            line = await read_line(reader, ANSWER_TIMEOUT_S)
            if line is None:
                raise PeerError("tracerd closed the connection")
            reply = decode_object(line)
            if reply.get("ok") is not True:
                raise OperationFailed(str(reply.get("error")), str(reply.get("hint", "")))
            self.registered, self._complained = True, False
            self._log.info("registered")
            while await read_line(reader) is not None:
                pass
            self._log.info("tracerd went away")
        finally:
            self.registered = False
            if self._own is not None:
                self._own.discard(entry)
            await close_writer(writer)


async def register_forever(path: Path, role: str, log: logging.Logger) -> None:
    """Keeps this process registered with tracerd until cancelled."""
    await Registration(path, role, log).run()
