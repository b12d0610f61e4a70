"""How `make test` runs tests beside each other: those of the kernel on one worker, and with them only what is quiet.

Who must have the machine to itself is marked `alone`, with the reason, and comes afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

#: Tests that load BPF, which sees everything on the machine: they are one worker's, and so run one after another.
KERNEL: Final = ("kernel", "e2e", "evasion", "integration")
#: What is begun first, since it takes longest: the machine, which waits and computes. Each is one worker's as well.
NEXT: Final = ("system", "compiled", "component")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts into order what is run at once, and asks of tests that must be alone why that is."""
    for item in items:
        for mark in item.iter_markers("alone"):
            if not (len(mark.args) == 1 and isinstance(mark.args[0], str) and mark.args[0].strip()):
                raise pytest.UsageError(f"{item.nodeid}: alone, and not a word why")
    if getattr(config.option, "loadgroup", False):
        items.sort(key=lambda item: _turn(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Any:
    """--dist=loadgroup is as described above. By marks of groups it would not be: pytest 9 no longer lets a test be renamed."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # the order is that of the collection
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope
    return scheduler


def _folder(nodeid: str) -> str:
    return Path(nodeid).parts[1]


def _scope(nodeid: str) -> str:
    """What one worker does without a break: of all others a file."""
    folder = _folder(nodeid)
    return "kernel" if folder in KERNEL else folder if folder in NEXT else nodeid.partition("::")[0]


def _turn(nodeid: str) -> int:
    folder, order = _folder(nodeid), (*KERNEL, *NEXT)
    return order.index(folder) if folder in order else len(order)
