"""What execray-ctl itself writes into the configuration: small drop-ins, each by one command."""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from execray.config import DEFAULT_PATH, load
from execray.errors import ConfigError, OperatorError


def drop_in(config_file: Path | None, name: str) -> Path:
    """Returns where a drop-in of that name lies: beside the configuration file, in STEM.d."""
    file = DEFAULT_PATH if config_file is None else config_file
    return file.with_name(f"{file.stem}.d") / name


def write_drop_in(config_file: Path | None, name: str, text: str, command: str) -> Path:
    """Replaces a drop-in, all or nothing, and reads the whole configuration back: on a mistake the old one is put back.

    text: YAML. command: who writes it, for the comment at its head. Raises OperatorError, ConfigError.
    """
    path = drop_in(config_file, name)
    user = pwd.getpwuid(os.getuid()).pw_name
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = (
        f"# Written by `{command}` for {os.environ.get('SUDO_USER') or user}, {now}. Read after the main file.\n{text}"
    )
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        before = path.read_bytes() if path.exists() else None
        _replace(path, content.encode("utf-8"))
        try:
            load(config_file)
        except ConfigError:
            if before is None:
                path.unlink()
            else:
                _replace(path, before)
            raise
    except OSError as error:
        raise OperatorError(f"can't write {path}: {error.strerror}", "be root") from error
    return path


def _replace(path: Path, content: bytes) -> None:
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
