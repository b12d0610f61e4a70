"""The policy compiler: text in, programs and diagnostics out. No files, no clock, no global state but caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policyd.compiler.automaton import to_dot
from policyd.compiler.binding import bind
from policyd.compiler.declarations import declare
from policyd.compiler.diagnostics import Diagnostic, Label, Level, Sink, printable, quote
from policyd.compiler.lexer import tokenize
from policyd.compiler.parser import parse
from policyd.compiler.render import diagnostic_to_json, render
from policyd.compiler.semantic import PolicyChecker
from policyd.compiler.source import MAX_FILE_BYTES, SourceFile, Span
from policyd.program import CompiledPolicy

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class FileCompilation:
    """What became of one file of a set, with the content it was made of and where each policy's name stands."""

    content: bytes
    result: Compilation
    names: Mapping[str, Span]


@dataclass(frozen=True, slots=True)
class SetCompilation:
    """What became of several files that are loaded together. policies is empty when any file has an error."""

    policies: tuple[CompiledPolicy, ...]
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[SourceFile, ...]
    not_shown: int = 0
    files: Mapping[str, FileCompilation] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the set may be loaded."""
        return not any(diagnostic.level is Level.ERROR for diagnostic in self.diagnostics)


def compile_source(text: bytes | str, file: str, *, plugins: frozenset[str] | None = None) -> Compilation:
    """Compiles one file; `file` is only its name in diagnostics. Never raises for anything in the text.

    plugins: the action plug-ins that the host allows; None where that isn't known, and then `notify` may name any.
    """
    compilation, _ = _compile(text, file, plugins)
    return compilation


def _compile(text: bytes | str, file: str, plugins: frozenset[str] | None) -> tuple[Compilation, dict[str, Span]]:
    """Compiles one file; returns where each policy name stands, too."""
    source, sink = _read(text, file)
    policies: list[CompiledPolicy] = []
    names: dict[str, Span] = {}
    if not sink.errors:
        tree = parse(tokenize(sink), sink)
        scope = declare(tree.declarations, tree.macros, None, sink)
        for node in tree.policies:
            if node.broken:
                continue
            errors = sink.errors
            typed = PolicyChecker(node, scope, sink).check()
            if typed.name in names:
                first = Label(names[typed.name], "first used here")
                message = f"two policies are called {quote(typed.name)}"
                sink.report("ER0207", node.name.span, message, labels=(first,), help="give each its own name")
            names.setdefault(typed.name, node.name.span)
            checked = sink.errors == errors and not node.incomplete
            compiled = bind(typed, sink, plugins) if checked else None
            if compiled is not None:
                policies.append(compiled)
    shown = sink.shown()
    done = () if sink.errors else tuple(policies)
    return Compilation(done, shown, source, sink.total - len(shown)), names


def _read(text: bytes | str, file: str) -> tuple[SourceFile, Sink]:
    """Decodes the text; a file that is too large or not UTF-8 gets its one diagnostic here."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_FILE_BYTES:
        sink = Sink(SourceFile(file, ""))
        limit = MAX_FILE_BYTES >> 20
        sink.report("ER0002", Span(0, 0), f"the file is larger than {limit} MiB", help="split it into several files")
        return sink.source, sink
    try:
        source = SourceFile(file, raw.decode("utf-8"))
        return source, Sink(source)
    except UnicodeDecodeError as error:
        source = SourceFile(file, raw.decode("utf-8", "replace"))
        at = len(raw[: error.start].decode("utf-8", "replace"))
        sink = Sink(source)
        sink.report(
            "ER0001",
            Span(at, at + 1),
            "the file is not UTF-8 text",
            help="save it as UTF-8; write other bytes in a text as \\xHH",
        )
        return source, sink


def compile_set(
    files: Sequence[tuple[str, bytes]],
    *,
    plugins: frozenset[str] | None = None,
    before: SetCompilation | None = None,
) -> SetCompilation:
    """Compiles files (name, content) that are loaded together; a policy's name may occur once in all of them.

    plugins: as of compile_source. before: an earlier result, for the same plug-ins; a file that it holds with the same
    content is not compiled again.
    """
    diagnostics: list[Diagnostic] = []
    policies: list[CompiledPolicy] = []
    sources: list[SourceFile] = []
    first: dict[str, tuple[SourceFile, Span]] = {}
    done: dict[str, FileCompilation] = {}
    not_shown = 0
    for name, content in files:
        known = None if before is None else before.files.get(name)
        if known is None or known.content != content:
            known = FileCompilation(content, *_compile(content, name, plugins))
        done[name] = known
        compilation = known.result
        policies.extend(compilation.policies)
        sources.append(compilation.source)
        diagnostics.extend(compilation.diagnostics)
        not_shown += compilation.not_shown
        for policy, span in known.names.items():
            if policy in first:
                diagnostics.append(_doubled(policy, compilation.source, span, *first[policy]))
            else:
                first[policy] = (compilation.source, span)
    ok = not any(diagnostic.level is Level.ERROR for diagnostic in diagnostics)
    return SetCompilation(tuple(policies) if ok else (), tuple(diagnostics), tuple(sources), not_shown, done)


def _doubled(policy: str, source: SourceFile, span: Span, other: SourceFile, other_span: Span) -> Diagnostic:
    line, _ = other.position(other_span.start)
    return Diagnostic(
        "ER0207",
        Level.ERROR,
        f"two policies are called {quote(policy)}",
        source.name,
        Label(span),
        notes=(f"the other one is at {printable(other.name)}:{line}",),
        help="give each its own name",
    )
