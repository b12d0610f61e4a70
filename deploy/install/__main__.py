"""`python -m deploy.install install|uninstall`: what `make install` and `make uninstall` run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from deploy.install import host, tree
from deploy.install.places import SERVICES, Places
from deploy.install.program import Compiled
from deploy.said import failed
from execray.errors import OperatorError


def main() -> int:
    """Installs or uninstalls; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.install", description=__doc__)
    parser.add_argument("action", choices=["install", "uninstall"])
    parser.add_argument("--prefix", type=Path, default=Path("/usr/local"))
    parser.add_argument("--destdir", type=Path, default=None, help="stage below this folder; the host is left alone")
    parser.add_argument(
        "--compiled",
        choices=["auto", "yes", "no"],
        default="auto",
        help="policyd's engine and tracerd's decoder as machine code; auto: if it can be",
    )
    parser.add_argument("--purge", action="store_true", help="also remove configuration, state and accounts")
    arguments = parser.parse_args()
    os.umask(0o022)
    try:
        places = _places(arguments.prefix, arguments.destdir)
        live = places.destdir == Path("/")
        if arguments.action == "install":
            _install(places, arguments.compiled, live=live)
        else:
            _uninstall(places, live=live, purge=arguments.purge)
    except OperatorError as error:
        return failed(error)
    return 0


def _places(prefix: Path, destdir: Path | None) -> Places:
    if not prefix.is_absolute() or ".." in prefix.parts or prefix == Path("/"):
        raise OperatorError(f"PREFIX={prefix} is no folder to install into", "name a whole path, such as /usr/local")
    if any(character.isspace() or character in "%$\\\"'" for character in str(prefix)):
        raise OperatorError(f"PREFIX={prefix} can't stand in a unit", "choose a path without blanks, quotes, % and $")
    return Places(prefix, Path("/") if destdir is None else destdir.absolute())


def _install(places: Places, compiled: Compiled, *, live: bool) -> None:
    if live and os.geteuid() != 0:
        raise OperatorError("only root can install on this host", "use sudo, or stage it: make install DESTDIR=folder")
    installed = tree.install(places, compiled)
    for path in installed.kept:
        print(f"kept {path}; the one of this version is {places.shipped / path.relative_to(places.etc)}")
    if installed.as_python is not None:
        print(
            f"nothing is compiled ({installed.as_python}): each event takes policyd and tracerd about half as long again"
        )
    print(f"ExecRay is installed in {places.on_disk(places.program)}. Next:")
    running = host.prepare(places) if live else []
    steps = [] if live else ["systemd-sysusers", "systemd-tmpfiles --create execray.conf", "systemctl daemon-reload"]
    if running:
        steps.append(f"systemctl restart {' '.join(running)}")
    else:
        steps.append(f"systemctl enable --now {' '.join(SERVICES)}")
    steps += ["adduser YOU execray        # who may use execray-ctl, from the next login on", "execray-ctl status"]
    print("\n".join(f"  {step}" for step in steps))


def _uninstall(places: Places, *, live: bool, purge: bool) -> None:
    if live and os.geteuid() != 0:
        raise OperatorError("only root can uninstall on this host", "use sudo")
    if live:
        host.stop()
    tree.uninstall(places, purge=purge)
    if live:
        host.forget(purge=purge)
    if not purge:
        print(f"configuration and state are kept: {places.etc}, {places.state}; PURGE=1 removes them")


if __name__ == "__main__":
    sys.exit(main())
