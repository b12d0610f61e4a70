"""Parses what stands in a policy beside its steps: options, meta, declarations."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.conditions import ConditionParser
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import Label, quote
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

OPTIONS = frozenset(("key", "within", "response", "max_partials", "mode", "throttle"))


class MemberParser(ConditionParser):
    """The grammar's option, keys, meta and decl."""

    # ---- small parts

    def word(self, expected: str, help: str = "") -> ast.Ident:
        """Takes any word, or reports that `expected` is missing and raises Panic."""
        if self.token.kind is not T.NAME:
            raise self.fail(expected, help=help)
        token = self.advance()
        return ast.Ident(token.span, token.text)

    def plain_word(self, expected: str, help: str = "") -> ast.Ident:
        """Takes a word without dots."""
        word = self.word(expected, help)
        if "." in word.text:
            self.report(
                "ER0101", word.span, f"expected {expected}, found {quote(word.text)}", help="leave out the dots"
            )
        return word

    def number(self, kind: T, expected: str, help: str) -> ast.Number:
        """Takes a number, duration or size, or reports that it is missing and raises Panic."""
        if self.token.kind is not kind:
            raise self.fail(expected, help=help)
        token = self.advance()
        return ast.Number(token.span, token.value, "duration" if kind is T.DURATION else "")

    def duration(self, after: str) -> ast.Number:
        """Takes a duration."""
        return self.number(T.DURATION, f"a duration after `{after}`", "for example 30s or 5m")

    def twice(self, span: Span, what: str, first: Span) -> None:
        """Reports something that may be given only once."""
        self.report(
            "ER0109",
            span,
            f"{what} is given twice",
            labels=(Label(first, "first given here"),),
            help="keep one of them",
        )

    # ---- options

    def option(self) -> ast.Option:
        """option = "key" keys | "within" DUR | "response" ( "audit" | "enforce" ) | "max_partials" NUM
        | "mode" ( "latest" | "first" | "all" NUM ) | "throttle" NUM "per" DUR [ "by" keys ] ;
        """
        word = self.advance()
        match word.text:
            case "within":
                duration = self.duration("within")
                return ast.Option(word.span.to(duration.span), word.text, duration=duration)
            case "max_partials":
                number = self.number(T.NUMBER, "a number after `max_partials`", "for example max_partials 4096")
                return ast.Option(word.span.to(number.span), word.text, number=number)
            case "response":
                return self._choice(word, ("audit", "enforce"))
            case "mode":
                return self._mode(word)
            case "throttle":
                return self._throttle(word)
            case _:
                keys = self.keys()
                return ast.Option(word.span.to(keys.span), word.text, keys=keys)

    def _choice(self, word: Token, choices: tuple[str, ...]) -> ast.Option:
        expected = " or ".join(f"`{choice}`" for choice in choices)
        value = self.word(f"{expected} after `{word.text}`")
        if value.text not in choices:
            self.report(
                "ER0112", value.span, f"{quote(value.text)} is not a {word.text}", help=f"{word.text} is {expected}"
            )
        return ast.Option(word.span.to(value.span), word.text, value)

    def _mode(self, word: Token) -> ast.Option:
        option = self._choice(word, ("latest", "first", "all"))
        if option.word is None or option.word.text != "all":
            return option
        number = self.number(T.NUMBER, "a number after `mode all`", "for example mode all 4")
        return ast.Option(word.span.to(number.span), word.text, option.word, number)

    def _throttle(self, word: Token) -> ast.Option:
        number = self.number(T.NUMBER, "a number after `throttle`", "for example throttle 1 per 5m")
        if not self.accept_word("per"):
            raise self.fail("`per` and a duration", help="for example throttle 1 per 5m")
        duration = self.duration("per")
        keys = self.keys() if self.accept_word("by") else None
        span = word.span.to(self.previous.span)
        return ast.Option(span, word.text, number=number, duration=duration, keys=keys)

    def keys(self) -> ast.Keys:
        """keys = key { "," key } ; key = operand | "(" keys ")" ;"""
        start = self.token.span
        parts: list[ast.Operand] = []
        while True:
            opening = self.accept("(")
            if opening:
                self.deeper(opening.span)
                parts.extend(self.keys().parts)
                self.expect(")", "to close the parenthesis")
                self.shallower()
            else:
                parts.append(self._operand("a key"))
            if not self.accept(","):
                return ast.Keys(start.to(self.previous.span), tuple(parts))

    # ---- meta

    def meta(self) -> list[ast.MetaItem]:
        """meta = "{" { ID [ ":" | "=" ] ( STR | NUM | DUR | ID | list ) [ "," | ";" ] } "}" ;"""
        opening = self.advance()
        items: list[ast.MetaItem] = []
        depth = self._depth
        while not self.accept("}"):
            if self.token.kind is T.END:
                self.report("ER0102", opening.span, "this brace is never closed", help="close `meta` with `}`")
                return items
            since = self._at
            try:
                key = self.word("the name of a meta entry", 'for example severity: high, or id: "x-1"')
                self.accept(":", "=")
                value = self.list_of() if self.at("[") else self._operand(f"a value for `{key.text}`")
                items.append(ast.MetaItem(key, value))
                self.accept(",", ";")
            except Panic:
                self._depth = depth
                self.skip_line(since)
        return items

    # ---- declarations

    def declaration(self) -> ast.Declaration | ast.Addition:
        """decl = "let" ID "=" value | "list" ID ( "=" | "+=" ) list | "macro" ID [ "(" ... ")" ] "=" expr ;"""
        word = self.advance()
        name = self.plain_word(f"a name after `{word.text}`")
        plus = self.accept("+=") if word.text == "list" else None
        if plus is not None:
            if not self.at("["):
                raise self.fail("a list in brackets", help='for example list SHELLS += ["fish"]')
            added = self.list_of()
            items = added.items if isinstance(added, ast.ListOf) else ()
            return ast.Addition(word.span.to(plus.span), name, items)
        self.expect("=", f"after `{word.text} {name.text}`")
        if word.text == "list" and not self.at("["):
            raise self.fail("a list in brackets", help='for example list SHELLS = ["sh", "bash"]')
        value = self.list_of() if self.at("[") else self._operand("a value")
        if isinstance(value, (ast.Call, ast.Name)):
            self.report("ER0105", value.span, "a declared value is a text, a number, a duration or a list")
        return ast.Declaration(word.span.to(value.span), name, value)

    def macro(self) -> ast.Macro:
        """macro ID [ "(" [ ID { "," ID } ] ")" ] = expr ; where the condition makes no sense, the name is known all the same"""
        word = self.advance()
        name = self.plain_word("a name after `macro`")
        parameters: list[ast.Ident] = []
        if self.accept("("):
            while not self.at(")"):
                parameters.append(self.plain_word("the name of a parameter", "for example macro scratch(p) = ..."))
                if not self.accept(",") and not self.at(")"):
                    raise self.fail("`,` or `)` after the parameter")
            self.advance()
        self.expect("=", f"after `macro {name.text}`")
        since, depth = self._at, self._depth
        try:
            body = self.expr()
        except Panic:
            self._depth = depth
            self.skip_line(since)
            body = ast.Bad(name.span)
        return ast.Macro(word.span.to(self.previous.span), name, tuple(parameters), body)
