"""execray-ctl: one look at the three daemons, and the few things to ask of them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Final

import click

from execray.ctl.context import Context, command_errors, json_option, print_json
from execray.ctl.lazy import LazyGroup
from execray.terminal import safe
from execray.version import VERSION

#: Objects made before the garbage collector looks: what commands import is no garbage, and to look at it again and again takes a
#: tenth of a short command's time. Those that go on for long are still collected.
_GC_THRESHOLD: Final = 50_000

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


#: Where each command is: only the one that was named is imported.
COMMANDS: Final = {
    "alerts": "execray.ctl.alerts:alerts",
    "config": "execray.ctl.config:config",
    "doctor": "execray.ctl.doctor:doctor",
    "events": "execray.ctl.events:events",
    "mode": "execray.ctl.mode:mode",
    "policy": "execray.ctl.policy:policy",
    "record": "execray.ctl.record:record",
    "reload": "execray.ctl.reload:reload",
    "replay": "execray.ctl.testing:replay",
    "status": "execray.ctl.status:status",
}
#: Those that need the whole catalogue.
_SPEAK_OF_EVENTS: Final = frozenset(("alerts", "events", "policy", "record", "replay"))


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings=CONTEXT_SETTINGS)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Configuration file.  [default: /etc/execray/execray.yaml]",
)
@click.option(
    "--runtime-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the daemons' sockets.  [default: the configuration's]",
)
@click.pass_context
def main(context: click.Context, config_file: Path | None, runtime_dir: Path | None) -> None:
    """See and steer ExecRay on this host.

    \b
    Examples:
      execray-ctl status                     what runs, what it sees, what it lost
      execray-ctl alerts tail                alerts as they happen
      execray-ctl policy check my.policy     find the mistakes in a policy

    \b
    Exit codes: 0 done, 1 it failed, 2 wrong usage, 3 a daemon can't be reached or refuses.
    """
    gc.set_threshold(_GC_THRESHOLD)
    context.obj = made = Context(config_file, runtime_dir)
    if context.invoked_subcommand in _SPEAK_OF_EVENTS:
        for found in made.extend_catalogue():
            if found.refused:
                click.echo(f"note: {safe(found.package)} is left out: {safe(found.refused, 500)}", err=True)


@main.command()
@json_option
@click.pass_obj
@command_errors
def version(context: Context, as_json: bool) -> None:
    """Print the version of execray-ctl.

    \b
    Examples:
      execray-ctl version
      execray-ctl version --json
      execray-ctl status          the versions of the daemons that run
    """
    if as_json:
        print_json({"version": VERSION})
    else:
        click.echo(f"execray-ctl {VERSION}")


if __name__ == "__main__":
    main()
