"""Event files on disk, compressed by their ending: `.gz`, `.zst`, or plain."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from execray.errors import OperatorError
from execray.eventfile.reading import EventFileError

#: A record is a few hundred bytes; one with every argument at its longest has 100 KiB.
MAX_LINE_CHARS: Final = 4 * 1024 * 1024


@contextlib.contextmanager
def open_events(path: Path) -> Iterator[Iterator[str]]:
    """Gives the lines of an event file; `-` is standard input. Raises OperatorError, EventFileError for an overlong line."""
    name = str(path)
    try:
        # A name that isn't UTF-8 stands as an escape, so the file itself always is.
        with io.TextIOWrapper(_binary(path, "rb"), encoding="utf-8", errors="surrogateescape", newline="\n") as text:
            yield _lines(text, name)
    except _broken() as error:
        raise OperatorError(f"can't read {name}: {error}", "is it whole, and compressed as its ending says?") from error
    except OSError as error:
        raise OperatorError(f"can't read {name}: {error.strerror or error}", "name an event file, or -") from error


def _broken() -> tuple[type[Exception], ...]:
    """What a file raises that is cut off, or not compressed as its ending says. Asked for only once something was raised."""
    zstandard = sys.modules.get("zstandard")
    return EOFError, gzip.BadGzipFile, UnicodeError, *((zstandard.ZstdError,) if zstandard else ())


def _lines(text: io.TextIOWrapper, name: str) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE_CHARS):
        number += 1
        if len(line) >= MAX_LINE_CHARS:
            raise EventFileError(
                f"{name}:{number}: a line of over {MAX_LINE_CHARS >> 20} Mi characters", "one record a line"
            )
        yield line


def _binary(path: Path, mode: str) -> IO[bytes]:
    if str(path) == "-":
        return sys.stdin.buffer if mode == "rb" else os.fdopen(os.dup(sys.stdout.fileno()), mode)
    if path.suffix == ".zst":
        return _zstd(path, mode)
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(path, mode, compresslevel=6))
    return path.open(mode)


def _zstd(path: Path, mode: str) -> IO[bytes]:
    import zstandard  # noqa: PLC0415  # only for such files

    found: IO[bytes] = zstandard.open(path, mode)
    return found


class EventWriter:
    """Writes records, up to a bound, into a file for its owner only; closing it finishes the file."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """max_bytes: of JSON, before compression. Raises OperatorError."""
        self.written = 0
        self.bytes = 0
        self.path = path
        self._max_bytes = max_bytes
        before = os.umask(0o077)  # it holds what everybody on the host did
        try:
            self._file = _binary(path, "wb")
        except OSError as error:
            raise OperatorError(f"can't write {path}: {error.strerror}", "choose another place") from error
        finally:
            os.umask(before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, record: dict[str, Any]) -> bool:
        """Writes one record; False, and nothing written, once the bound is reached. Raises OSError."""
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"
        if self.bytes + len(line) > self._max_bytes:
            return False
        self._file.write(line)
        self.bytes += len(line)
        self.written += 1
        return True
