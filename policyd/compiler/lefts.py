"""The left side of a comparison: a field, or the last part of one that holds a path."""

from __future__ import annotations

from dataclasses import replace

from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.diagnostics import quote
from policyd.compiler.macros import MacroChecker
from policyd.compiler.values import Left, ValueChecker, kind_words


class LeftChecker(MacroChecker):
    """Checks what comparisons are about. What returns None has reported why."""

    def left(self, node: ast.Operand) -> Left | None:
        """Returns the field that a comparison is about. None: it was reported that there is none."""
        home, node = self.home(node)
        match node:
            case ast.Name(negative=False):
                found = home.field(node)
                return Left(*found, node.span, home.sink.source) if found else None
            case ast.Call(name="basename"):
                return self._basename(home, node)
            case ast.Call():
                home.call(node)
            case ast.Bad():
                pass
            case _:
                home.sink.report(
                    "ER0309",
                    node.span,
                    "a comparison begins with a field",
                    help="put the field on the left and the value on the right",
                )
        return None

    def _basename(self, home: ValueChecker, call: ast.Call) -> Left | None:
        inner, field = home.home(call.arguments[0]) if len(call.arguments) == 1 else (home, None)
        if not isinstance(field, ast.Name):
            home.sink.report("ER0309", call.span, "`basename` takes one field", help="for example basename(path)")
            return None
        found = inner.field(field)
        if found is None:
            return None
        info, ref = found
        if ref.kind not in (Kind.PATH, Kind.BYTES):
            message = f"{quote(info.name)} holds {kind_words(ref.kind)}, not a path"
            home.sink.report("ER0301", call.span, message, help="give a field that holds one")
            return None
        prefix, _, last = info.name.rpartition("exe")
        if last == "" and (prefix == "" or prefix in ("parent.", "it.") or prefix.startswith("ancestor[")):
            # The catalogue has this one as a field of its own, which is cheaper to test.
            name = replace(info, name=prefix + "name", kind=Kind.BYTES)
            return Left(name, name.ref(ref.alias), call.span, home.sink.source)
        return Left(info, ref, call.span, home.sink.source, basename=True)
