"""Run by the installed Python: writes what is made from the commands themselves, the man page and the shell completions.

From the commands as installed, with the click that came along: a completion script and click must agree on how they talk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from click.shell_completion import get_completion_class

from deploy.install.manpage import manpage
from execray.ctl.main import main as ctl

SHELLS: Final = ("bash", "zsh", "fish")


def generate(folder: Path) -> None:
    """Writes execray-ctl.1, and a completion script for each shell under its name, into a folder."""
    name = "execray-ctl"
    (folder / f"{name}.1").write_text(manpage(ctl, name), encoding="utf-8")
    for shell in SHELLS:
        kind = get_completion_class(shell)
        assert kind is not None, f"click no longer knows {shell}"
        variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
        (folder / shell).write_text(kind(ctl, {}, name, variable).source(), encoding="utf-8")


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
