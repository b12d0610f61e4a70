"""Parses one step: its events, its conditions, and the modifiers behind its closing brace."""

from __future__ import annotations

from dataclasses import dataclass

from policyd.compiler import ast
from policyd.compiler.actions import HandlerParser
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import quote
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

_STEP_MODIFIERS = ("as", "by", "within", "times")


@dataclass(slots=True)
class _Modifiers:
    """What has been read behind a step's brace so far."""

    alias: ast.Ident | None = None
    keys: ast.Keys | None = None
    within: ast.Number | None = None
    times: ast.Times | None = None


class StepParser(HandlerParser):
    """The grammar's step and stepmod."""

    def step(self) -> ast.Step:
        """step = ID { "|" ID } "{" conds "}" { stepmod } ;"""
        first = self.word("an event", "a step is an event with conditions: open { ... }")
        events = [first]
        while self.accept("|"):
            events.append(self.word("an event after `|`"))
        if not self.at("{"):
            help_text = "a step is an event with conditions in braces, also when there are none: exit {}"
            self.report(
                "ER0107", first.span, f"expected `{{` after {quote(events[-1].text)}", help=help_text, label="a step?"
            )
            raise Panic
        condition = self.conditions(self.advance())
        return self._modified(first, tuple(events), condition)

    def _modified(self, first: ast.Ident, events: tuple[ast.Ident, ...], condition: ast.AndExpr) -> ast.Step:
        """stepmod = "as" ID | "by" keys | "within" DUR | "times" NUM [ "distinct" operand ] | ".." | "..." ;

        `..`, `...` and `within` belong to a step only on the line of its closing brace: on a line of its own `within` is
        the policy's, and dots are an empty statement.
        """
        found = _Modifiers()
        same_line = True
        repeat: Token | None = None
        while True:
            same_line = same_line and not self.token.newline
            if self.at_word(*_STEP_MODIFIERS) and (same_line or self.token.text != "within"):
                self._modifier(self.advance(), found)
            elif same_line and self.at("..", "..."):
                dots = self.advance()
                if repeat:
                    self.twice(dots.span, "the repetition", repeat.span)
                repeat = repeat or dots
            else:
                break
        return ast.Step(
            first.span.to(self.previous.span),
            events,
            condition,
            found.alias,
            found.within,
            repeat.text if repeat else "",
            repeat.span if repeat else None,
            found.keys,
            found.times,
        )

    def _modifier(self, word: Token, found: _Modifiers) -> None:
        match word.text:
            case "as":
                name = self.plain_word("an alias after `as`")
                self._once_only(name.span, "the alias", found.alias)
                found.alias = name
            case "within":
                duration = self.duration("within")
                self._once_only(word.span, "`within`", found.within)
                found.within = duration
            case "by":
                keys = self.keys()
                self._once_only(word.span.to(keys.span), "`by`", found.keys)
                found.keys = keys
            case _:
                times = self._times(word)
                self._once_only(times.span, "`times`", found.times)
                found.times = times

    def _once_only(self, span: Span, what: str, earlier: ast.Ident | ast.Number | ast.Keys | ast.Times | None) -> None:
        if earlier is not None:
            self.twice(span, what, earlier.span)

    def _times(self, word: Token) -> ast.Times:
        count = self.number(T.NUMBER, "a number after `times`", "for example times 5")
        distinct = self._operand("a field after `distinct`") if self.accept_word("distinct") else None
        return ast.Times(word.span.to(self.previous.span), count, distinct)
