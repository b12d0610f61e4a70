"""Cgroups of a test's own, in a hierarchy of the host: made, entered and removed."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.pace import patient


def hierarchies() -> list[str]:
    """Returns where container runtimes put their processes here: the v2 hierarchy, and the v1 one of pids where there is one."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(",")):
            found.append(where)
    return found


@contextmanager
def cgroup(hierarchy: str, path: str) -> Iterator[Path]:
    """Makes a cgroup below one of the test's own, and removes all of them at the end, when their processes have ended."""
    root = Path(tempfile.mkdtemp(prefix="execray-test-", dir=hierarchy))
    made = root
    try:
        for name in path.strip("/").split("/"):
            made = made / name
            made.mkdir()
        yield made
    finally:
        deadline = time.monotonic() + patient(5)
        while made != root.parent:
            try:
                os.rmdir(made)
            except OSError:
                assert time.monotonic() < deadline, f"{made} has processes still"
                time.sleep(0.01)
                continue
            made = made.parent
