"""`reload`."""

from __future__ import annotations

import sys
from typing import Any

import click

from execray.ctl.context import EXIT_FAILED, Context, as_map, command_errors, json_option, print_json
from execray.terminal import safe


@click.command()
@json_option
@click.pass_obj
@command_errors
def reload(context: Context, as_json: bool) -> None:
    """Make policyd read its policies again: all of them, or on any mistake none.

    \b
    Examples:
      execray-ctl reload
      execray-ctl reload --json | jq .generation
      execray-ctl policy check /etc/execray/policies && execray-ctl reload
    """
    with context.client("policyd", timeout_s=30.0) as client:
        result = as_map(client.call("reload"))
    if as_json:
        print_json(result)
    else:
        _show_reload(result)
    if not result.get("ok"):
        sys.exit(EXIT_FAILED)


def _show_reload(result: dict[str, Any]) -> None:
    # Rendered by the daemon, so without colour, and it may quote any file: escaped line by line.
    for line in str(result.get("rendered", "")).splitlines():
        click.echo(safe(line, 1000), err=not result.get("ok"))
    generation, took = safe(result.get("generation", "?")), safe(result.get("ms", "?"))
    if result.get("ok"):
        click.echo(f"{safe(result.get('policies', '?'))} policies in {took} ms, generation {generation}")
    else:
        click.echo(f"error: nothing was changed; generation {generation} still runs", err=True)
