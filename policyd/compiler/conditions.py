"""Parses conditions: everything between the braces of a step, and behind `if`."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.cursor import Cursor, Panic
from policyd.compiler.diagnostics import Label, Level
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

_COMPARISONS = {
    "=": "=",
    "==": "=",
    "!=": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
    "=~": "=~",
    "!~": "!~",
}
#: Operators that are words.
WORD_OPERATORS = frozenset(
    [
        "in",
        "contains",
        "startswith",
        "endswith",
        "like",
        "glob",
        "has",
        "hasany",
        "ieq",
        "iin",
        "icontains",
        "istartswith",
        "iendswith",
        "ilike",
    ]
)
_QUANTIFIERS = ("any", "all", "none")


class ConditionParser(Cursor):
    """The grammar's conds, expr, operand and list."""

    def conditions(self, opening: Token) -> ast.AndExpr:
        """conds = { expr [ "," | ";" ] } ; up to the closing brace, which is taken."""
        items: list[ast.Expr] = []
        apart = True  # a comma, a semicolon or a line break stands before the next condition
        depth = self._depth
        while not self.at("}"):
            if self._step_was_left_open(opening):
                return ast.AndExpr(Span(opening.start, self.previous.end), tuple(items))
            since = self._at
            try:
                item = self.expr()
                self._lint_adjacent(items, item, apart or self._tokens_apart(item))
                items.append(item)
                apart = self.accept(",", ";") is not None
            except Panic:
                self._depth = depth
                self.skip_line(since)
                apart = True
        closing = self.advance()
        return ast.AndExpr(Span(opening.start, closing.end), tuple(items))

    def _tokens_apart(self, item: ast.Expr) -> bool:
        # The item's first token tells whether a line break came before it; conditions are short, so look back linearly.
        index = self._at - 1
        while index > 0 and self._tokens[index].start > item.span.start:
            index -= 1
        return self._tokens[index].newline

    def _lint_adjacent(self, before: list[ast.Expr], item: ast.Expr, apart: bool) -> None:
        if apart or not before:
            return
        for side in (before[-1], item):
            if isinstance(side, ast.OrExpr) and not side.grouped:
                other = item if side is before[-1] else before[-1]
                self._sink.report(
                    "ER0501",
                    side.span,
                    "`or` beside another condition on one line",
                    level=Level.WARNING,
                    help="this reads as (a or b) and c; put the `or` in parentheses, or a comma between",
                    labels=(Label(other.span, "this must hold as well"),),
                )
                return

    def _step_was_left_open(self, opening: Token) -> bool:
        """Whether what stands here shows that a step's closing brace is missing; reports it."""
        token, after = self.token, self.ahead()
        begins_step = token.newline and token.kind is T.NAME and after.kind is T.PUNCTUATION and after.text == "{"
        begins_policy = token.newline and self.at_word("path", "policy") and after.kind is T.STRING
        begins_policy = begins_policy and self.ahead(2).text not in (",", ";", "}") and self._policy_brace_follows()
        if token.kind is not T.END and not begins_step and not begins_policy:
            return False
        self.report("ER0102", Span(opening.start, opening.end), "this brace is never closed", help="close it with `}`")
        return True

    def _policy_brace_follows(self) -> bool:
        return any(self.ahead(n).kind is T.PUNCTUATION and self.ahead(n).text == "{" for n in range(2, 12))

    # ---- expressions

    def expr(self) -> ast.Expr:
        """expr = conj { ( "or" | "||" ) conj } ;"""
        items = [self._conj()]
        while self.accept_word("or") or self.accept("||"):
            items.append(self._conj())
        if len(items) == 1:
            return items[0]
        return ast.OrExpr(items[0].span.to(items[-1].span), tuple(items))

    def _conj(self) -> ast.Expr:
        """conj = neg { ( "and" | "&&" ) neg } ;"""
        items = [self._neg()]
        while self.accept_word("and") or self.accept("&&"):
            items.append(self._neg())
        if len(items) == 1:
            return items[0]
        return ast.AndExpr(items[0].span.to(items[-1].span), tuple(items))

    def _neg(self) -> ast.Expr:
        """neg = ( "not" | "!" ) neg | prim ;"""
        token = self.accept_word("not") or self.accept("!")
        if token is None:
            return self._prim()
        self.deeper(token.span)
        item = self._neg()
        self.shallower()
        return ast.NotExpr(token.span.to(item.span), item)

    def _prim(self) -> ast.Expr:
        """prim = "(" expr ")" | ( "any" | "all" | "none" ) field "(" expr ")" | operand [ rel ] ;"""
        opening = self.accept("(")
        if opening:
            return self._group(opening)
        if self.at_word(*_QUANTIFIERS) and self.ahead().kind is T.NAME and self.ahead(2).text in ("(", "["):
            return self._quantifier()
        left = self._operand("a condition")
        return self._rel(left)

    def _group(self, opening: Token) -> ast.Expr:
        self.deeper(opening.span)
        inner = self.expr()
        closing = self.expect(")", "to close the parenthesis")
        self.shallower()
        if isinstance(inner, ast.OrExpr):
            return ast.OrExpr(Span(opening.start, closing.end), inner.items, grouped=True)
        return inner

    def _quantifier(self) -> ast.Expr:
        """( "any" | "all" | "none" ) field "(" expr ")" ; element is called "it" """
        word = self.advance()
        field = self._field()
        opening = self.expect(
            "(", f"with a condition after `{word.text} {field.text}`", help='for example any argv(it = "-c")'
        )
        self.deeper(opening.span)
        item = self.expr()
        closing = self.expect(")", "to close the parenthesis")
        self.shallower()
        return ast.Quantified(Span(word.start, closing.end), ast.Ident(word.span, word.text), field, item)

    def _rel(self, left: ast.Operand) -> ast.Expr:
        """rel = comparison rhs | ( "=~" | "!~" ) ( STR | list ) | [ "not" ] WORDOP [ "any" | "all" ] rhs
        | "exists" | "is" [ "not" ] "null" ;
        """
        token = self.token
        if token.kind is T.PUNCTUATION and token.text in _COMPARISONS:
            self.advance()
            right = self._rhs(token)
            return ast.Compare(left.span.to(right.span), left, _COMPARISONS[token.text], token.span, right)
        if token.kind is not T.NAME:
            return ast.Bare(left.span, left)
        negated = token.text == "not" and self.ahead().kind is T.NAME and self.ahead().text in WORD_OPERATORS
        if negated:
            self.advance()
        if self.token.text in WORD_OPERATORS:
            return self._word_rel(left, token.span, negated)
        if self.accept_word("exists"):
            return ast.Compare(left.span.to(token.span), left, "exists", token.span)
        if self.at_word("is"):
            return self._is_null(left)
        return ast.Bare(left.span, left)

    def _word_rel(self, left: ast.Operand, op_span: Span, negated: bool) -> ast.Expr:
        op = self.advance()
        quantifier = ""
        if self.at_word("any", "all") and not self._starts_new_condition(self.ahead()):
            quantifier = self.advance().text
        right = self._rhs(op)
        span = left.span.to(right.span)
        return ast.Compare(span, left, op.text, op_span.to(op.span), right, negated, quantifier)

    @staticmethod
    def _starts_new_condition(token: Token) -> bool:
        return token.kind is T.PUNCTUATION and token.text in ("}", ")", ",", ";")

    def _is_null(self, left: ast.Operand) -> ast.Expr:
        start = self.advance()
        negated = self.accept_word("not") is not None
        if not self.at_word("null"):
            raise self.fail("`null` or `not null` after `is`")
        end = self.advance()
        span = start.span.to(end.span)
        return ast.Compare(left.span.to(span), left, "exists", span, None, negated=not negated)

    # ---- operands

    def _rhs(self, op: Token) -> ast.Operand:
        """rhs = operand | list | "(" operand { "|" operand } ")" ; also without parentheses"""
        context = f"a value after `{op.text}`"
        if self.at("["):
            return self.list_of()
        opening = self.accept("(")
        items = [self._operand(context)]
        while self.accept("|"):
            items.append(self._operand("a value after `|`"))
        span = items[0].span.to(items[-1].span)
        if opening:
            span = opening.span.to(self.expect(")", "to close the parenthesis").span)
        return items[0] if len(items) == 1 else ast.BitSet(span, tuple(items))

    def list_of(self) -> ast.Operand:
        """list = "[" { ( STR | NUM [ ".." NUM ] | operand ) [ "," ] } "]" ;"""
        opening = self.advance()
        items: list[ast.Operand] = []
        while not self.at("]"):
            if self.token.kind is T.END or self.at("{", "}"):
                self.report("ER0102", opening.span, "this bracket is never closed", help="close the list with `]`")
                raise Panic
            if self.at("["):
                self.report("ER0101", self.token.span, "a list cannot hold a list", help="write one flat list")
                items.append(ast.Bad(self.skip_balanced()))
            else:
                items.append(self._element())
            self.accept(",")
        closing = self.advance()
        return ast.ListOf(Span(opening.start, closing.end), tuple(items))

    def _element(self) -> ast.Operand:
        item = self._operand("a list element")
        if isinstance(item, ast.Number) and self.accept(".."):
            last = self._operand("the end of the range")
            span = item.span.to(last.span)
            if isinstance(last, ast.Number):
                return ast.Range(span, item, last)
            self.report("ER0101", last.span, "a range ends with a number", help="write it as 1..9")
            return ast.Bad(span)
        return item

    def _operand(self, context: str) -> ast.Operand:
        """operand = STR | NUM | DUR | "-" operand | "$" field | ID "(" [ rhs { "," rhs } ] ")" | field ;"""
        token = self.token
        match token.kind:
            case T.STRING:
                self.advance()
                return ast.Text(token.span, token.text, token.verbatim)
            case T.ADDRESS:
                self.advance()
                return ast.Text(token.span, token.text, True)
            case T.NUMBER | T.DURATION:
                self.advance()
                return ast.Number(token.span, token.value, "duration" if token.kind is T.DURATION else "")
            case T.NAME:
                return self._name_or_call()
        if self.at("-"):
            return self._negative()
        if self.at("$"):
            self.advance()
            span = token.span.to(self.advance().span) if self.token.kind is T.NAME else token.span
            self.unsupported(span, "reading a mark with `$`")
            return ast.Bad(span)
        raise self.fail(context, help=self._operand_help(token), code="ER0105")

    @staticmethod
    def _operand_help(token: Token) -> str:
        if token.kind is T.SIZE:
            return "write sizes as a number of bytes here"
        return "a condition reads: field, operator, value"

    def _negative(self) -> ast.Operand:
        minus = self.advance()
        self.deeper(minus.span)
        operand = self._operand("a number or an error name after `-`")
        self.shallower()
        span = minus.span.to(operand.span)
        match operand:
            case ast.Number(value=value, unit=""):
                return ast.Number(span, -value)
            case ast.Name(index=None, negative=False):
                return ast.Name(span, operand.text, negative=True)
            case ast.Bad():
                return ast.Bad(span)
        self.report("ER0105", span, "`-` stands before a number or an error name", help="for example -1 or -EPERM")
        return ast.Bad(span)

    def _name_or_call(self) -> ast.Operand:
        """A call's "(" touches its name."""
        after = self.ahead()
        if after.text == "(" and after.touches:
            return self._call(self.advance())
        return self._field()

    def _field(self) -> ast.Name:
        """field = ID { "." ID | "[" ( NUM | STR ) "]" } ; an index's "[" touches the name"""
        first = self.advance()
        span, parts = first.span, [first.text]
        index: int | None = None
        while self.at("[") and self.token.touches:
            if index is not None:
                parts.append(f"[{index}]")
            span, index = self._index(span)
            if self.at(".") and self.token.touches and self.ahead().kind is T.NAME:
                self.advance()
                parts.append(f"[{index}].{self.token.text}")
                index = None
                span = span.to(self.advance().span)
        return ast.Name(span, "".join(parts), index)

    def _index(self, before: Span) -> tuple[Span, int]:
        """Takes an index; returns the span of it all, from `before` on, and its number."""
        self.advance()
        index = self.token
        if index.kind is not T.NUMBER:
            raise self.fail("a number in the brackets", help="for example argv[0]")
        self.advance()
        return before.to(self.expect("]", "to close the index").span), index.value

    def _call(self, name: Token) -> ast.Operand:
        opening = self.advance()
        self.deeper(opening.span)
        arguments: list[ast.Operand] = []
        while not self.at(")"):
            arguments.append(self.list_of() if self.at("[") else self._operand("an argument"))
            if not self.accept(",") and not self.at(")"):
                raise self.fail("`,` or `)` after the argument")
        closing = self.advance()
        self.shallower()
        return ast.Call(Span(name.start, closing.end), name.text, tuple(arguments))
