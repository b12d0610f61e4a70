"""`python -m deploy.compiled FOLDER`: a copy of the tree, compiled, to test and to measure (`make compiled`)."""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Final

from deploy.compiled.modules import compile_in, made, modules, obstacle
from deploy.said import failed
from execray.errors import OperatorError

_TREE: Final = Path(__file__).parents[2]
_COPIED: Final = ("execray", "tracerd", "policyd", "enforcer", "deploy", "tests", "policies", "docs", "examples", "bpf")
_FILES: Final = ("pyproject.toml", "README.md", "Makefile", "CHANGELOG.md")


def main() -> int:
    """Makes or renews the copy; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compiled", description=__doc__)
    parser.add_argument("folder", type=Path, help="is made, or made anew")
    try:
        renew(parser.parse_args().folder.absolute())
    except OperatorError as error:
        return failed(error)
    return 0


def renew(folder: Path) -> None:
    """Copies the tree, and compiles where what is compiled, or what its types are of, has changed. Raises OperatorError."""
    lacking = obstacle()
    if lacking is not None:
        raise OperatorError(f"the program can't be compiled here: {lacking}")
    stamp, now = folder / ".compiled", _digest()
    kept = {file.relative_to(folder): file.read_bytes() for file in made(folder)} if _read(stamp) == now else {}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _COPIED:
        shutil.copytree(
            _TREE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".output", "*.egg-info")
        )
    for name in _FILES:
        shutil.copy(_TREE / name, folder)
    if kept:
        for file, content in kept.items():
            (folder / file).write_bytes(content)
    else:
        print("compiling, about a minute", flush=True)
        compile_in(folder, Path(sys.executable), Path(sys.executable))
        shutil.rmtree(folder / "build")
    stamp.write_text(now)


def _digest() -> str:
    found = hashlib.sha256(sys.version.encode())
    types = (*_TREE.glob("execray/schema/*.py"), *_TREE.glob("tracerd/*.py"))
    for file in (*modules(_TREE), *sorted(map(str, types)), "policyd/program.py", "execray/process.py"):
        found.update((_TREE / file).read_bytes())
    return found.hexdigest()


def _read(stamp: Path) -> str:
    return stamp.read_text() if stamp.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
