"""Checks a whole condition: comparisons joined by and, or, not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.comparisons import ComparisonChecker
from policyd.compiler.diagnostics import quote
from policyd.compiler.names import ANCESTOR, Element
from policyd.compiler.source import Span
from policyd.compiler.values import ValueChecker, kind_words
from policyd.program import And, Expr, FieldRef, Not, Op, Or, Quantified, Test


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
            case ast.Quantified():
                typed = self._quantified(node)
        return typed

    def _all(self, items: Sequence[ast.Expr]) -> tuple[Expr, ...] | None:
        typed = [self.condition(item) for item in items]
        good = tuple(item for item in typed if item is not None)
        return good if len(good) == len(typed) else None

    # ---- quantifiers

    def _quantified(self, node: ast.Quantified) -> Expr | None:
        listed = self._elements_of(node)
        if listed is None:
            return None
        ref, element = listed
        names = replace(self.names, element=element)
        inside = ConditionChecker(self.sink, names, self.depth + 1, self.arguments, self.expanding)
        inner = inside.condition(node.item)
        if inner is None:
            return None
        found = Quantified(ref, inner, node.word.text == "all", self.text_of(node.span))
        return Not(found) if node.word.text == "none" else found

    def _elements_of(self, node: ast.Quantified) -> tuple[FieldRef, Element] | None:
        """The list that a quantifier goes through, and what is in it."""
        home, field = self.home(node.field)
        if not isinstance(field, ast.Name):
            if not isinstance(field, ast.Bad):
                message = f"`{node.word.text}` goes through a list"
                self.sink.report("ER0301", node.field.span, message, help="lists are argv and ancestor")
            return None
        head, _, last = field.text.rpartition(".")
        if last == ANCESTOR and field.index is None and (not head or head in home.names.bound):
            alias = home.names.bound.get(head)
            return FieldRef(ANCESTOR, Kind.TEXTS, head if alias and not alias.current else None), Element.PROCESS
        found = home.field(field)
        if found is None:
            return None
        info, ref = found
        if ref.kind is not Kind.TEXTS:
            message = f"`{node.word.text}` goes through a list, and {quote(info.name)} holds {kind_words(ref.kind)}"
            self.sink.report("ER0301", node.field.span, message, help="lists are argv and ancestor")
            return None
        return ref, Element.TEXT

    # ---- single operands

    def _bare(self, node: ast.Bare) -> Expr | None:
        home, operand = self.home(node.operand)
        macros = self.names.scope.macros
        match node.operand:
            case ast.Name(text=name, index=None, negative=False) if name in macros and home is self:
                return self._expanded(name, (), node.span)
            case ast.Call(name=name, arguments=arguments) if name in macros:
                return self._expanded(name, arguments, node.span)
        match operand:
            case ast.Name():
                return self._bare_name(home, operand, node.span)
            case ast.Call(name="truncated"):
                return self._truncated(operand)
            case ast.Call(name="basename"):
                self._no_condition(node.span, "compare it with something")
            case ast.Call():
                self.call(operand)
            case ast.Bad():
                pass
            case _:
                self._no_condition(node.span, "a condition reads: field, operator, value")
        return None

    def _bare_name(self, home: ValueChecker, name: ast.Name, span: Span) -> Expr | None:
        if name.text in ("true", "false") or name.negative:
            self._no_condition(span, "compare a field with it")
            return None
        found = home.field(name)
        if found is None:
            return None
        info, ref = found
        if info.kind in (Kind.BOOL, Kind.BITS):
            return Test(ref, Op.TRUE, text=self.text_of(span))
        help_text = f"write {name.text} exists, or compare it with something"
        if info.kind is Kind.INT:
            help_text = f"write {name.text} != 0, or compare it with something else"
        self._no_condition(span, help_text)
        return None

    def _expanded(self, name: str, arguments: tuple[ast.Operand, ...], span: Span) -> Expr | None:
        """The condition that a macro stands for."""
        found = self.expansion(name, arguments, span)
        if found is None:
            return None
        sink, names, given, macro = found
        return ConditionChecker(sink, names, self.depth, given, (*self.expanding, macro)).condition(macro.body)

    def _truncated(self, call: ast.Call) -> Test | None:
        home, field = self.home(call.arguments[0]) if len(call.arguments) == 1 else (self, None)
        if not isinstance(field, ast.Name):
            self.sink.report("ER0309", call.span, "`truncated` takes one field", help="for example truncated(content)")
            return None
        found = home.field(field)
        if found is None:
            return None
        info, ref = found
        if not info.can_be_cut:
            self.sink.report("ER0320", call.span, f"{quote(info.name)} is never captured in part", help="leave it out")
            return None
        return Test(ref, Op.TRUNCATED, text=self.text_of(call.span))

    def _no_condition(self, span: Span, help: str) -> None:
        self.sink.report("ER0308", span, f"{quote(self.sink.source.snippet(span))} is not a condition", help=help)
