"""`reload`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from execray.ctl.context import (
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    Context,
    as_map,
    command_errors,
    json_option,
    paint,
    print_json,
)
from execray.terminal import safe

TIMEOUT_S: Final = 150.0  # above policyd's own bound
#: By what policyd says of the sensor.
UNCONFIRMED: Final = {
    "late": "tracerd has not confirmed yet: the kernel may go by the policies of before",
    "away": "no tracerd is connected: it gets them when one is",
}
_SHOWN: Final = 20  # names of one kind


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would change.")
@json_option
@click.pass_obj
@command_errors
def reload(context: Context, dry_run: bool, as_json: bool) -> None:
    """Make policyd read its policies again: all of them, or on any mistake none.

    Sequences that are under way in unchanged policies go on. Comments and layout are no change. Ends once tracerd goes by
    the new ones too; with exit code 3 where they are loaded and it doesn't.

    \b
    Examples:
      execray-ctl reload --dry-run
      execray-ctl reload
      execray-ctl reload --json | jq '{generation, changed, ms}'
    """
    with context.client("policyd", timeout_s=TIMEOUT_S) as client:
        result = as_map(client.call("reload", dry_run=dry_run))
    if as_json:
        print_json(result)
    else:
        _show(result)
    if not result.get("ok"):
        sys.exit(EXIT_FAILED)
    if result.get("sensor", "taken") != "taken":
        sys.exit(EXIT_UNREACHABLE)


def _show(result: dict[str, Any]) -> None:
    # Rendered by the daemon, so without colour, and it may quote any file: escaped line by line.
    for line in str(result.get("rendered", "")).splitlines():
        click.echo(safe(line, 1000), err=not result.get("ok"))
    generation, took = safe(result.get("generation", "?")), safe(result.get("ms", "?"))
    if not result.get("ok"):
        click.echo(f"error: nothing was changed; generation {generation} still runs", err=True)
        return
    for line in _changes(result):
        click.echo(line)
    policies = safe(result.get("policies", "?"))
    if result.get("dry_run"):
        click.echo(f"nothing was changed: generation {generation} with {policies} policies still runs")
    else:
        click.echo(f"{policies} policies in {took} ms, generation {generation}")
        if (sensor := result.get("sensor")) in UNCONFIRMED:
            click.echo(f"warning: loaded; {UNCONFIRMED[sensor]}", err=True)


def _changes(result: dict[str, Any]) -> Iterator[str]:
    """One line for each policy that isn't as before, `+` for added, `-` for removed, `~` for changed."""
    some = False
    for key, sign, style in (("added", "+", "good"), ("removed", "-", "bad"), ("changed", "~", "warning")):
        names = result.get(key)
        if not isinstance(names, list):
            continue
        some = some or bool(names)
        yield from (paint(f"  {sign} {safe(name)}", style) for name in names[:_SHOWN])
        if len(names) > _SHOWN:
            yield f"  {sign} and {len(names) - _SHOWN} more"
    if not some:
        yield "  no policy changed"
