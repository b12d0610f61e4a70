"""Checks a whole condition: comparisons joined by and, or, not."""

from __future__ import annotations

from collections.abc import Sequence

from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.comparisons import ComparisonChecker
from policyd.compiler.diagnostics import quote
from policyd.compiler.source import Span
from policyd.program import And, Expr, Not, Op, Or, Test


class ConditionChecker(ComparisonChecker):
    """Types one condition. A part that has an error becomes None, and the others are still checked."""

    def condition(self, node: ast.Expr) -> Expr | None:
        """Returns the typed condition, or None where something in it was reported."""
        typed: Expr | None = None
        match node:
            case ast.AndExpr(items=items) | ast.OrExpr(items=items):
                parts = self._all(items)
                if parts is not None and isinstance(node, ast.OrExpr):
                    typed = Or(parts)
                elif parts is not None:
                    typed = parts[0] if len(parts) == 1 else And(parts)
            case ast.NotExpr(item=item):
                inner = self.condition(item)
                typed = None if inner is None else Not(inner)
            case ast.Compare():
                typed = self.compare(node)
            case ast.Bare():
                typed = self._bare(node)
        return typed

    def _all(self, items: Sequence[ast.Expr]) -> tuple[Expr, ...] | None:
        typed = [self.condition(item) for item in items]
        good = tuple(item for item in typed if item is not None)
        return good if len(good) == len(typed) else None

    # ---- single operands

    def _bare(self, node: ast.Bare) -> Expr | None:
        operand = node.operand
        match operand:
            case ast.Name():
                if operand.text in ("true", "false") or operand.negative:
                    self._no_condition(node.span, "compare a field with it")
                    return None
                found = self.field(operand)
                if found is None:
                    return None
                info, ref = found
                if info.kind in (Kind.BOOL, Kind.BITS):
                    return Test(ref, Op.TRUE, text=self.text_of(node.span))
                help_text = f"write {operand.text} exists, or compare it with something"
                if info.kind is Kind.INT:
                    help_text = f"write {operand.text} != 0, or compare it with something else"
                self._no_condition(node.span, help_text)
            case ast.Call():
                self.call(operand) if operand.name != "basename" else self._no_condition(
                    node.span, "compare it with something"
                )
            case ast.Bad():
                pass
            case _:
                self._no_condition(node.span, "a condition reads: field, operator, value")
        return None

    def _no_condition(self, span: Span, help: str) -> None:
        self.sink.report("ER0308", span, f"{quote(self.sink.source.snippet(span))} is not a condition", help=help)
