"""What is compiled does what it does as Python: its own tests, random cases and an hour's records, in a compiled copy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compiled.modules import modules, obstacle
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


def test_every_module_that_is_to_be_compiled_is(copy: Path) -> None:
    names = [file.removesuffix(".py").replace("/", ".") for file in modules(TREE)]
    assert len([name for name in names if name.startswith("policyd.engine.")]) > 15 and "tracerd.decode" in names
    imported = "; ".join(f"import {name}" for name in names)
    files = ", ".join(f"{name}.__file__" for name in names)
    said = run(
        copy, "-c", f"{imported}; print({files}, policyd.engine.machine.is_compiled(), tracerd.decode.is_compiled())"
    )
    *found, engine, decoder = said.split()
    assert (engine, decoder) == ("True", "True")
    assert [Path(file).suffix for file in found] == [".so"] * len(names)


def test_a_daemon_holds_nothing_of_another_ones_code(copy: Path) -> None:
    """What runs as root is as little as it can be: one library for each."""
    code = "import tracerd.decode; print(*{line.split()[-1] for line in open('/proc/self/maps') if '__mypyc' in line})"
    (held,) = run(copy, "-c", code).split()
    assert Path(held).name.startswith("execray_decoder__mypyc")


def test_the_tests_of_what_is_compiled_hold_for_it(copy: Path) -> None:
    own = [f"tests/unit/tracerd/test_{name}.py" for name in ("batch", "decode", "entries", "plain", "processes")]
    packages = ("tests/unit/execray/test_catalog.py", "tests/unit/execray/test_extension.py")
    said = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/policyd/engine", *own, *packages)
    assert " passed" in said and " failed" not in said


DECODE = """
import hashlib
from execray.wire.frames import encode
from tests.bench import hour
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.processes import ProcessTable
builder = BatchBuilder()
decoder = Decoder(ProcessTable(500), builder, lambda: 0)
found = hashlib.sha256()
for number, record in enumerate(hour.records(3000)):
    decoder.decode(memoryview(record), 0, len(record))
    if number % 97 == 0:  # damaged ones in between: refused, or something else
        decoder.decode(memoryview(record), 0, len(record) - 1)
        decoder.decode(memoryview(record[:30] + bytes([number & 255]) + record[31:]), 0, len(record))
    if number % 200 == 0:
        found.update(encode(builder.take()))
print(decoder.decoded, decoder.refused, found.hexdigest())
"""


def test_an_hours_records_give_the_same_bytes_of_the_stream_either_way(copy: Path) -> None:
    said = run(copy, "-c", DECODE)
    decoded, refused, _ = said.split()
    assert int(decoded) > 2_900 and int(refused) > 30
    assert said == run(TREE, "-c", DECODE)


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
