"""The policies on disk and the set that runs. Nothing here touches the engine."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from policyd.compiler import Diagnostic, Level, SetCompilation, compile_set, diagnostic_to_json, render
from policyd.folders import FileProblem, read_folders
from policyd.program import CompiledPolicy


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the folders hold now, compiled, and not yet running."""

    policies: tuple[CompiledPolicy, ...]  # disabled ones too
    texts: dict[str, str]  # by file name
    diagnostics: tuple[dict[str, Any], ...]
    rendered: str
    ok: bool
    ms: float
    next_expiry: datetime.date | None = None  # the last day of the exception that ends first


@dataclass(frozen=True, slots=True)
class Changes:
    """How one set of policies differs from another, by their names."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns lists by name."""
        return {name: list(getattr(self, name)) for name in self.__slots__}


def changes(before: Sequence[CompiledPolicy], after: Sequence[CompiledPolicy]) -> Changes:
    """Compares two sets; what decides is the hash, so comments and layout don't."""
    old = {policy.name: policy.hash for policy in before}
    new = {policy.name: policy.hash for policy in after}
    return Changes(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        unchanged=tuple(name for name in new if old.get(name) == new[name]),
    )


def utc_today() -> datetime.date:
    """Returns the day by which exceptions end."""
    return datetime.datetime.now(datetime.UTC).date()


class _Telling:
    """Diagnostics for programs and for people; of a file that is as it was before, those from before."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Diagnostic, dict[str, Any], str]] = {}  # by identity

    def told(self, compiled: SetCompilation) -> list[tuple[Diagnostic, dict[str, Any], str]]:
        """Returns each diagnostic as JSON and as text."""
        sources = {source.name: source for source in compiled.sources}
        known = {}
        for found in compiled.diagnostics:
            told = self._known.get(id(found))
            if told is None:
                source = sources[found.file]
                told = found, diagnostic_to_json(found, source), render([found], [source], color=False)
            known[id(found)] = told
        self._known = known
        return list(known.values())


@dataclass(slots=True)
class PolicyStore:
    """Which policies there are, which of them run, and since which generation. Only compile() reads the folders."""

    folders: tuple[Path, ...]
    owners: frozenset[int]  # uids whose files are trusted
    plugins: frozenset[str] = frozenset()  # the action plug-ins that the host allows
    disabled: frozenset[str] = frozenset()  # names of policies that don't run
    generation: int = 0
    loaded: tuple[CompiledPolicy, ...] = ()  # disabled ones too
    policies: tuple[CompiledPolicy, ...] = ()  # those that run
    texts: dict[str, str] = field(default_factory=dict)
    budget_bytes: int | None = None  # the most that all policies may count with
    today: Callable[[], datetime.date] = utc_today
    _next_expiry: datetime.date | None = None
    _before: SetCompilation | None = None
    _telling: _Telling = field(default_factory=_Telling)

    def compile(self) -> Candidate:
        """Reads and compiles what changed, and changes no set. Takes long enough to belong in a thread, one at a time."""
        started = time.perf_counter()
        files, problems = read_folders(self.folders, self.owners)
        return self._compiled(files, problems, started)

    def recompile(self) -> Candidate:
        """Does the same for what was read before and is loaded: exceptions may have ended since."""
        started = time.perf_counter()
        return self._compiled([(name, text.encode("utf-8")) for name, text in self.texts.items()], [], started)

    def has_ended(self) -> bool:
        """Whether an exception of the loaded set holds though its last day is over."""
        return self._next_expiry is not None and self.today() > self._next_expiry

    def forget_ends(self) -> None:
        """Leaves exceptions as they are until the next set is loaded."""
        self._next_expiry = None

    def _compiled(
        self, files: Sequence[tuple[str, bytes]], problems: Sequence[FileProblem], started: float
    ) -> Candidate:
        compiled = self._before = compile_set(
            files, plugins=self.plugins, before=self._before, today=self.today(), budget_bytes=self.budget_bytes
        )
        told = self._telling.told(compiled)
        diagnostics = [*(problem.to_json() for problem in problems), *(found for _, found, _ in told)]
        # Notes are for the author, who runs `policy check`; a reload tells what needs doing.
        lines = [text for found, _, text in told if found.level is not Level.NOTE]
        rendered = "".join([*(problem.render() for problem in problems), *lines])
        return Candidate(
            policies=compiled.policies,
            texts={name: raw.decode("utf-8", "replace") for name, raw in files},
            diagnostics=tuple(diagnostics),
            rendered=rendered,
            ok=compiled.ok and not problems,
            ms=round((time.perf_counter() - started) * 1000, 1),
            next_expiry=compiled.next_expiry,
        )

    def enabled(self, policies: Sequence[CompiledPolicy], disabled: frozenset[str]) -> tuple[CompiledPolicy, ...]:
        """Returns the policies that are to run."""
        return tuple(policy for policy in policies if policy.name not in disabled)

    def commit(self, candidate: Candidate) -> None:
        """Makes a candidate the loaded set. The engine has it already."""
        self.generation += 1
        self.loaded = candidate.policies
        self.policies = self.enabled(candidate.policies, self.disabled)
        self.texts = candidate.texts
        self._next_expiry = candidate.next_expiry

    def disable(self, names: frozenset[str]) -> None:
        """Leaves these policies of the loaded set out, and runs the others. The engine has them already."""
        self.generation += 1
        self.disabled = names
        self.policies = self.enabled(self.loaded, names)

    def source_of(self, policy: CompiledPolicy) -> str:
        """Returns a policy's text: from its first line up to what belongs to the next one."""
        lines = self.texts.get(policy.place.file, "").split("\n")
        starts = sorted(other.place.line for other in self.loaded if other.place.file == policy.place.file)
        end = next((line - 1 for line in starts if line > policy.place.line), len(lines))
        own = lines[policy.place.line - 1 : end]
        while own and (not own[-1].strip() or own[-1].lstrip().startswith(("//", "#"))):
            own.pop()
        return "\n".join(own)
