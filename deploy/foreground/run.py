"""`make run`: the three daemons with the shipped policies in audit mode, alerts printed as they come, until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Final

import click

from deploy.foreground.stack import DAEMONS, Stack
from deploy.said import failed
from execray.errors import OperatorError

WORK: Final = Path(".execray/run")
POLICIES: Final = Path("policies")


def trusted(policies: Path) -> Path:
    """Returns the folder, or a copy where it belongs to an ordinary user: policyd runs no policies that others can change."""
    if all(path.stat().st_uid == os.geteuid() for path in (policies, *policies.glob("*.policy"))):
        return policies
    copy = WORK / "policies"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for path in policies.glob("*.policy"):
        (copy / path.name).write_bytes(path.read_bytes())
    click.echo(f"{policies} isn't yours to trust, so a copy is used: {copy}", err=True)
    return copy


@click.command()
@click.option(
    "--policies", type=click.Path(path_type=Path, exists=True, file_okay=False), default=POLICIES, show_default=True
)
def main(policies: Path) -> None:
    """Watch this machine; nothing is killed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    policies = trusted(policies)
    settings = {"mode": "audit", "policyd": {"policy_dirs": [str(policies.resolve())], "sinks": ["stdout", "file"]}}
    try:
        with Stack(WORK.resolve(), settings) as stack:
            click.echo(
                f"watching with the policies of {policies}, audit mode; logs in {WORK}; Ctrl-C ends it", err=True
            )
            click.echo(f"look inside: execray-ctl --config {stack.config} status", err=True)
            while all(stack.running(name) for name in DAEMONS):
                time.sleep(0.2)
            ended = ", ".join(name for name in DAEMONS if not stack.running(name))
            raise OperatorError(f"{ended} ended", f"see {WORK}/*.log")
    except KeyboardInterrupt:
        click.echo("ended", err=True)
    except OperatorError as error:
        sys.exit(failed(error))


if __name__ == "__main__":
    main()
