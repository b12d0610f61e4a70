"""`alerts tail|list|show`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from execray.ctl.complete import alert_ids
from execray.ctl.context import Context, as_map, as_maps, command_errors, json_option, print_json
from execray.ctl.lazy import LazyGroup
from execray.terminal import columns, safe, use_color
from execray.timeline import render, summary
from execray.wire.control import encode_line

_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


if TYPE_CHECKING:
    _TextParam = click.ParamType[str]
else:
    _TextParam = click.ParamType  # generic only in newer releases of click


class Since(_TextParam):
    """A span such as 10m, or a point in time; becomes ISO 8601 in UTC."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the time as text."""
        text = str(value)
        if span := _SPAN.fullmatch(text):
            return (datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})).isoformat()
        try:
            return datetime.fromisoformat(text).astimezone(UTC).isoformat()
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither a span like 10m, 2h, 1d nor a time like 2026-01-31T12:00", param, ctx)


@click.group(cls=LazyGroup, lazy={"why": "execray.ctl.why:why"})
def alerts() -> None:
    """Read alerts: as they happen, those on file, or one with its whole story.

    \b
    Examples:
      execray-ctl alerts tail
      execray-ctl alerts list --since 1h
      execray-ctl alerts show 5f0c1d2e
    """


@alerts.command()
@click.option(
    "-n", "--last", type=click.IntRange(0, 100), default=0, show_default=True, help="Earlier ones shown first."
)
@json_option
@click.pass_obj
@command_errors
def tail(context: Context, last: int, as_json: bool) -> None:
    """Print alerts as they happen, until Ctrl-C; with --json one object a line.

    \b
    Examples:
      execray-ctl alerts tail
      execray-ctl alerts tail -n 5
      execray-ctl alerts tail --json | jq -r .rule.name
    """
    with context.client("policyd") as client:
        try:
            for item in client.follow("alerts.tail", last=last):
                found = as_map(item)
                if "dropped" in found:
                    click.echo(f"note: {safe(found['dropped'])} alerts not shown: this reader is too slow", err=True)
                elif as_json:
                    click.echo(encode_line(found).decode("ascii"), nl=False)
                else:
                    click.echo(render(found, color=use_color(), width=columns()))
        except KeyboardInterrupt:
            return  # the ordinary way to end it
    click.echo("note: policyd closed the connection", err=True)


@alerts.command("list")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many, the newest."
)
@click.option("--since", type=Since(), metavar="WHEN", help="Not older than: a span (10m, 2h, 1d) or an ISO time.")
@json_option
@click.pass_obj
@command_errors
def list_(context: Context, limit: int, since: str | None, as_json: bool) -> None:
    """List the alerts on file, one a line, the newest last.

    \b
    Examples:
      execray-ctl alerts list
      execray-ctl alerts list --since 1h -n 200
      execray-ctl alerts list --json | jq '.alerts[].rule.name'
    """
    with context.client("policyd", timeout_s=30.0) as client:
        result = as_map(client.call("alerts.list", limit=limit, since=since or ""))
    if as_json:
        print_json(result)
        return
    found = as_maps(result.get("alerts"))
    for alert in found:
        click.echo(summary(alert, color=use_color()))
    if not found:
        click.echo("no alerts")


@alerts.command()
@click.argument("alert_id", metavar="ID", shell_complete=alert_ids)
@json_option
@click.pass_obj
@command_errors
def show(context: Context, alert_id: str, as_json: bool) -> None:
    """Show one alert with its timeline: every step, when, by whom, and what was done about it.

    ID may be the beginning of an id, if only one alert has it.

    \b
    Examples:
      execray-ctl alerts show 5f0c1d2e9a7b4c3d
      execray-ctl alerts show 5f0c
      execray-ctl alerts show 5f0c --json | jq .execray.trail
    """
    with context.client("policyd", timeout_s=30.0) as client:
        found = as_map(client.call("alerts.show", id=alert_id))
    if as_json:
        print_json(found)
    else:
        click.echo(render(found, color=use_color(), width=columns()), nl=False)
