"""One run of one plug-in's process, from its start to its end: its socket, its output, and how it ended.

Never blocks but for the start itself; policyd.plugin_lane decides when it has had enough.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Final

from execray.errors import PeerError
from execray.wire.plugins import MAX_ANSWER_BYTES, Answer, Hello, decode_answer, encode_hello
from policyd.spawn import Child

if TYPE_CHECKING:
    from execray.plugin_index import Installed

#: Of policyd's environment, what a plug-in may see; secrets of others may be in the rest.
ENVIRONMENT: Final = (
    *("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
REAP_S: Final = 5.0  # the kernel's time to end what was killed
_CHUNK_BYTES: Final = 64 * 1024

OUTPUT_PAUSE_S: Final = 0.05  # between two reads: one that prints without end is slowed down, and nobody else
OUTPUT_LINES: Final = 20  # kept
OUTPUT_LINE_BYTES: Final = 300


class PluginProcess:
    """A process of `execray.plugin_host`. Used by one thread."""

    def __init__(self, plugin: Installed, settings: dict[str, object], folder: str, memory_mib: int) -> None:
        """Starts it. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        output, theirs_out = os.pipe()
        try:
            self._child = Child(
                [sys.executable, "-P", "-s", "-u", "-B", "-m", "execray.plugin_host", plugin.group, plugin.name],
                # One heap for all threads: each further one takes 64 MiB of the address space, which is what is limited.
                {name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | {"MALLOC_ARENA_MAX": "1"},
                theirs.fileno(),
                theirs_out,
            )
        except OSError:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(theirs_out)
        ours.setblocking(False)
        os.set_blocking(output, False)
        self.channel = ours
        self.output = output
        self._unsent = encode_hello(Hello(dict(settings), folder, memory_mib, os.getpid()))
        self._unread = b""

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._child.pid

    @property
    def sending(self) -> bool:
        """Whether something waits for the process to read it."""
        return bool(self._unsent)

    def send(self, line: bytes) -> None:
        """Adds a line to what is sent, and sends what goes at once. Raises OSError where nobody reads any more."""
        self._unsent += line
        self.flush()

    def flush(self) -> None:
        """Sends what goes at once. Raises OSError."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.channel.send(self._unsent) :]
        except BlockingIOError:
            return

    def answers(self) -> list[Answer]:
        """Returns what it has answered since. Raises EOFError at the end of its side, OSError, and PeerError for nonsense."""
        try:
            data = self.channel.recv(MAX_ANSWER_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > MAX_ANSWER_BYTES:
            raise PeerError("an answer without end")
        return [decode_answer(line) for line in lines]

    def read_output(self) -> bytes | None:
        """Returns some of what it has printed since, None where that is nothing, b"" where it has closed its output."""
        try:
            return os.read(self.output, _CHUNK_BYTES)
        except BlockingIOError:
            return None

    def finish(self) -> None:
        """Tells it that nothing more comes. Raises OSError where it is gone."""
        self.channel.shutdown(socket.SHUT_WR)

    def end(self, patience_s: float = 0.0) -> str:
        """Ends it and waits for that; returns how it ended, in words. close() comes after.

        patience_s: how long it may take to end by itself before it is killed.
        """
        if self._child.wait(patience_s) is None:
            self._child.kill()
        status = self._child.wait(REAP_S)
        return "it doesn't end" if status is None else ended(status)

    def close(self) -> None:
        """Lets go of its socket and its output."""
        self.channel.close()
        os.close(self.output)


def ended(status: int) -> str:
    """Returns how a process ended: `exit status 3`, `killed by SIGSEGV`."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class OutputTail:
    """The last lines that a plug-in printed. Not for the log: they may repeat what processes wrote, or the plug-in's settings."""

    def __init__(self) -> None:
        self.bytes = 0  # printed since the start
        self._lines: deque[str] = deque(maxlen=OUTPUT_LINES)
        self._unfinished = b""

    def take(self, data: bytes) -> None:
        """Takes the next piece of output."""
        self.bytes += len(data)
        *lines, rest = (self._unfinished + data).split(b"\n")
        for line in lines[-OUTPUT_LINES:]:
            self._keep(line)
        self._unfinished = rest[:OUTPUT_LINE_BYTES]

    def end(self) -> None:
        """Takes in a last line that has no end."""
        self._keep(self._unfinished)
        self._unfinished = b""

    def lines(self) -> list[str]:
        """Returns the last lines, at most OUTPUT_LINES. Any thread may call it."""
        return list(self._lines)

    def _keep(self, line: bytes) -> None:
        text = line[:OUTPUT_LINE_BYTES].decode("utf-8", "backslashreplace").rstrip()
        if text:
            self._lines.append(text)
