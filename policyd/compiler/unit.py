"""Compiles one file, once it is known what others of its set say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.binding import bind
from policyd.compiler.declarations import Additions, declare
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.lexer import tokenize
from policyd.compiler.outside import Facts, Source, check_outside, exceptions_for, facts_of
from policyd.compiler.parser import parse
from policyd.compiler.reactions import has_condition
from policyd.compiler.results import Compilation
from policyd.compiler.semantic import PolicyChecker
from policyd.compiler.source import MAX_FILE_BYTES, SourceFile, Span
from policyd.program import CompiledPolicy


@record
class Parsed:
    """A file that was read: its tree (None where it isn't text at all), and the mistakes found so far."""

    tree: ast.File | None
    sink: Sink
    facts: Facts


@record
class Reach:
    """What the files of a set say about one of them. marks: equal where all of that is."""

    added: Additions = field(default_factory=dict)
    exceptions: Sequence[tuple[Source, ast.Outside]] = ()
    marks: tuple[object, ...] = ()


def parse_file(raw: bytes, file: str) -> Parsed:
    """Reads a file; a file that is too large or not UTF-8 gets its one diagnostic here."""
    source, sink = _read(raw, file)
    if sink.errors:
        return Parsed(None, sink, Facts(source, {}, frozenset(), whole=False))
    tree = parse(tokenize(sink), sink)
    return Parsed(tree, sink, facts_of(tree, sink))


def _read(raw: bytes, file: str) -> tuple[SourceFile, Sink]:
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


def compile_file(parsed: Parsed, reach: Reach, plugins: frozenset[str] | None) -> Compilation:
    """Compiles a file. plugins: as of compile_source."""
    tree, sink = parsed.tree, parsed.sink
    policies = _policies(tree, sink, reach, plugins, parsed.facts) if tree is not None else []
    shown = sink.shown()
    done = () if sink.errors else tuple(policies)
    return Compilation(done, shown, sink.source, sink.total - len(shown))


def _policies(
    tree: ast.File, sink: Sink, reach: Reach, plugins: frozenset[str] | None, facts: Facts
) -> list[CompiledPolicy]:
    policies: list[CompiledPolicy] = []
    scope = declare(tree.declarations, tree.macros, reach.added, sink)
    check_outside(tree.exceptions, sink)
    for exception in tree.exceptions if facts.whole else ():
        has_condition(exception, sink)
    for node in tree.policies:
        if node.broken:
            continue
        errors = sink.errors
        typed = PolicyChecker(node, scope, sink, exceptions_for(node, reach.exceptions, sink)).check()
        if facts.names[typed.name] != node.name.span:
            first = Label(facts.names[typed.name], "first used here")
            message = f"two policies are called {quote(typed.name)}"
            sink.report("ER0207", node.name.span, message, labels=(first,), help="give each its own name")
        checked = sink.errors == errors and not node.incomplete
        compiled = bind(typed, sink, plugins) if checked else None
        if compiled is not None:
            policies.append(compiled)
    return policies
