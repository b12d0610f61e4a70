"""Makes the private venv: the program, what it depends on, and launchers that know only where they will finally be."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final, Literal, TypeAlias

from deploy.compiled.modules import TOOLS, compile_in, made, obstacle
from deploy.install.places import CTL, DAEMONS, TREE
from execray.errors import OperatorError

#: Whether engine and decoder are compiled: where this machine can do it, or not at all, or else nothing is installed.
Compiled: TypeAlias = Literal["auto", "yes", "no"]

PIP_TIMEOUT_S: Final = 900.0
MIN_PYTHON: Final = (3, 11)
_PACKAGES: Final = ("execray", "tracerd", "policyd", "enforcer")
_SHEBANG_MAX: Final = 127  # older kernels cut the rest off
#: -I: neither the caller's environment nor the current folder may add code to a program that root runs. A daemon that is
#: stopped by a fault or the watchdog says where it was.
_LAUNCHER: Final = """\
#!{python} {options}
import sys

from {module} import main

sys.exit(main())
"""
#: Each is loaded and does something: what is of another kind than its types say would fail here, and not at the first event.
_TRIAL: Final = """\
from policyd.engine import machine
machine.Machine().load((), 1)
from execray.schema.layout import ER_EVENT, FORK, HEADER
from tracerd import batch, decode, processes
record = bytearray(FORK.size)
HEADER.pack_into(record, 0, len(record), ER_EVENT["ER_EVENT_FORK"], 0, 1)
builder = batch.BatchBuilder()
decoder = decode.Decoder(processes.ProcessTable(16), builder)
decoder.decode(memoryview(record), 0, len(record))
assert decoder.decoded == 1 and len(builder.take().events) == 1
assert machine.is_compiled() and decode.is_compiled()
"""
#: 170 MB that nothing loads: pylibbpf imports llvmlite.ir, which is Python.
_LEFT_OUT: Final = ("llvmlite/binding/libllvmlite.so",)


def check_python() -> Path:
    """Returns the Python that the venv will use. Raises OperatorError for one that can't be used."""
    python = Path(sys._base_executable)  # type: ignore[attr-defined]  # of a venv, what it was made of
    hint = "name another one: make install PYTHON=/usr/bin/python3"
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        raise OperatorError(f"{python} is Python {sys.version.split()[0]}, and {wanted} or later is needed", hint)
    for path in (python, python.resolve()):
        for part in (path, *path.parents):
            if not part.stat().st_mode & stat.S_IXOTH:
                raise OperatorError(f"{python} can't be run by the daemons' accounts: {part} is closed to them", hint)
    return python


def build(target: Path, final: Path, compiled: Compiled) -> str | None:
    """Makes the venv in `target`, to be moved to `final` on the host.

    Returns why nothing is compiled, None where it is. Raises OperatorError.
    """
    python = check_python()
    lacking = "COMPILED=no" if compiled == "no" else obstacle()
    if lacking is not None and compiled == "yes":
        raise OperatorError(f"the program can't be compiled here: {lacking}", "or install it as it is: COMPILED=no")
    if len(f"#!{final}/bin/python3 ") > _SHEBANG_MAX - 16:
        raise OperatorError(f"{final} is too long a path for a program's first line", "choose a shorter PREFIX")
    with tempfile.TemporaryDirectory(prefix="execray-build-") as name:
        scratch = Path(name)
        tools = scratch / "tools"
        _run("making a venv", python, "-m", "venv", tools)
        wheel = _wheel(scratch, tools / "bin" / "python3")
        _empty_venv(target, python)
        own = target / "bin" / "python3"
        pip = (tools / "bin" / "python3", "-m", "pip", "--python", own, "install", "-q", "--no-compile")
        # --no-build-isolation is not given: what has no wheel is built in a venv of its own
        _run("installing the Python packages", *pip, f"{wheel}[tracerd,policyd]", cwd=scratch)
        if lacking is None:
            lacking = _compile(scratch, target, compiled)
    _finish(target, final)
    return lacking


def _compile(scratch: Path, target: Path, compiled: Compiled) -> str | None:
    """Compiles into the venv. Returns why not, where that is allowed, and raises OperatorError where it isn't."""
    tools, source = scratch / "tools" / "bin" / "python3", scratch / "source"
    (packages,) = target.glob("lib/*/site-packages")
    try:
        _run("installing the compiler of Python", tools, "-m", "pip", "install", "-q", *TOOLS)
        for library in compile_in(source, tools, target / "bin" / "python3"):
            shutil.copy(source / library, packages / library)
        _run("trying what was compiled", target / "bin" / "python3", "-I", "-B", "-c", _TRIAL)
    except OperatorError as error:
        if compiled == "yes":
            raise
        for library in made(packages):
            library.unlink()
        return error.message
    return None


def _wheel(scratch: Path, python: Path) -> Path:
    """Builds our own wheel from a copy, so that the tree stays as it is."""
    source = scratch / "source"
    for package in _PACKAGES:
        shutil.copytree(TREE / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(TREE / file, source)
    pip = (python, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", scratch, source)
    _run("building the program", *pip, cwd=scratch)
    (wheel,) = scratch.glob("execray-*.whl")
    return wheel


def _empty_venv(target: Path, python: Path) -> None:
    """A venv without pip and without scripts to activate it: nobody works in it."""
    venv.EnvBuilder(clear=True).ensure_directories(os.fspath(target))
    shutil.rmtree(target / "include")
    # by its version: the packages are this one's, and of another nothing would be found
    (target / "bin" / "python3").symlink_to(python.resolve())
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [f"home = {python.parent}", "include-system-site-packages = false", f"version = {version}"]
    (target / "pyvenv.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _finish(target: Path, final: Path) -> None:
    """Takes away what pip left that names this machine's folders, and writes the launchers."""
    for script in (target / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()
    for left_out in _LEFT_OUT:
        for file in target.glob(f"lib/*/site-packages/{left_out}"):
            file.unlink()
    for origin in target.glob("lib/*/site-packages/execray-*.dist-info/direct_url.json"):
        origin.unlink()
    for name in (*DAEMONS, CTL):
        module = "execray.ctl.main" if name == CTL else f"{name}.cli"
        options = "-I" if name == CTL else "-IXfaulthandler"
        launcher = target / "bin" / name
        text = _LAUNCHER.format(python=final / "bin" / "python3", options=options, module=module)
        launcher.write_text(text, encoding="utf-8")
        launcher.chmod(0o755)
    # Bytecode names its source in tracebacks: by the final path, too.
    compile_ = ("-m", "compileall", "-q", "-j", "0", "-s", target, "-p", final, target / "lib")
    _run("compiling", target / "bin" / "python3", "-I", *compile_)


def _run(what: str, *command: str | Path, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=PIP_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"{what}: {error}") from error
    if done.returncode:
        said = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        raise OperatorError(f"{what} failed: {said}", "is python3-venv installed, and the package index reachable?")
