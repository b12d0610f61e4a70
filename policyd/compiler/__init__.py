"""The policy compiler: text in, programs and diagnostics out. No files, no clock, no global state but caches."""

from __future__ import annotations

import datetime

from policyd.compiler.automaton import to_dot
from policyd.compiler.diagnostics import Diagnostic, Label, Level
from policyd.compiler.policyset import compile_set
from policyd.compiler.render import diagnostic_to_json, render
from policyd.compiler.results import Compilation, SetCompilation
from policyd.compiler.source import SourceFile, Span

__all__ = [
    "Compilation",
    "Diagnostic",
    "Label",
    "Level",
    "SetCompilation",
    "SourceFile",
    "Span",
    "compile_set",
    "compile_source",
    "diagnostic_to_json",
    "render",
    "to_dot",
]


def compile_source(
    text: bytes | str,
    file: str,
    *,
    plugins: frozenset[str] | None = None,
    today: datetime.date | None = None,
    budget_bytes: int | None = None,
) -> Compilation:
    """Compiles one file; `file` is only its name in diagnostics. Never raises for anything in the text.

    plugins: the action plug-ins that the host allows; None where that isn't known, and then `notify` may name any. today,
    budget_bytes: as of compile_set.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    found = compile_set([(file, raw)], plugins=plugins, today=today, budget_bytes=budget_bytes)
    return Compilation(found.policies, found.diagnostics, found.sources[0], found.not_shown)
