"""What a file says about others of its set: additions to their lists, and exceptions for their policies."""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.declarations import Additions, declare
from policyd.compiler.diagnostics import Diagnostic, Sink, quote
from policyd.compiler.literals import plain_text
from policyd.compiler.scope import Scope
from policyd.compiler.source import SourceFile, Span

#: So many exceptions may stand outside of policies in the files of one set.
MAX_OUTSIDE = 1024
_EXCEPTION_WORK = 10
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


@record
class Facts:
    """What other files of a set need to know of one.

    names: its policies. lists: those that it declares. What its exceptions name is in declarations and macros, which are
    left out where it has none. whole: all of it could be read, so it has no other names.
    """

    source: SourceFile
    names: Mapping[str, Span]
    lists: frozenset[str]
    additions: tuple[ast.Addition, ...] = ()
    exceptions: tuple[ast.Outside, ...] = ()
    declarations: tuple[ast.Declaration, ...] = ()
    macros: tuple[ast.Macro, ...] = ()
    whole: bool = True


def facts_of(tree: ast.File, sink: Sink) -> Facts:
    """Returns the facts of a file. sink: its mistakes so far."""
    source, whole = sink.source, not sink.errors
    names: dict[str, Span] = {}
    for policy in tree.policies:
        if not policy.broken:
            names.setdefault(plain_text(policy.name), policy.name.span)
    values = {found.name.text: found.value for found in tree.declarations}
    lists = frozenset(name for name, value in values.items() if isinstance(value, ast.ListOf))
    additions = tuple(
        replace(addition, items=tuple(_valued(item, values) for item in addition.items)) for addition in tree.additions
    )
    if not tree.exceptions:
        return Facts(source, names, lists, additions, whole=whole)
    return Facts(source, names, lists, additions, tree.exceptions, tree.declarations, tree.macros, whole)


def _valued(item: ast.Operand, values: Mapping[str, ast.Operand]) -> ast.Operand:
    """An element as it is meant where it was written: the name of a value stands for that."""
    value = values.get(item.text) if isinstance(item, ast.Name) and item.index is None and not item.negative else None
    return item if value is None or isinstance(value, ast.ListOf) else value


# ---- exceptions


@record
class Source:
    """A file with exceptions, and what the set adds to its lists."""

    facts: Facts
    added: Additions


@record
class OutsideException:
    """An exception that is about a policy; its mistakes go to sink, its names mean what scope says."""

    node: ast.Outside
    sink: Sink
    scope: Scope


class OutsideSink(Sink):
    """Reports what is wrong in an exception, in its own file, while a policy of another is checked."""

    def __init__(self, outer: Sink, policy: ast.Policy, source: SourceFile) -> None:
        super().__init__(source)
        self._outer = outer
        self._policy = policy.name.span
        line, _ = outer.source.position(policy.span.start)
        self._note = f"for the policy {quote(plain_text(policy.name))}, {outer.source.name}:{line}"

    @property
    def errors(self) -> int:
        """Those of the policy's file."""
        return self._outer.errors

    def spend(self, units: int, span: Span) -> bool:
        """Asks the policy's file."""
        return self._outer.spend(units, self._policy)

    def keep(self, diagnostic: Diagnostic) -> None:
        """Hands it on, with a word on which policy this is about."""
        self._outer.keep(replace(diagnostic, notes=(*diagnostic.notes, self._note)))


def exceptions_for(
    policy: ast.Policy, reaching: Sequence[tuple[Source, ast.Outside]], sink: Sink
) -> list[OutsideException]:
    """Returns those of the exceptions that are about a policy."""
    name = plain_text(policy.name)
    found: list[OutsideException] = []
    places: dict[int, tuple[Sink, Scope]] = {}
    for source, node in reaching:
        if not is_about(node, name) or not sink.spend(_EXCEPTION_WORK, policy.name.span):
            continue
        if id(source) not in places:
            facts = source.facts
            own = OutsideSink(sink, policy, facts.source)
            # What is wrong with the declarations is reported where that file is compiled itself.
            scratch = Sink(facts.source)
            places[id(source)] = own, declare(facts.declarations, facts.macros, source.added, scratch)
            own.adopt_as(scratch)
        found.append(OutsideException(node, *places[id(source)]))
    return found


def is_about(node: ast.Outside, name: str) -> bool:
    """Whether an exception is about policies of this name."""
    return _matcher(plain_text(node.glob)).match(name) is not None


@lru_cache(maxsize=2 * MAX_OUTSIDE)
def _matcher(glob: str) -> re.Pattern[str]:
    # Brackets mean themselves here. What `translate` makes of stars takes no more than a short time for any text.
    return re.compile(fnmatch.translate(glob.replace("[", "[[]")))


def until_of(node: ast.Outside) -> datetime.date | None:
    """Returns the last day on which an exception holds; None for one without end, and for what is no date."""
    text = plain_text(node.until) if node.until else ""
    try:
        return datetime.date.fromisoformat(text) if _DATE.match(text) else None
    except ValueError:
        return None


def check_outside(nodes: Sequence[ast.Outside], sink: Sink) -> None:
    """Reports what is wrong with exceptions, whichever policies they are about."""
    for node in nodes:
        if node.until is not None and until_of(node) is None:
            message = f"{quote(plain_text(node.until))} is not a date"
            sink.report("ER0321", node.until.span, message, help='write year, month and day: "2027-03-01"')
