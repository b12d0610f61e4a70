"""Checks `notify`: what the plug-in may be called, and what can be handed to it."""

from __future__ import annotations

from execray.plugins import PLUGIN_NAME
from policyd.compiler import ast
from policyd.compiler.diagnostics import quote
from policyd.compiler.literals import plain_text, text_bytes
from policyd.compiler.names import family_of, find_constant
from policyd.compiler.values import ValueChecker
from policyd.program import Constant, FieldRef, Notify

MAX_ARGUMENTS = 32


class NotifyChecker(ValueChecker):
    """Types the arguments of one handler's `notify`."""

    def notify(self, node: ast.Action) -> Notify | None:
        """Returns the typed action, or None where something in it was reported."""
        assert node.plugin is not None  # the parser's part
        errors = self.sink.errors
        name = plain_text(node.plugin)
        if not PLUGIN_NAME.fullmatch(name):
            self.sink.report(
                "ER0114",
                node.plugin.span,
                f"{quote(name)} is not the name of a plug-in",
                help="small letters, digits, `_` and `-`, beginning with a letter, at most 64",
            )
        if len(node.arguments) > MAX_ARGUMENTS:
            span = node.arguments[MAX_ARGUMENTS].key.span
            self.sink.report(
                "ER0402", span, f"more than {MAX_ARGUMENTS} arguments of one `notify`", help="leave some out"
            )
        typed = [(argument.key.text, self.argument(argument.value)) for argument in node.arguments]
        found = tuple((key, value) for key, value in typed if value is not None)
        return Notify(name, found) if self.sink.errors == errors and len(found) == len(typed) else None

    def argument(self, node: ast.Operand) -> Constant | FieldRef | None:
        """Returns a constant, or the field to read when the handler runs; None where it was reported."""
        resolved = self.declared(node)
        match resolved:
            case ast.Text():
                return text_bytes(resolved)
            case ast.Number(value=value):
                return value
            case ast.Name():
                return self._named(resolved)
            case ast.Call():
                self.call(resolved)
            case ast.ListOf() | ast.BitSet() | ast.Range():
                self.sink.report(
                    "ER0315",
                    node.span,
                    "a list cannot be handed over",
                    help="hand over its parts under names of their own",
                )
        return None

    def _named(self, name: ast.Name) -> Constant | FieldRef | None:
        if name.text in ("true", "false") and name.index is None and not name.negative:
            return name.text == "true"
        family = family_of(name.text)
        constant = find_constant(family, name.text) if family is not None and name.index is None else None
        if constant is not None:
            return -constant if name.negative else constant
        if name.negative:
            self.sink.report("ER0302", name.span, "`-` stands only before numbers and error names", help="remove it")
            return None
        found = self.field(name)
        return None if found is None else found[1]
