"""What the compiler returns."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import field

from execray.schema.records import record
from policyd.compiler.diagnostics import Diagnostic, Level
from policyd.compiler.outside import Facts
from policyd.compiler.source import SourceFile
from policyd.program import CompiledPolicy


@record
class Compilation:
    """What became of one file. policies is empty when any diagnostic is an error; not_shown counts what was left off."""

    policies: tuple[CompiledPolicy, ...]
    diagnostics: tuple[Diagnostic, ...]
    source: SourceFile
    not_shown: int = 0

    @property
    def ok(self) -> bool:
        """Whether the file may be loaded."""
        return not any(diagnostic.level is Level.ERROR for diagnostic in self.diagnostics)


@record
class FileCompilation:
    """What became of one file of a set. It holds as long as its content, and what reaches into it, stay the same."""

    content: bytes
    facts: Facts
    reached_by: tuple[object, ...]
    result: Compilation


@record
class SetCompilation:
    """What became of several files that are loaded together. policies is empty when any file has an error.

    next_expiry: the last day of the exception that ends first; the set means something else from the day after.
    """

    policies: tuple[CompiledPolicy, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[SourceFile, ...]
    not_shown: int = 0
    files: Mapping[str, FileCompilation] = field(default_factory=dict, repr=False, compare=False)
    next_expiry: datetime.date | None = None

    @property
    def ok(self) -> bool:
        """Whether the set may be loaded."""
        return not any(diagnostic.level is Level.ERROR for diagnostic in self.diagnostics)
