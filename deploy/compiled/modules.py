"""What is compiled, whether this machine can do it, and how."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from itertools import chain
from pathlib import Path
from typing import Final

from execray.errors import OperatorError

#: All that an event passes through in policyd on its way to a match. What is made of a match only stays as it is.
ENGINE: Final = Path("policyd", "engine")
_LEFT_OUT: Final = frozenset({"__init__.py", "outputs.py"})
#: The same in tracerd, from the ring's bytes to the stream's arrays. Not the reader itself, which waits more than it works.
_DECODER: Final = ("batch", "containers", "decode", "entries", "plain", "processes", "records")
#: What compiling needs beside a C compiler and Python's headers; exactly these, since they make what policyd runs.
TOOLS: Final = ("mypy==2.4.1", "setuptools==80.9.0")
_TIMEOUT_S: Final = 1800.0
_COMPILERS: Final = ("cc", "gcc", "clang")
_SCRIPT: Final = Path(__file__).with_name("build.py")


def libraries(tree: Path) -> dict[str, list[str]]:
    """Returns the files to compile, as paths from the top of a source tree, by the library that holds them: one a daemon."""
    engine = (file.name for file in (tree / ENGINE).glob("*.py") if file.name not in _LEFT_OUT)
    return {
        "execray_engine": sorted(str(ENGINE / name) for name in engine),
        "execray_decoder": [f"tracerd/{name}.py" for name in _DECODER],
    }


def modules(tree: Path) -> list[str]:
    """Returns all of them."""
    return [file for files in libraries(tree).values() for file in files]


def made(folder: Path) -> list[Path]:
    """Returns what compiling has made, or what was installed of it, below the top of a source tree or a folder of packages."""
    shared = (folder.glob(f"{name}__mypyc.*.so") for name in libraries(folder))
    return sorted([*chain(*shared), *(folder / ENGINE).glob("*.so"), *(folder / "tracerd").glob("*.so")])


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
    groups = [f"{name}={','.join(files)}" for name, files in libraries(tree).items()]
    command: list[str | Path] = [python, "-I", _SCRIPT, packages, *groups]
    try:
        done = subprocess.run(
            command, cwd=tree, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"compiling: {error}") from error
    if done.returncode:
        said = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        raise OperatorError(f"compiling failed: {said}", "COMPILED=no leaves it as it is")
    return [file.relative_to(tree) for file in made(tree)]
