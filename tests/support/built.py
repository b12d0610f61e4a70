"""Small C programs of tests: compiled where they are needed, or beforehand where there is no compiler (tests/vm)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

#: A folder of programs that are built already, each by the name that `name` gives it.
_BUILT: Final = os.environ.get("EXECRAY_BUILT")
_TIMEOUT_S: Final = 60.0


def name(source: str) -> str:
    """Names a program by what it does."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def build(source: str, program: Path) -> Path:
    """Makes a program and returns its path. Raises CalledProcessError where it doesn't compile."""
    if _BUILT and (found := Path(_BUILT, name(source))).exists():
        shutil.copy(found, program)
        return program
    # static: another machine's libraries may be older
    command: list[str | Path] = ["gcc", "-O1", "-w", "-static", "-pthread", "-x", "c", "-o", program, "-"]
    subprocess.run(command, input=source.encode(), check=True, timeout=_TIMEOUT_S)
    return program
