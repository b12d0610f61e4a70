"""`record`: the live stream into an event file, for replay and for vectors."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Final

import click

from execray.ctl.context import EXIT_FAILED, Context, as_map, command_errors, json_option, print_json
from execray.ctl.events import EventTypes
from execray.errors import OperatorError
from execray.terminal import safe

_SPAN: Final = re.compile(r"(\d{1,6})([smh])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_PROGRESS_S: Final = 0.5


@click.command()
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
    help="Event file to write, compressed by its ending: .jsonl, .jsonl.gz, .jsonl.zst.",
)  # fmt: skip
@click.option("--for", "span", metavar="TIME", help="End after 90s, 10m or 1h.  [default: at Ctrl-C]")
@click.option(
    "--max-mib", type=click.IntRange(1, 65536), default=256, show_default=True, help="End at so much, uncompressed."
)
@click.option(
    "--type",
    "types",
    type=EventTypes(),
    multiple=True,
    metavar="NAME[,NAME]",
    help="Only these events.  [default: all but write]",
)
@click.option("--content", is_flag=True, help="With bytes written and read, and environments; for root.")
@json_option
@click.pass_obj
@command_errors
def record(
    context: Context,
    output: Path,
    span: str | None,
    max_mib: int,
    types: tuple[list[str], ...],
    content: bool,
    as_json: bool,
) -> None:
    """Record what processes do into an event file, for `replay`, `policy test` and `policy whynot`.

    A recording holds other people's paths and arguments: it is written for its owner only.

    \b
    Examples:
      execray-ctl record -o work.jsonl.gz --for 1h
      execray-ctl record -o writes.jsonl --type open,write,connect --content --for 30s
      execray-ctl record -o work.jsonl.zst && execray-ctl replay work.jsonl.zst --policies policies
    """
    from execray.eventfile import EventWriter  # noqa: PLC0415  # slow to load

    chosen = list(dict.fromkeys(name for names in types for name in names))
    for_s = None if span is None else _seconds(span)
    shown = _Progress(sys.stderr.isatty() and not as_json)
    lost, full = 0, False
    with context.client("policyd") as client:
        client.call("version")  # before there is a file
        with EventWriter(output, max_mib << 20) as writer:
            try:
                for item in client.follow("events", for_s, types=chosen, ancestors=True, content=content):
                    found = as_map(item)
                    lost += found.get("count", 0) if found.get("event") == "lost" else 0
                    if not writer.write(found):
                        full = True
                        break
                    shown.show(writer.written, writer.bytes)
            except KeyboardInterrupt:
                pass  # the ordinary way to end it
            written, size = writer.written, writer.bytes
    shown.end()
    if as_json:
        print_json({"file": str(output), "events": written, "bytes": size, "lost": lost, "full": full})
    else:
        more = f", {lost} lost" if lost else ""
        click.echo(
            f"{written} events{more}, {size / 1048576:.1f} MiB before compression: {safe(output)}",
            err=str(output) == "-",
        )
    if lost and not as_json:
        click.echo("note: a recording gets what detection leaves over: with --type it gets more of less", err=True)
    if full:
        click.echo(f"note: it ended at --max-mib {max_mib}", err=True)
        sys.exit(EXIT_FAILED)


def _seconds(span: str) -> float:
    found = _SPAN.fullmatch(span)
    if found is None:
        raise OperatorError(f"--for {safe(span)} is no time", "write it as 90s, 10m or 1h")
    return float(int(found[1]) * _UNITS[found[2]])


class _Progress:
    """A line on the terminal that says how much there is so far."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._at = 0.0

    def show(self, events: int, size: int) -> None:
        now = time.monotonic()
        if self._on and now - self._at >= _PROGRESS_S:
            self._at = now
            sys.stderr.write(f"\r{events} events, {size / 1048576:.1f} MiB; Ctrl-C ends it ")
            sys.stderr.flush()

    def end(self) -> None:
        if self._on and self._at:
            sys.stderr.write("\r\x1b[K")
