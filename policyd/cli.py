"""The command `policyd`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
from functools import partial
from pathlib import Path

import click

from execray.config import Config, load
from execray.errors import OperatorError
from execray.extensions import extend_catalogue, log_outcomes
from execray.guard import OwnProcesses
from execray.logs import give_up, setup_logging
from execray.scheduling import take_short_turns
from execray.version import VERSION
from execray.wire.orders import Outcome
from policyd.privileges import account


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Configuration file.  [default: /etc/execray/execray.yaml]")  # fmt: skip
@click.option("--runtime-dir", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the sockets.")
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR", help="Folder of what is kept.")
@click.option("--policy-dir", "policy_dirs", type=click.Path(path_type=Path), metavar="DIR", multiple=True,
              help="Folder of *.policy files; may be given several times.")  # fmt: skip
@click.option("--mode", type=click.Choice(["audit", "enforce"]), help="How far any policy may go on this host.")
@click.option("--sink", "sinks", metavar="NAME", multiple=True,
              help="Where alerts go: file, stdout, journal or a plug-in; may be given several times.")  # fmt: skip
@click.option("--user", metavar="NAME", help="The account to change to, when started as root.")
@click.version_option(VERSION, prog_name="policyd")
def main(
    config_file: Path | None,
    runtime_dir: Path | None,
    state_dir: Path | None,
    policy_dirs: tuple[Path, ...],
    mode: str | None,
    sinks: tuple[str, ...],
    user: str | None,
) -> None:
    """Run ExecRay's engine: it reads tracerd's events, recognises what policies describe, and responds.

    Options override the configuration file.

    \b
    Examples:
      policyd
      policyd --policy-dir ./policies --sink stdout
      policyd --config ./execray.yaml --runtime-dir ./run --state-dir ./state --mode enforce
    """
    try:
        config = load(config_file)
        policyd = config.policyd
        policyd = dataclasses.replace(
            policyd,
            policy_dirs=policy_dirs or policyd.policy_dirs,
            sinks=sinks or policyd.sinks,
            user=policyd.user if user is None else user,
        )
        config = dataclasses.replace(
            config,
            policyd=policyd,
            runtime_dir=runtime_dir or config.runtime_dir,
            state_dir=state_dir or config.state_dir,
            mode=mode or config.mode,
        )
        _run(config)
    except OperatorError as error:
        give_up("policyd", error)


def _run(config: Config) -> None:
    try:
        import uvloop  # noqa: PLC0415  # here, so that --help and mistakes in the configuration don't need it
    except ImportError as error:
        raise OperatorError("uvloop is not installed", "pip install 'execray[policyd]'") from error
    # Likewise the engine and RE2.
    from policyd.daemon import Daemon  # noqa: PLC0415
    from policyd.enforcer_client import EnforcerClient  # noqa: PLC0415
    from policyd.reloading import SWITCH_S  # noqa: PLC0415

    sys.setswitchinterval(SWITCH_S)
    take_short_turns()

    log = setup_logging("policyd", config.log_level)
    log_outcomes(extend_catalogue(config.policyd.plugin_dir), log)
    user = account(config.policyd.user) if config.policyd.user and os.geteuid() == 0 else None
    own = OwnProcesses()
    enforcer = EnforcerClient(config, log, own, on_captured=partial(_captured, log))
    daemon = Daemon(config, log, enforcer, own, user)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(daemon.run())


def _captured(log: logging.Logger, outcome: Outcome) -> None:
    log.info(
        "captured",
        extra={
            "kv": {
                "order_id": outcome.order_id,
                "file": outcome.file,
                "packets": outcome.packets,
                "bytes": outcome.bytes,
            }
        },
    )


if __name__ == "__main__":
    main()
