"""Declared names: lists and values, of a file and of a policy."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping

from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.names import Declared, family_of


def declare(
    declarations: tuple[ast.Declaration, ...], outer: MutableMapping[str, Declared], sink: Sink
) -> MutableMapping[str, Declared]:
    """Returns the declared names of a scope over those of the scope around it; reports doubles."""
    own: dict[str, Declared] = {}
    for declaration in declarations:
        name = declaration.name
        if name.text in own:
            sink.report(
                "ER0208",
                name.span,
                f"{quote(name.text)} is declared twice",
                labels=(Label(own[name.text].span, "first declared here"),),
                help="give one of them another name",
            )
            continue
        if family_of(name.text) is not None:
            sink.report("ER0208", name.span, f"{quote(name.text)} is a constant already", help="choose another name")
        own[name.text] = Declared(name.span, declaration.value)
    return ChainMap(own, outer)  # not a copy: there may be many policies under many lists
