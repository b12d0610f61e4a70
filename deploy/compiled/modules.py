"""What is compiled, whether this machine can do it, and how."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

from execray.errors import OperatorError

#: All that an event passes through on its way to a match. What is made of a match only stays as it is.
FOLDER: Final = Path("policyd", "engine")
_LEFT_OUT: Final = frozenset({"__init__.py", "outputs.py"})
#: What compiling needs beside a C compiler and Python's headers; exactly these, since they make what policyd runs.
TOOLS: Final = ("mypy==2.4.1", "setuptools==80.9.0")
_TIMEOUT_S: Final = 1800.0
_COMPILERS: Final = ("cc", "gcc", "clang")
_SCRIPT: Final = Path(__file__).with_name("build.py")


def modules(tree: Path) -> list[str]:
    """Returns the files to compile, as paths from the top of a source tree."""
    return sorted(str(FOLDER / file.name) for file in (tree / FOLDER).glob("*.py") if file.name not in _LEFT_OUT)


def obstacle() -> str | None:
    """Returns what this machine lacks to compile for the Python that runs this; None where it has all."""
    if not any(map(shutil.which, _COMPILERS)):
        return "no C compiler: apt install gcc"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "no headers of Python: apt install python3-dev"
    return None


def compile_in(tree: Path, python: Path, packages: Path) -> list[Path]:
    """Compiles in a copy of the source tree; returns the libraries made, which belong where they lie, from its top.

    python: an interpreter of the same version with TOOLS. packages: the interpreter that has what the program imports, so that
    types are known. Raises OperatorError.
    """
    command: list[str | Path] = [python, "-I", _SCRIPT, packages, *modules(tree)]
    try:
        done = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"compiling the engine: {error}") from error
    if done.returncode:
        said = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        raise OperatorError(f"compiling the engine failed: {said}", "COMPILED=no leaves it as it is")
    return sorted(file.relative_to(tree) for file in (*tree.glob("*.so"), *(tree / FOLDER).glob("*.so")))
