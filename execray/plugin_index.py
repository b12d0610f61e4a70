"""Which plug-ins are installed: the entry points of ExecRay's own environment, and of a folder of their own beside it.

Nothing of a plug-in is loaded here; only the files that describe installed packages are read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

from execray.errors import OperatorError
from execray.plugins import ACTIONS, PLUGIN_NAME, SINKS
from execray.trust import distrust

_WORDS = {SINKS: "alert sink", ACTIONS: "action plug-in"}


@dataclass(frozen=True, slots=True)
class Installed:
    """One entry point."""

    group: str  # SINKS or ACTIONS
    name: str
    package: str  # name and version of its distribution
    entry: EntryPoint


def installed(group: str, folder: Path) -> list[Installed]:
    """Returns the plug-ins of a group by name. folder: where plug-ins are beside our own environment; it need not exist.

    Raises OperatorError for a folder that others may write to.
    """
    found = [
        Installed(group, entry.name, f"{distribution.name} {distribution.version}", entry)
        for distribution in _distributions(folder)
        for entry in distribution.entry_points
        if entry.group == group and PLUGIN_NAME.fullmatch(entry.name)
    ]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def find(group: str, name: str, folder: Path, others: Iterable[str] = ()) -> Installed:
    """Returns one plug-in. others: names that need no plug-in, for the hint. Raises OperatorError."""
    known = installed(group, folder)
    fitting = [plugin for plugin in known if plugin.name == name]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        packages = " and ".join(plugin.package for plugin in fitting)
        raise OperatorError(f"the {_WORDS[group]} `{name}` is in {packages}", "uninstall one of them")
    built_in = ", ".join(others)
    names = ", ".join(f"{plugin.name} ({plugin.package})" for plugin in known) or "none"
    hint = f"installed: {names}" if not built_in else f"built in: {built_in}; installed: {names}"
    raise OperatorError(f"there is no {_WORDS[group]} `{name}`", hint)


def search_path(folder: Path) -> list[str]:
    """Returns where plug-ins are imported from: behind everything else, so that none takes the place of a module of ours."""
    return [*sys.path, os.fspath(folder)]


def check_folder(folder: Path) -> bool:
    """Whether there is such a folder. Raises OperatorError where it, or something in it, may be written by others."""
    if not folder.exists():
        return False
    try:
        for path in (folder, *sorted(folder.rglob("*"))):
            if doubt := distrust(path, path.stat(), {0, os.geteuid()}):
                raise OperatorError(f"{path}: {doubt[0]}", doubt[1])
    except OSError as error:
        raise OperatorError(f"can't read {folder}: {error.strerror}", "see `policyd.plugin_dir`") from error
    return True


def _distributions(folder: Path) -> Iterator[Distribution]:
    path = search_path(folder) if check_folder(folder) else sys.path
    seen: set[str] = set()
    for distribution in distributions(path=path):
        # Of a package that stands in several places, the first is what is imported.
        name = str(distribution.metadata["Name"] or "")
        key = name.lower().replace("-", "_").replace(".", "_")
        if key and key not in seen:
            seen.add(key)
            yield distribution
