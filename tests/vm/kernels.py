"""Which kernels are run, and where they come from: Debian's own cloud kernels, fetched by apt into a folder of ours.

The machine's apt is asked for the mirror that it uses, and is not changed: source list, indexes and cache are ours alone.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from execray.errors import OperatorError

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES: Final = Path("/etc/apt")
APT_TIMEOUT_S: Final = 300.0
_META: Final = "linux-image-cloud-amd64"
#: Two hops at most: the image, and, where that holds no kernel, the package that does.
_KERNEL_PACKAGE: Final = re.compile(r"\blinux-(?:image|binary)-\d\S*")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel under test."""

    name: str  # as users know it: the first two numbers of its version, or "newest"
    whose: str  # who meets it
    suites: tuple[str, ...]


#: The kernels under test; docs/kernels.md says what came of them. Exact versions are found at run time: they move.
KERNELS: Final = (
    Kernel("6.1", "Debian 12", ("bookworm", "bookworm-security")),
    Kernel("5.10", "Debian 11", ("bullseye", "bullseye-security")),
    Kernel("6.12", "Debian 13", ("trixie", "trixie-security")),
    Kernel("newest", "Debian 13 with backports", ("trixie-backports",)),
)


class NotFetched(OperatorError):
    """A kernel, or what its machine is made of, can't be had: nothing was tested."""


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel that is here."""

    package: str
    version: str  # as uname says it
    file: Path
    modules: Path  # those that the kernel comes with, in folders by what they are of


def mirrors() -> tuple[str, str]:
    """Returns the URIs of the Debian archive and of its security archive that this machine uses. Raises NotFetched."""
    found: dict[bool, str] = {}
    for uri, suite in _sources():
        debian = re.fullmatch(r"(?:bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing)(-security)?/?", suite)
        if debian:
            found.setdefault(debian[1] is not None, uri)
    if False not in found:
        raise NotFetched("no Debian mirror in /etc/apt", "the kernels are Debian's: run this on a Debian machine")
    # without a security archive the kernels are those of the last point release
    return found[False], found.get(True, "")


def _sources() -> Iterator[tuple[str, str]]:
    """Yields the URI and suite of every enabled source with a component `main`, in both of apt's notations."""
    for file in sorted([SOURCES / "sources.list", *(SOURCES / "sources.list.d").glob("*")]):
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.suffix == ".list":
            for found in re.finditer(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$", text, re.MULTILINE):
                if "main" in found[3].split():
                    yield found[1], found[2]
        elif file.suffix == ".sources":
            for stanza in re.split(r"\n\s*\n", text):
                lines = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
                pairs = re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", lines, re.MULTILINE)
                fields = {key.lower(): value.split() for key, value in pairs}
                if "main" in fields.get("components", []) and fields.get("enabled") != ["no"]:
                    yield from ((uri, suite) for uri in fields["uris"] for suite in fields["suites"])


def source_list(suites: tuple[str, ...]) -> str:
    """Returns apt sources for these suites, from the mirrors this machine uses. Raises NotFetched."""
    archive, security = mirrors()
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    lines = []
    for suite in suites:
        uri = security if suite.endswith("-security") else archive
        if uri:
            lines.append(f"deb {signed}{uri} {suite} main\n")
    return "".join(lines)


def fetch(kernel: Kernel, work: Path) -> Image:
    """Fetches the newest cloud kernel of the suites into work, or takes it from there. Raises NotFetched."""
    apt = _Apt(work / kernel.name / "apt")
    apt.update(source_list(kernel.suites))
    wanted = _kernel_package(apt.show(_META, "Depends"))
    for _ in range(2):
        folder = work / kernel.name / wanted
        if not folder.exists():
            apt.download(wanted, folder)
        images = [*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")]
        if images:
            (image,) = images
            version = image.parent.name if image.name == "vmlinuz" else image.name.removeprefix("vmlinuz-")
            modules = _modules(apt, folder, version)
            for other in set((work / kernel.name).glob("linux-*")) - {folder, modules}:
                _run(["rm", "-rf", str(other)])  # a former version, or a package that only named this one
            (kinds,) = [*modules.glob("lib/modules/*/kernel"), *modules.glob("usr/lib/modules/*/kernel")]
            return Image(wanted, version, image, kinds)
        wanted = _kernel_package(apt.show(wanted, "Depends"))
    raise NotFetched(f"{wanted} holds no kernel", "the packaging has changed: see tests/vm/kernels.py")


def _modules(apt: _Apt, folder: Path, version: str) -> Path:
    """Returns where a kernel's modules are: beside it, or in a package of their own, fetched where it isn't here."""
    if any(folder.glob("**/kernel/fs")):
        return folder
    package = f"linux-modules-{version}"
    apart = folder.with_name(package)
    if not apart.exists():
        apt.download(package, apart)
    if not any(apart.glob("**/kernel/fs")):
        raise NotFetched(f"{package} holds no modules", "the packaging has changed: see tests/vm/kernels.py")
    return apart


def _kernel_package(depends: str) -> str:
    found = _KERNEL_PACKAGE.search(depends)
    if found is None:
        raise NotFetched(f"no kernel package among `{depends}`", "the packaging has changed: see tests/vm/kernels.py")
    return found[0].rstrip(",")


class _Apt:
    """apt with lists, cache and sources of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for sub in ("lists/partial", "cache/archives/partial"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # its usual user can't write into this folder
            "Acquire::Languages": "none",
            "Acquire::Retries": 2,
        }
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def update(self, sources: str) -> None:
        (self._folder / "sources.list").write_text(sources, encoding="utf-8")
        self._run("apt-get", "-qq", "--error-on=any", "update")

    def show(self, package: str, field: str) -> str:
        """Returns a field of the newest version of a package."""
        text = self._run("apt-cache", "show", "--no-all-versions", package)
        return next((line for line in text.splitlines() if line.startswith(f"{field}:")), "")

    def download(self, package: str, folder: Path) -> None:
        """Fetches a package and unpacks it into a folder, which exists only when it is complete."""
        downloads = self._folder / "downloads"
        downloads.mkdir(exist_ok=True)
        for old in downloads.iterdir():
            old.unlink()
        self._run("apt-get", "download", "-qq", package, cwd=downloads)
        (archive,) = downloads.iterdir()
        unpacked = folder.with_suffix(".part")
        _run(["rm", "-rf", str(unpacked)])
        _run(["dpkg-deb", "-x", str(archive), str(unpacked)])
        unpacked.rename(folder)
        archive.unlink()

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        return _run([program, *self._options, *arguments], cwd)


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=APT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise NotFetched(f"{command[0]} took longer than {APT_TIMEOUT_S:g} s", "is the mirror reachable?") from error
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise NotFetched(f"{command[0]} {command[-1]}: {said}", "is the mirror reachable?")
    return done.stdout
