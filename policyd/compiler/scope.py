"""What is declared in a file or a policy: lists, values and macros, and where each of their names means something."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import field

from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.source import SourceFile, Span
from policyd.program import Constant


@record
class Declared:
    """A list or let: where, and what. typed: what the list has become before, by the kind of field it was compared with."""

    span: Span
    value: ast.Operand
    typed: dict[tuple[object, ...], tuple[Constant, ...]] = field(default_factory=dict, repr=False)


@record
class Macro:
    """A named condition. Its own names mean what they mean where it was written: in `scope`.

    size: how many conditions it holds, those of other macros not counted. of_policy: it stands in a policy, and may read the
    policy's steps.
    """

    name: str
    span: Span
    parameters: tuple[str, ...]
    body: ast.Expr
    scope: Scope
    source: SourceFile
    size: int
    of_policy: bool


@record
class Scope:
    """Names of one file or policy, over those around it."""

    declared: MutableMapping[str, Declared]
    macros: MutableMapping[str, Macro]
