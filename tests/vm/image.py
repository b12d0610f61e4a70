"""The disk that a guest boots from: a small Debian 12, and in it this tree with the Python packages it runs on."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tests.kernel.test_compat import INT80
from tests.kernel.test_gate_state import RACE
from tests.kernel.test_inline_threads import TOGETHER
from tests.support import built
from tests.vm.kernels import Image, NotFetched, source_list

TREE: Final = Path(__file__).resolve().parents[2]
#: What of the tree the guest needs.
PARTS: Final = ("execray", "tracerd", "policyd", "enforcer", "deploy", "policies", "tests", "pyproject.toml")
#: Where it stands in the guest.
HOME: Final = Path("opt/execray")
#: A file in it: arguments of pytest, one a line, where not all tests shall be run.
ONLY: Final = "only"
#: A folder in it: the tests' C programs, since the guest has no compiler.
BUILT: Final = "built"
#: Debian 12 whatever the kernel: its Python is the one that the venv's compiled packages were built for.
SUITES: Final = ("bookworm", "bookworm-security")
PACKAGES: Final = ("python3", "iproute2", "tcpdump", "libelf1", "systemd-sysv", "kmod", "xfsprogs")
#: What the tests mount that isn't built into the kernels, and what that needs in one or the other of them.
MODULES: Final = ("loop", "overlay", "xfs", "libcrc32c", "crc32c_generic", "crc32c-intel")
PYTHON: Final = (3, 11)
#: 170 MB that nothing here loads: pylibbpf imports llvmlite.ir only.
_LEFT_OUT: Final = "libllvmlite.so"
_BUILD_TIMEOUT_S: Final = 900.0
SIZE: Final = "900M"  # of which most is a hole


def build(
    work: Path,
    script: Path | None = None,
    *,
    only: Sequence[str] = (),
    name: str = "root",
    prepare: Callable[[Path], None] | None = None,
) -> Path:
    """Makes the disk image NAME.img in work and returns it; the Debian in it is made once. Raises NotFetched.

    script: Python that the guest shall run instead of its tests. only: arguments of pytest, instead of all tests.
    prepare: makes of the disk's folder what it shall be.
    """
    if sys.version_info[:2] != PYTHON:
        raise NotFetched(
            f"the guest has Python {PYTHON[0]}.{PYTHON[1]}, and this is {sys.version.split()[0]}",
            "make a venv with that Python: make test-vm PYTHON=python3.11",
        )
    root = work / f"{name}.tree"
    run("rm", "-rf", str(root))
    run("cp", "-a", "--reflink=auto", str(_debian(work)), str(root))
    home = root / HOME
    home.mkdir(parents=True)
    for part in PARTS:
        source = TREE / part
        if source.is_dir():
            shutil.copytree(source, home / part, ignore=shutil.ignore_patterns(".pytest_cache", ".output"))
        else:
            shutil.copy2(source, home)
    if script is not None:
        shutil.copy2(script, home / "script.py")
    (home / ONLY).write_text("".join(f"{argument}\n" for argument in only), encoding="utf-8")
    _venv(home / ".venv")
    (home / BUILT).mkdir()
    for code in (INT80, RACE, TOGETHER):
        _compile(code, home / BUILT / built.name(code))
    if prepare is not None:
        prepare(root)
    image = work / f"{name}.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(image), SIZE)
    run("rm", "-rf", str(root))
    return image


def _compile(source: str, program: Path) -> None:
    try:
        built.build(source, program)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotFetched(f"gcc: {error}", "the machines' disk can't be made") from error


def add_modules(images: Iterable[Image], root: Path) -> None:
    """Puts what the tests need of each kernel's modules into a disk's folder, for modprobe. Raises NotFetched."""
    for image in images:
        to = root / "lib/modules" / image.version / "kernel"
        to.mkdir(parents=True)
        for name in MODULES:
            for file in image.modules.rglob(f"{name}.ko*"):
                shutil.copy2(file, to)
        run("chroot", str(root), "depmod", image.version)


def _debian(work: Path) -> Path:
    """A minimal Debian 12, named by what it is made of, so that a change makes another."""
    sources = source_list(SUITES)
    digest = hashlib.sha256(f"{sources} {PACKAGES}".encode()).hexdigest()[:12]
    root = work / f"debian-{digest}"
    if not root.exists():
        for old in work.glob("debian-*"):
            run("rm", "-rf", str(old))
        unfinished = root.with_suffix(".part")
        file = work / "debian.list"
        file.write_text(sources, encoding="utf-8")
        include = "--include=" + ",".join(PACKAGES)
        run("mmdebstrap", "--mode=root", "--variant=minbase", include, SUITES[0], str(unfinished), str(file))
        unfinished.rename(root)
    return root


def _venv(folder: Path) -> None:
    """A venv for the guest's Python, with the packages that the sensor, the daemons and pytest need, copied from ours."""
    packages = folder / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to("/usr/bin/python3")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (packages / "execray.pth").write_text(f"/{HOME}\n")
    for name in _needed(["execray[tracerd,policyd]", "pytest", "pytest-asyncio", "pytest-timeout"]) - {"execray"}:
        for file in metadata.files(name) or ():
            if ".." in file.parts or file.name == _LEFT_OUT:
                continue
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            source = Path(str(file.locate()))
            if source.exists():  # bytecode is listed even where it has gone
                shutil.copy2(source, target)
    for script in metadata.distribution("execray").entry_points.select(group="console_scripts"):
        lines = [f"#!/{HOME}/.venv/bin/python", "import sys", f"from {script.module} import {script.attr}"]
        program = folder / "bin" / script.name
        program.write_text("\n".join([*lines, f"sys.exit({script.attr}())\n"]), encoding="utf-8")
        program.chmod(0o755)


def _needed(wanted: list[str]) -> set[str]:
    """The named distributions and all that they require here."""
    found: set[str] = set()
    seen: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(requirement.name)
        extras = requirement.extras or {""}
        for text in metadata.requires(requirement.name) or ():
            further = Requirement(text)
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(text.split(";")[0])
    return found


def run(*command: str) -> None:
    """Runs a program that the disk is made by. Raises NotFetched."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFetched(f"{command[0]}: {error}", "the machines' disk can't be made") from error
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise NotFetched(f"{command[0]}: {said}", "the machines' disk can't be made")
