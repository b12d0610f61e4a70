"""Policy files named on the command line: read, and compiled together as policyd would."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from execray.ctl.context import EXIT_FAILED, Context, print_json
from execray.errors import OperatorError
from execray.terminal import use_color

if TYPE_CHECKING:
    from policyd.program import CompiledPolicy

MAX_FILE_BYTES: Final = 8 * 1024 * 1024  # the compiler has its own, lower limit, with a better message

#: What policies may count with where no configuration says so: as `policyd.state_budget_mib` by default.
BUDGET_BYTES: Final = 16 << 20

#: The name of what is read from standard input.
STDIN: Final = "<stdin>"


def read_policies(given: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Returns (name, content) of files, of the *.policy files in folders, and of standard input for `-`. Raises OperatorError."""
    return [_read(file) for path in given for file in _expanded(path)]


def compile_or_exit(given: Sequence[Path], *, as_json: bool) -> tuple[CompiledPolicy, ...]:
    """Returns the compiled policies; where some file has a mistake, shows it and ends the command with exit code 1."""
    # Imported here: the compiler is of no use to other commands, and slow to load.
    from policyd.compiler import compile_set, diagnostic_to_json, render  # noqa: PLC0415

    compiled = compile_set(read_policies(given), today=utc_today())
    if compiled.ok:
        return compiled.policies
    if as_json:
        sources = {source.name: source for source in compiled.sources}
        found = [diagnostic_to_json(diagnostic, sources[diagnostic.file]) for diagnostic in compiled.diagnostics]
        print_json({"ok": False, "diagnostics": found})
    click.echo(render(compiled.diagnostics, compiled.sources, color=use_color()), nl=False, err=True)
    sys.exit(EXIT_FAILED)


def utc_today() -> datetime.date:
    """Returns the day by which exceptions end."""
    return datetime.datetime.now(datetime.UTC).date()


class HostSettings(NamedTuple):
    """What policies are checked against: the action plug-ins that the host allows (None: not known), and the budget of counts."""

    plugins: frozenset[str] | None
    budget_bytes: int


def host_settings(context: Context, files: Sequence[tuple[str, bytes]]) -> HostSettings:
    """Returns what this host's configuration says. Raises ConfigError for one that was named and can't be read."""
    # Reading the configuration takes longer than checking a policy, so it is done only for those that it matters to.
    if any(b"notify" in content or b"times" in content for _, content in files):
        from execray.config import DEFAULT_PATH  # noqa: PLC0415  # it brings YAML

        if context.config_file is not None or os.access(DEFAULT_PATH, os.R_OK):
            own = context.config.policyd
            return HostSettings(frozenset(own.actions), own.state_budget_mib << 20)
    return HostSettings(None, BUDGET_BYTES)


def _expanded(given: Path) -> list[Path]:
    """Returns the policy files of a folder, as policyd would read them, and a file as it is. Raises OperatorError for none."""
    if not given.is_dir():
        return [given]
    found = sorted(given.glob("*.policy"))
    if not found:
        raise OperatorError(f"no *.policy file is in {given}", "name a policy file, or a folder of them")
    return found


def _read(file: Path) -> tuple[str, bytes]:
    try:
        if str(file) == "-":
            return STDIN, sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        with file.open("rb") as opened:
            return str(file), opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise OperatorError(
            f"can't read {file}: {error.strerror}", "name a policy file, or - for standard input"
        ) from error


def replace_file(file: Path, text: str) -> None:
    """Replaces a file's content, all or nothing, keeping its mode and owner. Raises OperatorError."""
    import tempfile  # noqa: PLC0415  # slow to load

    try:
        found = file.stat()
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", delete=False
        ) as new:
            new.write(text)
        fresh = Path(new.name)
        try:
            os.chown(fresh, found.st_uid, found.st_gid)
            fresh.chmod(found.st_mode & 0o7777)
            fresh.replace(file)
        except OSError:
            fresh.unlink()
            raise
    except OSError as error:
        raise OperatorError(
            f"can't write {file}: {error.strerror}", "check who owns the file and its folder"
        ) from error
