"""Log lines: `event=... key=value`, one line each whatever is in the values, at a pace the daemon can bear.

The events are those of execray.logwords. What an attacker may have written can't end a value or a line, nor fill the log: each
event has its own budget, and a log that isn't read costs lines, which are counted, and never a kill.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import select
import stat
import sys
import threading
from time import monotonic
from types import TracebackType
from typing import Final, NoReturn

from execray.errors import OperatorError
from execray.terminal import safe

MAX_VALUE_BYTES: Final = 3072
MAX_TRACE_CHARS: Final = 8192
MAX_TRACE_BYTES: Final = 12_288
#: Lines of one event within a window; what is over is summed up in one line.
BURST: Final = 200
WINDOW_S: Final = 10.0
#: How long a line may wait for a reader who is behind, once; while it stays behind, lines are dropped at once.
PATIENCE_S: Final = 0.1
_PIPE_BYTES: Final = 4096  # what a pipe that is ready takes without waiting
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

#: Our loggers; the messages of all others are text, not events.
OWN_LOGGERS: Final = frozenset({"tracerd", "policyd", "enforcer", "execray"})
LINES_LOST: Final = "lines lost"
MAX_SHOWN: Final = 2000


def escape(value: object) -> str:
    """Returns one log value on one line: what could end the line or the value, or steer a terminal, is escaped.

    A value that is longer than MAX_VALUE_BYTES is cut, and ends in `…`: journald begins a new entry within too long a line.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return _bounded(text, MAX_VALUE_BYTES)


def _bounded(text: str, limit: int) -> str:
    cut = text[:limit]
    if cut and cut.isprintable() and not _NEEDS_QUOTES.search(cut) and len(cut.encode()) <= limit:
        return cut if len(text) <= limit else f'"{cut}…"'
    parts, size = [], 0
    for char in cut:
        part = char if char.isprintable() and char not in '"\\' else _escaped(char)
        size += len(part.encode())
        if size > limit:
            break
        parts.append(part)
    return f'"{"".join(parts)}{"…" if len(parts) < len(text) else ""}"'


def _escaped(char: str) -> str:
    return f"\\{char}" if char in '"\\' else char.encode("unicode_escape").decode("ascii")


_NEEDS_QUOTES: Final = re.compile(r'[ "\\=]')
_PAIR: Final = re.compile(r'([a-z_]+)=([^ "\\=\n]+|"(?:[^"\\\n]|\\.)*")(?: |\Z)')
_ESCAPE: Final = re.compile(r'\\(["\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})')
_SHORT: Final = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


def parse_line(line: str) -> dict[str, str]:
    """Returns the keys and values of a log line, escapes undone. Raises ValueError for what isn't one."""
    text = re.sub(r"\A<[0-7]>", "", line)
    at, found = 0, {}
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None or pair[1] in found:
            raise ValueError(f"no log line from character {at}: {text[at : at + 40]!r}")
        raw = pair[2]
        found[pair[1]] = _ESCAPE.sub(_unescaped, raw[1:-1]) if raw.startswith('"') else raw
        at = pair.end()
    return found


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    return _SHORT[code] if code in _SHORT else chr(int(code[1:], 16))


class KeyValueFormatter(logging.Formatter):
    """`level=info daemon=enforcer event="bad order" pid=4711`: the message is the event, `extra={"kv": {...}}` the rest.

    Where a value is None its key is left out. A traceback is one more value, not more lines: its last line may be an
    attacker's text.
    """

    def __init__(self, daemon: str, *, journal: bool = False) -> None:
        """journal: lines begin with their priority (sd-daemon(3)) instead of the time, which the journal has itself."""
        super().__init__()
        self._daemon = daemon
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        pairs: dict[str, object] = {"level": record.levelname.lower(), "daemon": self._daemon}
        if record.name in OWN_LOGGERS:
            pairs |= {"event": record.getMessage(), **getattr(record, "kv", {})}
        else:
            pairs |= {"event": "library", "logger": record.name, "text": record.getMessage()}
        line = " ".join(f"{key}={escape(value)}" for key, value in pairs.items() if value is not None)
        if record.exc_info:
            line += f" trace={_bounded(self.formatException(record.exc_info)[-MAX_TRACE_CHARS:], MAX_TRACE_BYTES)}"
        if self._journal:
            return f"<{_PRIORITY.get(record.levelno, 5)}>{line}"
        now = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        return f"time={now.removesuffix('+00:00')}Z {line}"


class Pace(logging.Filter):
    """Lets BURST lines of each event through in WINDOW_S. How many it held back is told with the first line after that."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}  # by event: when it began, and lines since; events are few
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        event = record.getMessage() if record.name in OWN_LOGGERS else record.name
        now = monotonic()
        with self._lock:
            over = {name: found for name, found in self._windows.items() if now - found[0] > WINDOW_S}
            for name in over:
                del self._windows[name]
            began, count = self._windows.get(event, (now, 0))
            self._windows[event] = (began, count + 1)
        for name, (_, lines) in over.items():
            if lines > BURST:
                kv = {"of": name, "count": lines - BURST}
                logging.getLogger("execray").warning("lines held back", extra={"kv": kv})
        return count < BURST


class LineHandler(logging.Handler):
    """Writes lines to a descriptor, and never waits long for whoever reads them; lines that were dropped are counted."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.lost = 0  # and not yet told
        self._fd = fd
        mode = os.fstat(fd).st_mode
        self._may_block = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        self._rest = b""  # of a line that was written in part: it is ended before another begins
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line, or counts it as lost."""
        behind = self._rest or self.lost
        deadline = monotonic() + (0.0 if behind else PATIENCE_S)
        self._rest = self._rest[self._write(self._rest, deadline) :]
        if self.lost and self._begin(self._line(self._lost_record()), deadline):
            self.lost = 0
        if not self._begin(self._line(record), deadline):
            self.lost += 1

    def _begin(self, line: bytes, deadline: float) -> bool:
        """Writes a line, or at least its beginning, of which the rest is then to come."""
        taken = 0 if self._rest else self._write(line, deadline)
        if taken:
            self._rest = line[taken:]
        return taken > 0

    def _write(self, data: bytes, deadline: float) -> int:
        taken = 0
        try:
            while taken < len(data):
                if self._may_block and not self._poll.poll(max(0.0, deadline - monotonic()) * 1000):
                    break
                # A pipe that is ready takes this much, and a socket is ready only when it has room for far more.
                taken += os.write(self._fd, data[taken : taken + _PIPE_BYTES])
        except OSError:
            return taken  # nobody reads any more, or the disk is full
        return taken

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _lost_record(self) -> logging.LogRecord:
        extra = {"kv": {"count": self.lost}}
        return logging.getLogger("execray").makeRecord(
            "execray", logging.WARNING, __file__, 0, LINES_LOST, (), None, extra=extra
        )


def in_journal(fd: int) -> bool:
    """Whether a descriptor leads into the systemd journal."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _stderr() -> int:
    try:
        return sys.stderr.fileno()
    except OSError:  # replaced by something that isn't a file
        return 2


def setup_logging(daemon: str, level: str) -> logging.Logger:
    """Logs go to stderr, which systemd takes into the journal; so does the traceback of a bug that ends the daemon."""
    fd = _stderr()
    handler = LineHandler(fd)
    handler.setFormatter(KeyValueFormatter(daemon, journal=in_journal(fd)))
    handler.addFilter(Pace())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    log = logging.getLogger(daemon)

    def bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("bug", exc_info=(kind, error, trace))

    sys.excepthook = bug
    return log


def give_up(daemon: str, error: OperatorError) -> NoReturn:
    """Ends a daemon that can't start, or go on: `error: ` and `hint: ` for who reads along, a log line for the journal."""
    if in_journal(_stderr()):
        setup_logging(daemon, "error").error(
            "gave up", extra={"kv": {"reason": error.message, "hint": error.hint or None}}
        )
    else:
        sys.stderr.write(f"error: {safe(error.message, MAX_SHOWN)}\n")
        if error.hint:
            sys.stderr.write(f"hint: {safe(error.hint, MAX_SHOWN)}\n")
    sys.exit(1)
