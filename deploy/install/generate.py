"""Run by the installed Python: writes what is made from the commands themselves, the man page and the shell completions.

From the commands as installed, with the click that came along: a completion script and click must agree on how they talk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from click.shell_completion import get_completion_class

from deploy.install.manpage import manpage
from deploy.install.places import CTL
from enforcer.cli import main as enforcer
from execray.ctl.main import main as ctl
from policyd.cli import main as policyd
from tracerd.cli import main as tracerd

SHELLS: Final = ("bash", "zsh", "fish")
DAEMONS: Final = {"tracerd": tracerd, "policyd": policyd, "enforcer": enforcer}


def generate(folder: Path) -> None:
    """Writes the man pages, and a completion script for each shell under its name, into a folder."""
    (folder / f"{CTL}.1").write_text(manpage(ctl, CTL), encoding="utf-8")
    for daemon, command in DAEMONS.items():
        name = f"execray-{daemon}"
        (folder / f"{name}.8").write_text(manpage(command, name, 8), encoding="utf-8")
    for shell in SHELLS:
        kind = get_completion_class(shell)
        assert kind is not None, f"click no longer knows {shell}"
        variable = f"_{CTL.replace('-', '_').upper()}_COMPLETE"
        (folder / shell).write_text(kind(ctl, {}, CTL, variable).source(), encoding="utf-8")


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
