"""`mode` and `policy enable|disable`: how far ExecRay may go on this host. For root, remembered, and in every daemon's log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from execray.control_client import Unreachable
from execray.ctl.complete import policy_names
from execray.ctl.context import (
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    Context,
    as_map,
    as_maps,
    command_errors,
    json_option,
    paint,
    print_json,
)
from execray.ctl.dropin import check_root, write_drop_in
from execray.ctl.reload import UNCONFIRMED
from execray.errors import OperatorError
from execray.terminal import safe

_DAEMONS = ("policyd", "enforcer")


@click.command()
@click.argument("wanted", metavar="[audit|enforce]", required=False, type=click.Choice(["audit", "enforce"]))
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@json_option
@click.pass_obj
@command_errors
def mode(context: Context, wanted: str | None, yes: bool, as_json: bool) -> None:
    """Show or set how far any policy may go on this host: `audit` only reports, `enforce` lets policies kill.

    Takes effect at once, and stays: it is written to the configuration's folder of drop-ins. Needs root.

    \b
    Examples:
      execray-ctl mode
      sudo execray-ctl mode enforce
      sudo execray-ctl mode audit --yes
    """
    if wanted is None:
        _show(context, as_json)
        return
    check_root("set the mode")
    if wanted == "enforce" and not yes:
        _confirm("Policies that say `response enforce` will kill from now on. Go on?")
    path = write_drop_in(context.config_file, "90-mode.yaml", "mode", wanted, f"execray-ctl mode {wanted}")
    told = {daemon: _tell(context, daemon, "mode", mode=wanted) for daemon in _DAEMONS}
    _end(told, {"mode": wanted, "file": str(path)}, f"mode {wanted}, kept in {path}", as_json)


def _show(context: Context, as_json: bool) -> None:
    found: dict[str, Any] = {"configured": context.config.mode}
    for daemon in _DAEMONS:
        try:
            with context.client(daemon) as client:
                found[daemon] = as_map(client.call("status")).get("mode")
        except OperatorError as error:
            found[daemon] = None
            if not as_json:
                click.echo(f"note: {safe(error.message)}", err=True)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<10} {safe(value or 'not known')}")
    if len({value for value in found.values() if value}) > 1:
        click.echo(paint("they differ: `execray-ctl mode audit` or `enforce` sets all", "warning"))


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=policy_names)
@json_option
@click.pass_obj
@command_errors
def disable(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Switch policies off: they stay loaded, and are not run. Takes effect at once, and stays. Needs root.

    \b
    Examples:
      sudo execray-ctl policy disable host_looked_over
      sudo execray-ctl policy disable dropper dropper_from_shell
      sudo execray-ctl policy disable crypto_miner --json
    """
    _switch(context, names, True, as_json)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=policy_names)
@json_option
@click.pass_obj
@command_errors
def enable(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Switch policies on again that `policy disable` had switched off. Takes effect at once, and stays. Needs root.

    \b
    Examples:
      sudo execray-ctl policy enable host_looked_over
      sudo execray-ctl policy enable dropper dropper_from_shell
      sudo execray-ctl policy enable crypto_miner --json
    """
    _switch(context, names, False, as_json)


def _switch(context: Context, names: Sequence[str], off: bool, as_json: bool) -> None:
    check_root("switch policies on and off")
    before = list(context.config.policyd.disabled)
    with context.client("policyd") as client:
        known = {str(item.get("name")) for item in as_maps(as_map(client.call("policies")).get("policies"))}
    unknown = [name for name in names if name not in known and (off or name not in before)]
    if unknown:
        raise OperatorError(f"no policy `{safe(unknown[0])}` is loaded", "see `execray-ctl policy list`")
    after = [name for name in before if off or name not in names]
    if off:
        after += [name for name in dict.fromkeys(names) if name not in before]
    word = "disable" if off else "enable"
    path = write_drop_in(
        context.config_file, "80-policies.yaml", "policyd.disabled", after, f"execray-ctl policy {word}"
    )
    told = {"policyd": _tell(context, "policyd", "disabled", names=after)}
    _end(
        told, {"disabled": after, "file": str(path)}, f"{word}d {', '.join(map(safe, names))}, kept in {path}", as_json
    )


class _Late(OperatorError):
    """The daemon has the setting; the one that it depends on hasn't confirmed."""


def _tell(context: Context, daemon: str, op: str, **args: object) -> OperatorError | None:
    """Returns why a daemon did not take it, None where it did."""
    try:
        with context.client(daemon, timeout_s=30.0) as client:
            answer = as_map(client.call(op, **args))
    except OperatorError as error:
        return error
    if answer.get("sensor") == "late":
        return _Late(UNCONFIRMED["late"])
    return None


def _end(told: dict[str, OperatorError | None], facts: dict[str, Any], words: str, as_json: bool) -> None:
    """Says what was set, and who could not be told: such a daemon takes the setting when it starts. That is a failure still."""
    failed = {daemon: error for daemon, error in told.items() if error is not None}
    if as_json:
        not_told = {daemon: error.message for daemon, error in failed.items()}
        print_json({"ok": not failed, **facts, "not_told": not_told})
    else:
        click.echo(words)
        for daemon, error in failed.items():
            away = ": it takes the setting when it starts" if isinstance(error, Unreachable) else ""
            click.echo(f"warning: {daemon}: {safe(error.message, 400)}{away}", err=True)
    if failed:
        refused = any(not isinstance(error, Unreachable | _Late) for error in failed.values())
        sys.exit(EXIT_FAILED if refused else EXIT_UNREACHABLE)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise OperatorError("nobody is there to be asked", "give --yes")
    click.confirm(question, abort=True)
