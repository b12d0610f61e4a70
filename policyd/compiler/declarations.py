"""Makes scopes of declarations: lists, values and macros, of a file and of a policy."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Sequence

from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.names import FUNCTIONS, PLANNED_FUNCTIONS, family_of
from policyd.compiler.scope import Declared, Macro, Scope
from policyd.compiler.source import Span


def declare(
    declarations: Sequence[ast.Declaration], macros: Sequence[ast.Macro], outer: Scope | None, sink: Sink
) -> Scope:
    """Returns the names of a policy over those of the file around it, or of a file (outer is None); reports doubles."""
    if outer is None:
        return _scope(declarations, macros, Scope({}, {}), sink, of_policy=False)
    return _scope(declarations, macros, outer, sink, of_policy=True) if declarations or macros else outer


def _scope(
    declarations: Sequence[ast.Declaration], macros: Sequence[ast.Macro], outer: Scope, sink: Sink, *, of_policy: bool
) -> Scope:
    own: dict[str, Declared] = {}
    own_macros: dict[str, Macro] = {}
    # Not copies: there may be many policies under many lists.
    scope = Scope(ChainMap(own, outer.declared), ChainMap(own_macros, outer.macros))
    first: dict[str, Span] = {}
    for declaration in declarations:
        if _is_free(declaration.name, first, sink):
            own[declaration.name.text] = Declared(declaration.name.span, declaration.value)
    for node in macros:
        if _is_free(node.name, first, sink):
            own_macros[node.name.text] = _macro(node, scope, sink, of_policy)
    return scope


def _is_free(name: ast.Ident, first: dict[str, Span], sink: Sink) -> bool:
    """Whether the scope hasn't got the name yet; reports that, and what can't be one."""
    if name.text in first:
        sink.report(
            "ER0208",
            name.span,
            f"{quote(name.text)} is declared twice",
            labels=(Label(first[name.text], "first declared here"),),
            help="give one of them another name",
        )
        return False
    first[name.text] = name.span
    if family_of(name.text) is not None:
        sink.report("ER0208", name.span, f"{quote(name.text)} is a constant already", help="choose another name")
    elif name.text in FUNCTIONS or name.text in PLANNED_FUNCTIONS:
        sink.report("ER0208", name.span, f"{quote(name.text)} is a function already", help="choose another name")
    return True


def _macro(node: ast.Macro, scope: Scope, sink: Sink, of_policy: bool) -> Macro:
    first: dict[str, Span] = {}
    for parameter in node.parameters:
        _is_free(parameter, first, sink)
    names = tuple(parameter.text for parameter in node.parameters)
    return Macro(node.name.text, node.name.span, names, node.body, scope, sink.source, _size(node.body), of_policy)


def _size(expr: ast.Expr) -> int:
    match expr:
        case ast.AndExpr(items=items) | ast.OrExpr(items=items):
            return sum(map(_size, items))
        case ast.NotExpr(item=item) | ast.Quantified(item=item):
            return _size(item)
    return 1
