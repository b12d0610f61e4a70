"""The policies on disk and the set that runs: read from folders that only root or the service may write, all or nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from execray.trust import Untrusted, distrust, read_trusted
from policyd.compiler import Level, compile_set, diagnostic_to_json, render
from policyd.program import CompiledPolicy

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


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the folders hold now, compiled, and not yet running."""

    policies: tuple[CompiledPolicy, ...]
    texts: dict[str, str]  # by file name
    diagnostics: tuple[dict[str, Any], ...]
    rendered: str
    ok: bool
    ms: float


@dataclass(slots=True)
class PolicyStore:
    """Which policies run, and since which generation. The folders are read again only by compile()."""

    folders: tuple[Path, ...]
    owners: frozenset[int]  # uids whose files are trusted
    plugins: frozenset[str] = frozenset()  # the action plug-ins that the host allows
    generation: int = 0
    policies: tuple[CompiledPolicy, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)

    def compile(self) -> Candidate:
        """Reads and compiles everything, and changes nothing. Takes long enough to belong in a thread."""
        started = time.perf_counter()
        files, problems = read_folders(self.folders, self.owners)
        compiled = compile_set(files, plugins=self.plugins)
        diagnostics = [problem.to_json() for problem in problems]
        sources = {source.name: source for source in compiled.sources}
        diagnostics += [diagnostic_to_json(found, sources[found.file]) for found in compiled.diagnostics]
        rendered = "".join(problem.render() for problem in problems)
        # Notes are for the author, who runs `policy check`; a reload tells what needs doing.
        told = [found for found in compiled.diagnostics if found.level is not Level.NOTE]
        rendered += render(told, compiled.sources, color=False)
        return Candidate(
            policies=tuple(compiled.policies),
            texts={name: raw.decode("utf-8", "replace") for name, raw in files},
            diagnostics=tuple(diagnostics),
            rendered=rendered,
            ok=compiled.ok and not problems,
            ms=round((time.perf_counter() - started) * 1000, 1),
        )

    def commit(self, candidate: Candidate) -> None:
        """Makes a candidate the running set. The engine has it already."""
        self.generation += 1
        self.policies = candidate.policies
        self.texts = candidate.texts

    def source_of(self, policy: CompiledPolicy) -> str:
        """Returns a policy's text: from its first line up to what belongs to the next one."""
        lines = self.texts.get(policy.place.file, "").split("\n")
        starts = sorted(other.place.line for other in self.policies if other.place.file == policy.place.file)
        end = next((line - 1 for line in starts if line > policy.place.line), len(lines))
        own = lines[policy.place.line - 1 : end]
        while own and (not own[-1].strip() or own[-1].lstrip().startswith(("//", "#"))):
            own.pop()
        return "\n".join(own)


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
        for name in names:
            try:
                files.append((str(folder / name), _read(folder / name, owners)))
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


def _names(folder: Path, owners: frozenset[int]) -> Sequence[str]:
    try:
        if doubt := distrust(folder, folder.stat(), owners):
            raise _Refused(folder, *doubt)
        return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(SUFFIX))
    except OSError as error:
        raise _Refused(
            folder, f"can't read the policy folder: {error.strerror}", "see `policyd.policy_dirs`"
        ) from error


def _read(path: Path, owners: frozenset[int]) -> bytes:
    try:
        return read_trusted(path, owners, MAX_FILE_BYTES)
    except OSError as error:
        raise _Refused(path, f"can't read the policy file: {error.strerror}", "") from error
    except Untrusted as error:
        raise _Refused(path, error.message, error.hint) from error
