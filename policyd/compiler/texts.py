"""Patterns on the right side of a comparison: what they are made of, and whether RE2 takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from policyd.compiler import ast
from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.literals import basename_pattern, glob_pattern, like_pattern, pattern_bytes
from policyd.compiler.values import ValueChecker
from policyd.patterns import PatternError, compile_pattern

#: Operators whose right side is text with `*` and `?`, and the pattern that each makes of it.
WILDCARDS: dict[str, Callable[[bytes], bytes]] = {"like": like_pattern, "glob": glob_pattern}


def basename_patterns(op: str, raws: Sequence[bytes]) -> list[bytes]:
    """Returns the patterns that a path meets when its last component meets `op` and one of the texts."""
    return [basename_pattern(op, raw) for raw in raws]


def patterns_of(home: ValueChecker, node: ast.Compare, items: Sequence[ast.Operand]) -> list[bytes] | None:
    """Returns the regular expressions on the right, or None where something else stands there, which is reported."""
    patterns: list[bytes] = []
    for item in items:
        checker, written = home.home(item)
        text = checker.declared(written)
        if isinstance(text, ast.Text):
            patterns.append(pattern_bytes(text))
        elif not isinstance(text, ast.Bad):
            checker.sink.report(
                "ER0305",
                written.span,
                f"`{node.op}` takes a regular expression in quotes",
                help='for example path =~ "/etc/(passwd|shadow)"',
            )
    return patterns if len(patterns) == len(items) else None


def refused(sink: Sink, patterns: Iterable[tuple[bytes, ast.Operand]], ignore_case: bool) -> bool:
    """Whether RE2 refuses some of the patterns, which is reported where each was written."""
    found = False
    for pattern, place in patterns:
        try:
            compile_pattern(pattern, ignore_case)
        except PatternError as error:
            found = True
            sink.report(
                "ER0305",
                place.span,
                f"RE2 refuses this pattern: {quote(str(error)).strip('`')}",
                help="RE2 has no look-around and no back-references; see its syntax page",
            )
    return found
