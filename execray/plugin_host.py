"""The process of one plug-in: `python -m execray.plugin_host GROUP NAME`. policyd starts it; by hand it does nothing.

Standard input is the socket to policyd. It gives up all that a plug-in must not have before the plug-in is imported.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from execray.errors import OperatorError, PeerError
from execray.plugin_confine import confine
from execray.plugin_index import find, search_path
from execray.plugins import ACTIONS, API_VERSION, SINKS, ActionRequest
from execray.wire.plugins import (
    MAX_ITEM_BYTES,
    Answer,
    Hello,
    decode_hello,
    decode_item,
    encode_answer,
)

#: In the module of an entry point: the version of execray.plugins that it was written for.
API_MARK: Final = "EXECRAY_API"

Take = Callable[[dict[str, Any]], None]


class Refused(Exception):
    """The plug-in can't be used, and its author or the operator must mend it."""


class Channel:
    """The socket to policyd, line by line."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = sock.makefile("rb")

    @classmethod
    def take(cls) -> Channel:
        """Takes the socket from standard input, which becomes /dev/null; closes whatever else it was born with but output."""
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names, not paths
            if int(name) > 2:
                with contextlib.suppress(OSError):  # the folder's own is closed by now
                    os.close(int(name))
        fd = os.dup(0)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(socket.socket(fileno=fd))

    def lines(self) -> Iterator[bytes]:
        """Yields what policyd says until it closes its side. Raises PeerError for a line that is too long."""
        while line := self._reader.readline(MAX_ITEM_BYTES + 1):
            if not line.endswith(b"\n"):
                raise PeerError("the line is too long")
            yield line

    def answer(self, answer: Answer) -> None:
        """Sends one answer."""
        self._sock.sendall(encode_answer(answer))


def main() -> int:
    """Serves one plug-in until policyd closes its side; returns the exit status."""
    if len(sys.argv) != 3 or sys.argv[1] not in (SINKS, ACTIONS):
        sys.stderr.write("error: this is started by policyd\nhint: see docs/plugins.md\n")
        return 2
    group, name = sys.argv[1:]
    channel = Channel.take()
    lines = channel.lines()
    first = next(lines, None)
    if first is None:
        return 0
    hello = decode_hello(first)
    try:
        confine(hello.memory_mib, hello.parent_pid)
        take, close = _make(group, name, hello)
    except (Refused, OperatorError, OSError) as error:
        channel.answer(Answer(0, str(error)))
        return 1
    channel.answer(Answer(0))
    for line in lines:
        n, item = decode_item(line)
        channel.answer(Answer(n, _failure(take, item)))
    close()
    return 0


def _make(group: str, name: str, hello: Hello) -> tuple[Take, Callable[[], None]]:
    """Imports the plug-in and makes it; returns what takes an item, and what ends it. Raises Refused or OperatorError."""
    folder = Path(hello.folder)
    entry = find(group, name, folder).entry
    sys.path[:] = search_path(folder)
    try:
        module = importlib.import_module(entry.module)
        written_for = getattr(module, API_MARK, None)
        if written_for != API_VERSION:
            raise Refused(f"{entry.module}.{API_MARK} is {written_for!r}, and this is version {API_VERSION}")
        plugin = entry.load()(hello.settings)
        if group == SINKS:
            return plugin.write, plugin.close
        act = plugin.act
    except Refused:
        raise
    except Exception as error:  # whatever foreign code raises
        traceback.print_exc()
        raise Refused(_words(error)) from error
    return lambda item: act(ActionRequest.from_json(item)), lambda: None


def _failure(take: Take, item: dict[str, Any]) -> str | None:
    try:
        take(item)
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises: told, and the plug-in lives on
        traceback.print_exc()
        return _words(error)
    return None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
