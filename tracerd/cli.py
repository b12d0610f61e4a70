"""The command `tracerd`."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from pathlib import Path

import click

from execray import config as configuration
from execray.errors import OperatorError
from execray.extensions import extend_catalogue, log_outcomes
from execray.logs import give_up, setup_logging
from execray.scheduling import take_short_turns
from execray.version import VERSION
from tracerd.objects import OBJECT_DIR


@click.command(epilog="Example: tracerd --config /etc/execray/execray.yaml")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Configuration file. [default: /etc/execray/execray.yaml]",
)
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Folder of the sockets, instead of the file's.")
@click.option(
    "--object-dir",
    type=click.Path(path_type=Path),
    default=OBJECT_DIR,
    show_default=False,
    help="Folder of the BPF objects, instead of the ones that came along.",
)
@click.version_option(VERSION, prog_name="tracerd")
def main(config_path: Path | None, runtime_dir: Path | None, object_dir: Path) -> None:
    """Watch processes through eBPF and stream their events to policyd. Needs root, and a kernel of 5.8 or later with BTF."""
    try:
        config = configuration.load(config_path)
        if runtime_dir is not None:
            config = dataclasses.replace(config, runtime_dir=runtime_dir)
        log = setup_logging("tracerd", config.log_level)
        # pylibbpf is slow to import and not needed to refuse a bad configuration
        from tracerd.daemon import Tracerd  # noqa: PLC0415

        extensions = extend_catalogue(config.policyd.plugin_dir)
        log_outcomes(extensions, log)
        take_short_turns()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent that ignores it would hand that on
        asyncio.run(Tracerd(config, log, object_dir, extensions).run())
    except OperatorError as error:
        give_up("tracerd", error)


if __name__ == "__main__":
    main()
