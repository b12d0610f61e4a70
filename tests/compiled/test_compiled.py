"""The engine as machine code does what it does as Python: its own tests and random cases, in a compiled copy of the tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compiled.modules import FOLDER, modules, obstacle
from deploy.install import program
from execray.errors import OperatorError

TREE = Path(__file__).parents[2]
COPY = TREE / ".execray" / "compiled"
TIMEOUT_S = 900

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def run(folder: Path, *arguments: str) -> str:
    """Runs Python in a folder, with that folder's code, and returns what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def copy() -> Path:
    """The copy; made once, and anew where something that is compiled has changed."""
    run(TREE, "-m", "deploy.compiled", str(COPY))
    return COPY


def test_every_module_of_the_engine_runs_compiled(copy: Path) -> None:
    names = [Path(module).stem for module in modules(TREE)]
    assert len(names) > 15 and (TREE / FOLDER / f"{names[0]}.py").exists()
    imported = "; ".join(f"import policyd.engine.{name}" for name in names)
    files = "[" + ", ".join(f"policyd.engine.{name}.__file__" for name in names) + "]"
    said = run(copy, "-c", f"{imported}; print(*{files}); print(policyd.engine.machine.is_compiled())")
    *found, compiled = said.split()
    assert compiled == "True"
    assert [Path(file).suffix for file in found] == [".so"] * len(names)


def test_the_tests_of_the_engine_hold_for_what_is_compiled(copy: Path) -> None:
    said = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/policyd/engine")
    assert " passed" in said and " failed" not in said


def test_what_is_compiled_agrees_with_the_plain_matcher(copy: Path) -> None:
    assert "400 of 400 agree" in run(copy, "-m", "tests.properties", "--cases", "400", "--seed", "1811")


def test_without_a_compiler_it_is_said_and_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert obstacle() is None  # here it can be compiled
    monkeypatch.setenv("PATH", str(tmp_path))
    assert obstacle() == "no C compiler: apt install gcc"
    monkeypatch.setattr(program, "check_python", lambda: Path("/usr/bin/python3"))
    with pytest.raises(OperatorError, match="no C compiler") as refused:
        program.build(tmp_path / "target", Path("/usr/local/lib/execray"), "yes")
    assert refused.value.hint == "or install it as it is: COMPILED=no"
    assert not (tmp_path / "target").exists()
