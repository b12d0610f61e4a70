"""Packages that add events: found by the entry points of the group `execray.syscalls`, read, and put into the catalogue.

Every daemon and execray-ctl does this at its start, and each by itself. Only files that say things are read; nothing of a package
runs. One that can't be used is left out, with the reason, and all else works.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from execray.places import CONFIG_FILE, PLUGIN_DIR
from execray.trust import Untrusted, distrust_way, read_trusted

if TYPE_CHECKING:
    import logging

GROUP: Final = "execray.syscalls"
#: The file in the package's folder that an entry point means.
TABLE: Final = "execray.toml"
MAX_PACKAGES: Final = 64
_MAX_ENTRIES_BYTES: Final = 64 * 1024
_MODULE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one package. events: those it adds, or adds to."""

    package: str
    events: tuple[str, ...] = ()
    refused: str = ""

    def to_json(self) -> dict[str, object]:
        """Returns it as `execray-ctl doctor` gets it."""
        return {"package": self.package, "events": list(self.events), "refused": self.refused}


def extend_catalogue(folder: Path = PLUGIN_DIR) -> list[Outcome]:
    """Adds to this process's catalogue what installed packages say: those of our own environment, and of a folder beside it."""
    outcomes: list[Outcome] = []
    for package, root, module in _installed(folder):
        if len(outcomes) == MAX_PACKAGES:
            outcomes.append(Outcome(package, refused=f"more than {MAX_PACKAGES} packages add events"))
            break
        # most hosts have none, and `policy check` should be quick there
        from execray.schema.extension import MAX_TABLE_BYTES, BadTable, add, read_table  # noqa: PLC0415  # see above

        place = root.joinpath(*module.split("."))
        try:
            table = read_table(_read(place / TABLE, MAX_TABLE_BYTES), package, os.fspath(place))
            for event in table.events:
                if event.handler:
                    _check(Path(event.handler))
            add(table)
        except (BadTable, Untrusted, OSError, UnicodeDecodeError) as error:
            outcomes.append(Outcome(package, refused=_reason(error, place / TABLE)))
        else:
            names = [*(event.name for event in table.events), *(name for name, _ in table.more)]
            outcomes.append(Outcome(package, tuple(names)))
    return outcomes


def is_elsewhere() -> bool:
    """Whether this host's configuration may name another folder: by its text, which is quicker than to read it."""
    files = [CONFIG_FILE, *sorted(CONFIG_FILE.with_suffix(".d").glob("*.yaml"))]
    return any(b"plugin_dir" in _bytes_of(file) for file in files)


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def log_outcomes(outcomes: Iterable[Outcome], log: logging.Logger) -> None:
    """Says in the log what packages add, and which are left out."""
    for outcome in outcomes:
        if outcome.refused:
            kv = {"package": outcome.package, "reason": outcome.refused}
            log.error("package refused", extra={"kv": kv})
        else:
            kv = {"package": outcome.package, "names": ",".join(outcome.events)}
            log.info("package adds events", extra={"kv": kv})


def _reason(error: Exception, file: Path) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or file}: {error.strerror}"
    if isinstance(error, UnicodeDecodeError):
        return f"{file}: not UTF-8"
    hint = f" ({error.hint})" if isinstance(error, Untrusted) and error.hint else ""
    return f"{file}: {error}{hint}"


def _read(file: Path, max_bytes: int) -> str:
    _check(file)
    return read_trusted(file, _owners(), max_bytes).decode("utf-8")


def _check(file: Path) -> None:
    """Raises Untrusted where somebody else may put another file in this one's place; OSError where there is none."""
    if doubt := distrust_way(file, _owners()):
        at, why, hint = doubt
        raise Untrusted(f"{at}: {why}", hint)


def _owners() -> frozenset[int]:
    return frozenset((0, os.geteuid()))


def _installed(folder: Path) -> Iterator[tuple[str, Path, str]]:
    """Yields name and version, where it is installed, and module of each package with an entry point, in order; each once.

    As importlib.metadata would find them, at a tenth of its price.
    """
    seen: set[str] = set()
    for place in dict.fromkeys((*sys.path, os.fspath(folder))):
        root = Path(place or ".")
        try:
            # not iterdir(): of hundreds of names a few are wanted, and a Path for each takes longer than all the rest
            names = sorted(name for name in os.listdir(root) if name.endswith((".dist-info", ".egg-info")))  # noqa: PTH208  # see above
        except OSError:
            continue  # no folder, a zip, or one that we may not read: nothing of it could be used
        for info in names:
            package = " ".join(info.rpartition(".")[0].split("-")[:2])
            key = package.partition(" ")[0].lower().replace(".", "_")
            if key in seen:
                continue  # of a package that stands in several places, the first is what is imported
            seen.add(key)
            yield from ((package, root, module) for module in _modules(root / info / "entry_points.txt"))


def _modules(file: Path) -> list[str]:
    """Returns the values of our group in an entry_points.txt; none where there is no such file, or it isn't one."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MAX_ENTRIES_BYTES)
    except OSError:
        return []
    if GROUP.encode() not in raw:
        return []
    section, found = "", []
    for line in raw.decode("utf-8", "replace").splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text.strip("[]").strip()
        elif section == GROUP and "=" in text:
            module = text.partition("=")[2].strip()
            if _MODULE.fullmatch(module):
                found.append(module)
    return list(dict.fromkeys(found))
