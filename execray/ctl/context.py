"""What every command shares: the configuration, the way to a daemon, and how results and errors are shown."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from execray.errors import OperatorError
from execray.places import PLUGIN_DIR
from execray.terminal import MAX_TEXT, painter, safe, use_color

if TYPE_CHECKING:
    from execray.config import Config, Layered
    from execray.control_client import ControlClient
    from execray.extensions import Outcome

P = ParamSpec("P")
R = TypeVar("R")

DAEMONS: Final = ("tracerd", "policyd", "enforcer")
EXIT_FAILED: Final = 1
EXIT_UNREACHABLE: Final = 3


@dataclass(slots=True)
class Context:
    """Which instance the command talks to. The configuration is read at the first use, so `--help` never fails on it."""

    config_file: Path | None = None
    runtime_dir: Path | None = None
    _layers: Layered | None = None
    _extensions: list[Outcome] | None = None

    @property
    def config(self) -> Config:
        """The configuration, with --runtime-dir in place. Raises ConfigError."""
        return self.layers().config

    def layers(self) -> Layered:
        """Returns the configuration with where each value came from. Raises ConfigError."""
        # Imported here: it brings YAML, which help, completion and `policy check` can do without.
        from execray.config import Layered, load_layers  # noqa: PLC0415  # for the reason above

        if self._layers is None:
            found = load_layers(self.config_file)
            if self.runtime_dir is not None:
                config = dataclasses.replace(found.config, runtime_dir=self.runtime_dir)
                found = Layered(config, {**found.origin, "runtime_dir": "--runtime-dir"})
            self._layers = found
        return self._layers

    def extend_catalogue(self) -> list[Outcome]:
        """Adds what installed packages say to the catalogue, once, and returns what became of each."""
        from execray.extensions import extend_catalogue, is_elsewhere  # noqa: PLC0415  # help can do without

        if self._extensions is None:
            folder = PLUGIN_DIR
            if self.config_file is not None or is_elsewhere():
                # a configuration that can't be read is the business of whatever needs more of it
                with contextlib.suppress(OperatorError):
                    folder = self.config.policyd.plugin_dir
            self._extensions = extend_catalogue(folder)
        return self._extensions

    def client(self, daemon: str, timeout_s: float = 5.0) -> ControlClient:
        """Returns a client for one daemon's control socket; it connects at its first request."""
        from execray.control_client import ControlClient  # noqa: PLC0415  # of no use to `policy check`

        return ControlClient(self.config.control_socket(daemon), timeout_s, self.config.group)


def command_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Makes operator errors one line with a hint, and the exit code 3 for a daemon out of reach, 1 for the rest.

    With --json, standard output says so too: whoever reads it always gets JSON.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OperatorError as error:
            from execray.control_client import Unreachable  # noqa: PLC0415  # of no use to what succeeds

            if kwargs.get("as_json"):
                print_json({"ok": False, "error": error.message, "hint": error.hint})
            show_error(error)
            sys.exit(EXIT_UNREACHABLE if isinstance(error, Unreachable) else EXIT_FAILED)

    return wrapped


def show_error(error: OperatorError) -> None:
    """Prints an error and its hint to stderr. What a daemon sent is not trusted to be harmless to the terminal."""
    click.echo(f"error: {safe(error.message, 2000)}", err=True)
    if error.hint:
        click.echo(f"hint: {safe(error.hint, 2000)}", err=True)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def print_json(value: object) -> None:
    """Prints one value as JSON. Bytes that aren't UTF-8 stay escapes, so they round-trip."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=True))


def paint(text: str, style: str) -> str:
    """Returns text in one of terminal.STYLES, on a terminal only."""
    return painter(use_color())(text, style)


def table(rows: Sequence[Sequence[object]], indent: str = "", limit: int = MAX_TEXT) -> str:
    """Returns rows as aligned columns, every cell made safe for a terminal, and cut past so many characters."""
    cells = [[safe(cell, limit) for cell in row] for row in rows]
    widths = [
        max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(max(map(len, cells), default=0))
    ]
    return "\n".join(
        indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in cells
    )


def duration(seconds: object) -> str:
    """Returns a time span as people say it, `2h 05m`; `?` for what isn't a number."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "?"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours == 0:
        return f"{minutes}m {int(seconds % 60):02}s"
    return f"{hours}h {minutes % 60:02}m" if hours < 48 else f"{hours // 24}d {hours % 24}h"


def as_map(value: Any) -> dict[str, Any]:
    """Returns a JSON object, an empty one for anything else: a daemon of another version is no reason to crash."""
    return value if isinstance(value, dict) else {}


def as_maps(value: Any) -> list[dict[str, Any]]:
    """Returns the objects in a JSON list, an empty list for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
