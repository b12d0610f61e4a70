"""Compiles files that are loaded together: policy names are unique, and a file may tune the others."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policyd.compiler import ast
from policyd.compiler.bounds import bounds_of, most_count_bytes, size_text
from policyd.compiler.declarations import Additions, unknown_list
from policyd.compiler.diagnostics import Diagnostic, Label, Level, Sink, printable, quote
from policyd.compiler.literals import plain_text
from policyd.compiler.outside import MAX_OUTSIDE, Facts, Source, is_about, until_of
from policyd.compiler.parser import MAX_POLICIES, too_many_policies
from policyd.compiler.results import FileCompilation, SetCompilation
from policyd.compiler.source import SourceFile, Span
from policyd.compiler.unit import Parsed, Reach, compile_file, parse_file

# How often the names that exceptions are for are compared with policies' names, and how many exceptions there may always be.
_MAX_MATCHES = 1_000_000
_LEAST = 16


@dataclass(slots=True)
class _File:
    """One file of the set. known: what it became before, if its content is the same. parsed: once it was read again."""

    name: str
    content: bytes
    known: FileCompilation | None
    parsed: Parsed | None
    facts: Facts

    def parse(self) -> Parsed:
        """Returns the file's tree, which is then used up: compiling it adds to its mistakes."""
        parsed, self.parsed = self.parsed, None
        return parsed or parse_file(self.content, self.name)


def compile_set(
    files: Sequence[tuple[str, bytes]],
    *,
    plugins: frozenset[str] | None = None,
    before: SetCompilation | None = None,
    today: datetime.date | None = None,
    budget_bytes: int | None = None,
) -> SetCompilation:
    """Compiles files (name, content) that are loaded together; a policy's name may occur once in all of them.

    plugins: as of compile_source. before: an earlier result, for the same plug-ins; a file that it holds with the same
    content, of which no other file says anything new, is not compiled again. today: exceptions that ended before it don't
    hold; None: all do. budget_bytes: the most that all policies together may count with; None: any number.
    """
    known = {} if before is None else before.files
    members = [_member(name, content, known.get(name)) for name, content in files]
    others = _Others(members, today)
    done: dict[str, FileCompilation] = {}
    room = MAX_POLICIES
    for member in members:
        room -= len(member.facts.names)
        if room < 0:
            break  # whatever follows would take its time, and can't be loaded
        reach = others.reach(member)
        earlier = member.known
        if earlier is None or earlier.reached_by != reach.marks:
            result = compile_file(member.parse(), reach, plugins)
            earlier = FileCompilation(member.content, member.facts, reach.marks, result)
        done[member.name] = earlier
    diagnostics = list(_gathered(done))
    diagnostics += _doubled(members)
    diagnostics += others.problems()
    if room < 0:
        diagnostics.append(_crowded(member))
    if budget_bytes is not None:
        diagnostics += _over_budget(done, budget_bytes)
    ok = not any(diagnostic.level is Level.ERROR for diagnostic in diagnostics)
    results = [found.result for found in done.values()]
    return SetCompilation(
        tuple(policy for result in results for policy in result.policies) if ok else (),
        tuple(diagnostics),
        tuple(member.facts.source for member in members),
        sum(result.not_shown for result in results),
        done,
        others.next_expiry,
    )


def _member(name: str, content: bytes, known: FileCompilation | None) -> _File:
    if known is not None and known.content == content:
        return _File(name, content, known, None, known.facts)
    parsed = parse_file(content, name)
    return _File(name, content, None, parsed, parsed.facts)


def _gathered(done: Mapping[str, FileCompilation]) -> Iterator[Diagnostic]:
    """What was found in all files. What one says of another's policies may have been found with each of them: it is told once."""
    seen: set[tuple[str, str, Label, str]] = set()
    for name, found in done.items():
        for diagnostic in found.result.diagnostics:
            place = (diagnostic.code, diagnostic.file, diagnostic.primary, diagnostic.message)
            if diagnostic.file == name or place not in seen:
                yield diagnostic
            seen.add(place)


def _doubled(members: Sequence[_File]) -> Iterator[Diagnostic]:
    first: dict[str, tuple[SourceFile, Span]] = {}
    for member in members:
        for policy, span in member.facts.names.items():
            if policy not in first:
                first[policy] = (member.facts.source, span)
                continue
            other, other_span = first[policy]
            line, _ = other.position(other_span.start)
            yield Diagnostic(
                "ER0207",
                Level.ERROR,
                f"two policies are called {quote(policy)}",
                member.name,
                Label(span),
                notes=(f"the other one is at {printable(other.name)}:{line}",),
                help="give each its own name",
            )


def _crowded(member: _File) -> Diagnostic:
    span = next(iter(member.facts.names.values()))
    return Diagnostic("ER0402", Level.ERROR, too_many_policies("set"), member.name, Label(span), help="leave some out")


def _over_budget(done: Mapping[str, FileCompilation], budget_bytes: int) -> Iterator[Diagnostic]:
    policies = [(name, policy) for name, found in done.items() for policy in found.result.policies]
    total = most_count_bytes(policy for _, policy in policies)
    if total <= budget_bytes:
        return
    name, biggest = max(policies, key=lambda item: bounds_of(item[1]).count_bytes)
    bounds = bounds_of(biggest)
    yield Diagnostic(
        "ER0415",
        Level.ERROR,
        f"the policies may count with {size_text(total)} together, and {size_text(budget_bytes)} are allowed",
        name,
        Label(done[name].facts.names[biggest.name], f"up to {size_text(bounds.count_bytes)}, the most"),
        notes=(f"it may hold {bounds.partials} partials, each with up to {size_text(bounds.partial_bytes)} of counts",),
        help="count to less, lower its `max_partials`, or raise `policyd.state_budget_mib`",
    )


class _Others:
    """What the files of a set say about each other."""

    def __init__(self, members: Sequence[_File], today: datetime.date | None) -> None:
        self._members = members
        self._today = today
        self._adding: dict[str, list[tuple[_File, ast.Addition]]] = {}
        for member in members:
            for addition in member.facts.additions:
                self._adding.setdefault(addition.name.text, []).append((member, addition))
        self.next_expiry: datetime.date | None = None
        self._expired: list[tuple[_File, ast.Outside]] = []
        self._excepting: list[tuple[_File, Source, ast.Outside]] = []
        self._about_some: set[int] = set()
        self._sinks: dict[str, Sink] = {}
        found = [(member, node) for member in members for node in member.facts.exceptions]
        names = sum(len(member.facts.names) for member in members) if found else 0
        self._most = min(MAX_OUTSIDE, max(_LEAST, _MAX_MATCHES // max(names, 1)))
        self._too_many = found[self._most :]
        sources = {member.name: self._source(member) for member, _ in found}
        for member, node in found[: self._most]:
            self._sort(member, sources[member.name], node)

    def _sink(self, member: _File) -> Sink:
        return self._sinks.setdefault(member.name, Sink(member.facts.source))

    def _source(self, member: _File) -> Source:
        return Source(member.facts, self._added_to(member))

    def _sort(self, member: _File, source: Source, node: ast.Outside) -> None:
        last = until_of(node)
        if last is not None and self._today is not None:
            if last < self._today:
                self._expired.append((member, node))
                return
            self.next_expiry = min(self.next_expiry or last, last)
        self._excepting.append((member, source, node))

    def _added_to(self, member: _File) -> Additions:
        return {
            name: [(other.facts.source, addition) for other, addition in self._adding[name]]
            for name in member.facts.lists
            if name in self._adding
        }

    def _adders(self, member: _File) -> Iterator[_File]:
        for name in sorted(member.facts.lists):
            yield from (other for other, _ in self._adding.get(name, ()))

    def reach(self, member: _File) -> Reach:
        """Returns what all files say about one."""
        about = [
            (other, source, node)
            for other, source, node in self._excepting
            if any(is_about(node, name) for name in member.facts.names)
        ]
        self._about_some.update(id(node) for _, _, node in about)
        added = self._added_to(member) if self._adding else {}
        if not added and not about:
            return Reach()
        speakers = list(self._adders(member))
        for other, _, _ in about:
            speakers += [other, *self._adders(other)]
        marks = (
            *((speaker.name, speaker.content) for speaker in speakers if speaker is not member),
            *(other.facts.exceptions.index(node) for other, _, node in about),
        )
        return Reach(added, [(source, node) for _, source, node in about], marks)

    def problems(self) -> Iterator[Diagnostic]:
        """Yields what is wrong beyond the single files."""
        for member, node in self._too_many[:1]:
            message = f"more than {self._most} exceptions outside of policies in the files of one set"
            self._sink(member).report("ER0402", node.span, message, help="join some of them with `or`")
        if all(
            member.facts.whole for member in self._members
        ):  # otherwise a name may stand where nothing could be read
            self._unmet()
        for member, node in self._expired:
            assert node.until is not None
            self._sink(member).report(
                "ER0514",
                node.until.span,
                f"this exception ended with {plain_text(node.until)} and doesn't hold any more",
                level=Level.WARNING,
                help="remove it, or give it a later date",
            )
        for sink in self._sinks.values():
            yield from sink.shown()

    def _unmet(self) -> None:
        lists = {name for member in self._members for name in member.facts.lists}
        for name, parts in self._adding.items():
            for member, addition in parts if name not in lists else ():
                help_text = "is its name right? check the files together that are loaded together"
                unknown_list(addition, self._sink(member), help_text)
        for member, _, node in self._excepting:
            if id(node) not in self._about_some:
                self._sink(member).report(
                    "ER0515",
                    node.glob.span,
                    f"no policy is called {quote(plain_text(node.glob))}",
                    level=Level.WARNING,
                    help="is the name right? check the files together that are loaded together",
                )
