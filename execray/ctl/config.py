"""`config check|show`."""

from __future__ import annotations

import grp
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from execray.ctl.context import Context, command_errors, json_option, paint, print_json, table
from execray.errors import OperatorError
from execray.terminal import safe

if TYPE_CHECKING:
    from execray.config import Layered, PolicydConfig

HIDDEN: Final = "…"


@click.group()
def config() -> None:
    """Check the configuration, or show every value with where it came from. Asks no daemon.

    \b
    Examples:
      execray-ctl config check
      execray-ctl config show
      execray-ctl --config ./execray.yaml config show
    """


@config.command()
@json_option
@click.pass_obj
@command_errors
def check(context: Context, as_json: bool) -> None:
    """Read the configuration as the daemons would, with every drop-in, and say what is wrong with it.

    Notes are about what can be used, and is perhaps not what was meant: accounts, groups and folders that aren't there.

    \b
    Examples:
      execray-ctl config check
      execray-ctl --config ./execray.yaml config check
      execray-ctl config check --json | jq -r .notes[]
    """
    layers = context.layers()
    files = list(dict.fromkeys(origin.rpartition(":")[0] for origin in layers.origin.values() if ":" in origin))
    notes = notes_on(layers, context.config_file)
    if as_json:
        print_json({"ok": True, "files": files, "notes": notes})
        return
    for note in notes:
        click.echo(paint(f"note: {safe(note, 500)}", "warning"))
    click.echo(f"ok: values from {', '.join(safe(file, 300) for file in files)}" if files else "ok: all defaults")


def notes_on(layers: Layered, main: Path | None) -> list[str]:
    """Returns what can be used, and is perhaps not what was meant: accounts, groups and folders that aren't there."""
    from execray.config import uids_of  # noqa: PLC0415  # with the rest of the configuration

    found, notes = layers.config, []
    lists = {
        "tracerd.subscribers": found.tracerd.subscribers,
        "tracerd.registrants": found.tracerd.registrants,
        "enforcer.orderers": found.enforcer.orderers,
    }
    for key, accounts in lists.items():
        missing = uids_of(accounts).missing
        notes += [f"`{key}` names the account `{name}`, which doesn't exist: it permits nobody" for name in missing]
    if found.group and not _is_group(found.group):
        notes.append(f"there is no group `{found.group}`: only root may use execray-ctl")
    notes += [*_file_notes(main), *_plugin_notes(found.policyd)]
    notes += [
        f"`policyd.policy_dirs` names {d}, which is no folder" for d in found.policyd.policy_dirs if not d.is_dir()
    ]
    if layers.origin["protect_exe"] != "default":  # the default names what some distributions have
        absent = [exe for exe in found.protect_exe if not Path(exe).exists()]
        notes += [f"`protect_exe` names {exe}, which doesn't exist" for exe in absent]
    budget = min(found.enforcer.kills_per_minute, found.enforcer.kills_per_minute_per_policy)
    if found.mode == "enforce" and not budget:
        notes.append("the mode is enforce, and the budget of kills is 0: nobody is killed")
    return notes


def _file_notes(main: Path | None) -> Iterator[str]:
    """Yields what is amiss with the files themselves: such that the daemons' accounts can't read, or that nobody reads."""
    from execray.config import DEFAULT_PATH  # noqa: PLC0415  # with the rest of the configuration
    from execray.ctl.dropin import drop_in  # noqa: PLC0415  # likewise

    folder = drop_in(main, "")
    for file in [path for path in (main or DEFAULT_PATH, *sorted(folder.glob("*.yaml"))) if path.is_file()]:
        if os.geteuid() == 0 and not file.stat().st_mode & 0o004:
            yield f"not everybody can read {file}: daemons with accounts of their own may not start; chmod 644 {file}"
    for file in sorted(folder.glob("*.yml")):
        yield f"{file} is not read: the name of a drop-in ends in .yaml"


def _plugin_notes(policyd: PolicydConfig) -> Iterator[str]:
    """Yields the sinks and actions that nothing provides: policyd doesn't start with them."""
    from execray.plugin_index import find  # noqa: PLC0415  # of no use where only defaults are shown
    from execray.plugins import ACTIONS, BUILT_IN_SINKS, SINKS  # noqa: PLC0415  # likewise

    wanted = [(SINKS, name) for name in policyd.sinks if name not in BUILT_IN_SINKS]
    for group, name in [*wanted, *((ACTIONS, name) for name in policyd.actions)]:
        try:
            find(group, name, policyd.plugin_dir, BUILT_IN_SINKS if group == SINKS else ())
        except OperatorError as error:
            yield error.message


def _is_group(name: str) -> bool:
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


@config.command()
@click.option("--changed", is_flag=True, help="Only what isn't a default.")
@json_option
@click.pass_obj
@command_errors
def show(context: Context, changed: bool, as_json: bool) -> None:
    """Show every value of the configuration, and where it came from: `default`, or FILE:LINE.

    It is what a daemon would read if it were started now, without options of its own. Of the settings of plug-ins, only the
    names are shown: they may be secrets.

    \b
    Examples:
      execray-ctl config show
      execray-ctl config show --changed
      execray-ctl config show --json | jq '.mode'
    """
    layers = context.layers()
    values = {
        key: (_value(layers.config, key), origin)
        for key, origin in layers.origin.items()
        if not changed or origin != "default"
    }
    if as_json:
        print_json({key: {"value": value, "origin": origin} for key, (value, origin) in values.items()})
        return
    rows = [[key, _text(value), origin] for key, (value, origin) in values.items()]
    for line, row in zip(table(rows, limit=300).splitlines(), rows, strict=True):
        click.echo(paint(line, "dim" if row[2] == "default" else ""))
    if not rows:
        click.echo("all defaults")


def _value(found: Any, key: str) -> Any:
    """Returns what a dotted key leads to, as JSON shows it; of a plug-in's settings, which may be secrets, only the names."""
    names = key.split(".")
    while names:
        if isinstance(found, Mapping):
            settings = found.get(".".join(names), {})
            return dict.fromkeys(settings, HIDDEN) if isinstance(settings, Mapping) else HIDDEN
        found = getattr(found, names.pop(0))
    return _plain(found)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict.fromkeys(value, HIDDEN) if isinstance(value, Mapping) else value


def _text(value: Any) -> str:
    """Returns a value as YAML has it."""
    if isinstance(value, list):
        return f"[{', '.join(_text(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {item}' for name, item in value.items())}}}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value != "" else '""'
