"""The command `enforcer`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from enforcer.daemon import run
from execray import config as configuration
from execray.errors import OperatorError
from execray.logs import give_up, setup_logging
from execray.version import VERSION


@click.command(epilog="Example: enforcer --config /etc/execray/execray.yaml --mode audit")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Configuration file. [default: /etc/execray/execray.yaml]",
)
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Folder of the sockets, instead of the file's.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Folder of captures and logs, instead of the file's."
)
@click.option("--mode", type=click.Choice(["audit", "enforce"]), help="Mode of this host, instead of the file's.")
@click.version_option(VERSION, prog_name="enforcer")
def main(config_path: Path | None, runtime_dir: Path | None, state_dir: Path | None, mode: str | None) -> None:
    """Kill and capture on policyd's orders, after judging each by its own guard. Needs CAP_KILL, and CAP_NET_RAW to capture."""
    try:
        config = configuration.load(config_path)
        given = {"runtime_dir": runtime_dir, "state_dir": state_dir, "mode": mode}
        config = dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # each under its own name
        run(config, setup_logging("enforcer", config.log_level))
    except OperatorError as error:
        give_up("enforcer", error)


if __name__ == "__main__":
    main()
