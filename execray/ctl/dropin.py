"""What execray-ctl itself writes into the configuration: small drop-ins, each by one command."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from execray.config import DEFAULT_PATH, Layered, load_layers
from execray.errors import OperatorError


def drop_in(config_file: Path | None, name: str) -> Path:
    """Returns where a drop-in of that name lies: beside the configuration file, in STEM.d."""
    file = DEFAULT_PATH if config_file is None else config_file
    return file.with_name(f"{file.stem}.d") / name


def check_root(what: str) -> None:
    """Raises OperatorError for everybody but root: before a question is asked, or anything else done."""
    if os.geteuid() != 0:
        raise OperatorError(f"only root may {what}", "use sudo")


def write_drop_in(config_file: Path | None, name: str, key: str, value: str | list[str], command: str) -> Path:
    """Sets one value by a drop-in, all or nothing, and reads the whole configuration back: a mistake is taken back.

    key: dotted. command: who writes it, for the comment at its head. Raises ConfigError, and OperatorError where a drop-in
    that is read later says otherwise: what doesn't last is not begun.
    """
    text: Any = value
    for word in reversed(key.split(".")):
        text = {word: text}
    path = drop_in(config_file, name)
    user = pwd.getpwuid(os.getuid()).pw_name
    now = datetime.now(UTC).isoformat(timespec="seconds")
    head = f"# Written by `{command}` for {os.environ.get('SUDO_USER') or user}, {now}. Read after the main file."
    content = f"{head}\n{json.dumps(text)}\n"  # which is YAML too
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        before = path.read_bytes() if path.exists() else None
        _replace(path, content.encode("utf-8"))
        try:
            _expect(load_layers(config_file), key, value)
        except OperatorError:
            if before is None:
                path.unlink()
            else:
                _replace(path, before)
            raise
    except OSError as error:
        raise OperatorError(f"can't write {path}: {error.strerror}", "be root") from error
    return path


def _expect(layers: Layered, key: str, value: str | list[str]) -> None:
    found: Any = layers.config
    for word in key.split("."):
        found = getattr(found, word)
    if (list(found) if isinstance(found, tuple) else found) != value:
        raise OperatorError(f"`{key}` is set by {layers.origin[key]}, which is read later", "change or remove it there")


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
