"""Makes scopes of declarations: lists, values and macros, of a file and of a policy."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, Level, Sink, quote
from policyd.compiler.names import FUNCTIONS, PLANNED_FUNCTIONS, family_of
from policyd.compiler.scope import Declared, Macro, Scope
from policyd.compiler.source import SourceFile, Span

_Operand = TypeVar("_Operand", bound=ast.Operand)


#: What is added to lists, by their names: the file that says so, and what it adds.
Additions: TypeAlias = Mapping[str, Sequence[tuple[SourceFile, ast.Addition]]]


def declare(
    declarations: Sequence[ast.Declaration], macros: Sequence[ast.Macro], added: Additions, sink: Sink
) -> Scope:
    """Returns the names of a file; reports doubles. added: what the files of its set add to lists of these names."""
    return _scope(declarations, macros, added, Scope({}, {}), sink, of_policy=False)


def declare_inside(node: ast.Policy, outer: Scope, sink: Sink) -> Scope:
    """Returns the names of a policy over those of the file around it; reports doubles."""
    if not (node.declarations or node.macros or node.additions):
        return outer
    added: dict[str, list[tuple[SourceFile, ast.Addition]]] = {}
    for addition in node.additions:
        added.setdefault(addition.name.text, []).append((sink.source, addition))
    scope = _scope(node.declarations, node.macros, added, outer, sink, of_policy=True)
    for name, parts in added.items():
        found = scope.declared.get(name)
        if found is None or not isinstance(found.value, ast.ListOf):
            unknown_list(parts[0][1], sink, "declare it in this file, or in the policy")
    return scope


def unknown_list(addition: ast.Addition, sink: Sink, help: str) -> None:
    """Reports an addition to a list that there isn't."""
    message = f"there is no list {quote(addition.name.text)} to add to"
    sink.report("ER0217", addition.name.span, message, level=Level.WARNING, help=help)


def _scope(
    declarations: Sequence[ast.Declaration],
    macros: Sequence[ast.Macro],
    added: Additions,
    outer: Scope,
    sink: Sink,
    *,
    of_policy: bool,
) -> Scope:
    own: dict[str, Declared] = {}
    own_macros: dict[str, Macro] = {}
    # Not copies: there may be many policies under many lists.
    scope = Scope(ChainMap(own, outer.declared), ChainMap(own_macros, outer.macros))
    first: dict[str, Span] = {}
    for declaration in declarations:
        if _is_free(declaration.name, first, sink):
            _hides(declaration.name, outer, sink)
            own[declaration.name.text] = Declared(declaration.name.span, declaration.value)
    for name, parts in added.items():
        found = scope.declared.get(name)
        if found is not None and isinstance(found.value, ast.ListOf):
            own[name] = Declared(found.span, _longer(found.value, parts, sink))
    for node in macros:
        if _is_free(node.name, first, sink):
            _hides(node.name, outer, sink)
            own_macros[node.name.text] = _macro(node, scope, sink, of_policy)
    return scope


def _longer(value: ast.ListOf, parts: Sequence[tuple[SourceFile, ast.Addition]], sink: Sink) -> ast.ListOf:
    items = list(value.items)
    for source, addition in parts:
        if not sink.spend(len(addition.items), value.span):
            break
        begin = 0 if source is sink.source else sink.adopt(source)
        items += [_moved(item, begin) for item in addition.items] if begin else addition.items
    return ast.ListOf(value.span, tuple(items))


def _moved(node: _Operand, by: int) -> _Operand:
    """An operand with all its indexes moved."""
    span = Span(node.span.start + by, node.span.end + by)
    match node:
        case ast.Call(arguments=arguments):
            return replace(node, span=span, arguments=tuple(_moved(item, by) for item in arguments))
        case ast.BitSet(items=items) | ast.ListOf(items=items):
            return replace(node, span=span, items=tuple(_moved(item, by) for item in items))
        case ast.Range(first=begin, last=last):
            return replace(node, span=span, first=_moved(begin, by), last=_moved(last, by))
    return replace(node, span=span)


def _hides(name: ast.Ident, outer: Scope, sink: Sink) -> None:
    """Reports a name that hides one from further out."""
    found = outer.declared.get(name.text) or outer.macros.get(name.text)
    if found is not None:
        sink.report(
            "ER0524",
            name.span,
            f"{quote(name.text)} hides the one that was declared outside",
            level=Level.WARNING,
            labels=(Label(found.span, "this one"),),
            help="give it another name; to make a list longer, write `+=`",
        )


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
        _hides(parameter, scope, sink)
    names = tuple(parameter.text for parameter in node.parameters)
    return Macro(node.name.text, node.name.span, names, node.body, scope, sink.source, _size(node.body), of_policy)


def _size(expr: ast.Expr) -> int:
    match expr:
        case ast.AndExpr(items=items) | ast.OrExpr(items=items):
            return sum(map(_size, items))
        case ast.NotExpr(item=item) | ast.Quantified(item=item):
            return _size(item)
    return 1
