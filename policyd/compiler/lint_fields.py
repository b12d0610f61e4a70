"""Which fields conditions read, and where in the source their parts stand."""

from __future__ import annotations

from collections.abc import Iterator

from policyd.compiler import ast
from policyd.program import And, Expr, FieldRef, Not, Or, Quantified, Test


def refs_of(expr: Expr) -> Iterator[FieldRef]:
    """Yields the fields that a condition reads."""
    match expr:
        case And(items=items) | Or(items=items):
            for item in items:
                yield from refs_of(item)
        case Not(item=item):
            yield from refs_of(item)
        case Quantified(field=field, item=item):
            yield field
            yield from refs_of(item)
        case Test(field=field, value=value):
            yield field
            if isinstance(value, FieldRef):
                yield value


def fields_of(expr: Expr) -> set[str]:
    """Returns the names of these fields without what says whose they are: `comm` for `parent.comm` too."""
    return {_plain(ref.name) for ref in refs_of(expr)}


def _plain(name: str) -> str:
    head, _, rest = name.partition(".")
    return rest if rest and (head in ("parent", "it") or head.startswith("ancestor[")) else name


def conjuncts(node: ast.Expr, expr: Expr) -> Iterator[tuple[ast.Expr, Expr]]:
    """Yields the parts of a condition that must all hold, each as it was written."""
    if isinstance(node, ast.AndExpr) and len(node.items) == 1:
        yield from conjuncts(node.items[0], expr)
    elif isinstance(node, ast.AndExpr) and isinstance(expr, And) and len(node.items) == len(expr.items):
        for part, typed in zip(node.items, expr.items, strict=True):
            yield from conjuncts(part, typed)
    else:
        yield node, expr
