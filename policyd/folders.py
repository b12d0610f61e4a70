"""Policy files, read from folders that only root or the service may write: a policy decides what gets killed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from execray.trust import Untrusted, distrust_way, read_trusted

MAX_FILE_BYTES: Final = 5 * 1024 * 1024  # as the compiler's own limit
MAX_FILES: Final = 10_000
MAX_TOTAL_BYTES: Final = 64 * 1024 * 1024
SUFFIX: Final = ".policy"


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Why a file or folder was not read: the operator's mistake, not the policy author's."""

    path: Path
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns it in the shape of a diagnostic."""
        return {"severity": "error", "file": str(self.path), "message": self.message, "help": self.hint}

    def render(self) -> str:
        """Returns it in the look of a diagnostic."""
        lines = [f"error: {self.message}", f"  --> {self.path}"]
        return "\n".join([*lines, f"   = help: {self.hint}"] if self.hint else lines) + "\n"


def read_folders(folders: Iterable[Path], owners: frozenset[int]) -> tuple[list[tuple[str, bytes]], list[FileProblem]]:
    """Returns every policy file, folder by folder in sorted order, and what was refused."""
    files: list[tuple[str, bytes]] = []
    problems: list[FileProblem] = []
    total = 0
    for folder in folders:
        try:
            names = _names(folder, owners)
        except _Refused as refused:
            problems.append(refused.problem)
            continue
        if len(files) + len(names) > MAX_FILES:
            problems.append(FileProblem(folder, f"more than {MAX_FILES} policy files", "merge some"))
            break
        start = str(folder / "-")[:-1]  # a Path for each file would take a third of the time that reading it takes
        for name, is_link in names:
            path = start + name
            try:
                files.append((path, _read(path, owners, is_link=is_link)))
            except _Refused as refused:
                problems.append(refused.problem)
            else:
                total += len(files[-1][1])
                if total > MAX_TOTAL_BYTES:
                    problems.append(FileProblem(folder, f"more than {MAX_TOTAL_BYTES} bytes of policies"))
                    return [], problems
    return files, problems


class _Refused(Exception):
    """Carries a problem up to where they are collected."""

    def __init__(self, path: Path, message: str, hint: str) -> None:
        super().__init__(message)
        self.problem = FileProblem(path, message, hint)


def _names(folder: Path, owners: frozenset[int]) -> Sequence[tuple[str, bool]]:
    """The policy files of a folder in sorted order, and whether each is a link."""
    try:
        _check_way(folder, owners)
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_symlink()) for entry in entries if entry.name.endswith(SUFFIX))
    except OSError as error:
        raise _Refused(
            folder, f"can't read the policy folder: {error.strerror}", "see `policyd.policy_dirs`"
        ) from error


def _check_way(path: Path, owners: frozenset[int]) -> None:
    """Refuses what somebody else could put another thing in the place of, be it by a folder above or a link."""
    if doubt := distrust_way(path, owners):
        raise _Refused(*doubt)


def _read(path: str, owners: frozenset[int], *, is_link: bool) -> bytes:
    try:
        if is_link:  # its folder was looked at; what it leads through, not yet
            _check_way(Path(path), owners)
        return read_trusted(path, owners, MAX_FILE_BYTES)
    except OSError as error:
        raise _Refused(Path(path), f"can't read the policy file: {error.strerror}", "") from error
    except Untrusted as error:
        raise _Refused(Path(path), error.message, error.hint) from error
