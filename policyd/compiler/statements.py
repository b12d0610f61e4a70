"""Parses the body of a policy: its members, and statements nested to any bounded depth."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import Level, quote
from policyd.compiler.members import OPTIONS, MemberParser
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

POLICY_WORDS = ("path", "policy")
_STEP_MODIFIERS = ("as", "by", "within", "times")


class Members:
    """What the members of a policy are collected in."""

    def __init__(self) -> None:
        self.statements: list[ast.Stmt] = []
        self.handlers: list[ast.Handler] = []
        self.options: list[ast.Option] = []
        self.meta: list[ast.MetaItem] = []
        self.meta_span: Span | None = None
        self.declarations: list[ast.Declaration] = []
        self.macros: set[str] = set()

    def add_option(self, parser: MemberParser, option: ast.Option | None) -> None:
        if option is None:
            return
        earlier = next((o for o in self.options if o.name == option.name), None)
        if earlier:
            parser.twice(option.span, f"`{option.name}`", earlier.span)
        else:
            self.options.append(option)


class StatementParser(MemberParser):
    """The grammar's member, body, stmt and step."""

    def members(self, body: Members, opening: Token, whole_policy: bool) -> None:
        """Reads statements and members up to the closing brace, which is taken."""
        depth = self._depth
        while not self.accept("}"):
            if self._left_open(opening):
                return
            since = self._at
            try:
                if not self.accept(";"):
                    self._member(body, whole_policy)
            except Panic:
                self._depth = depth
                self.skip_line(since, ";")

    def _left_open(self, opening: Token) -> bool:
        new_policy = self.token.newline and self.at_word(*POLICY_WORDS) and self.ahead().kind is T.STRING
        if self.token.kind is not T.END and not new_policy:
            return False
        self.report("ER0102", opening.span, "this brace is never closed", help="close it with `}`")
        return True

    def _member(self, body: Members, whole_policy: bool) -> None:
        """member = option | decl | "meta" meta | "except" [ STR ] "{" conds "}" | "until" step | handler | stmt ;
        body = "{" { stmt | "until" step | handler } "}" ;
        """
        token, after = self.token, self.ahead()
        opens = after.kind is T.PUNCTUATION and after.text in ("{", "|")
        if token.kind is not T.NAME or (opens and token.text not in ("meta", "except")):
            body.statements.append(self._stmt())
        elif token.text == "on" and after.kind is T.NAME:
            body.handlers.append(self.handler())
        elif token.text == "until" and after.kind is T.NAME:
            body.statements.append(self._guard("cancelling with `until`"))
        elif token.text == "except":
            self._except()
        elif token.text == "meta" and opens:
            self._meta(body, whole_policy)
        elif token.text in OPTIONS or (token.text in ("let", "list", "macro") and after.kind is T.NAME):
            self._policy_member(body, whole_policy)
        else:
            body.statements.append(self._stmt())

    def _policy_member(self, body: Members, whole_policy: bool) -> None:
        token = self.token
        if not whole_policy:
            self.report(
                "ER0106",
                token.span,
                f"{quote(token.text)} does not belong in a block",
                help="a window for one step goes on the line of its closing brace, anything else to the policy",
            )
            raise Panic
        if token.text in OPTIONS:
            after_step = token.text == "within" and bool(body.statements) and self.previous.text != ";"
            option = self.option()
            body.add_option(self, option)
            if after_step and option:
                self._sink.report(
                    "ER0508",
                    option.span,
                    "this `within` limits the whole policy",
                    level=Level.NOTE,
                    help="to limit the step before it, write it on the line of the step's closing brace",
                )
        elif token.text == "macro":
            body.macros.add(self.macro())
        else:
            declaration = self.declaration()
            if declaration:
                body.declarations.append(declaration)

    def _meta(self, body: Members, whole_policy: bool) -> None:
        word = self.advance()
        items = self.meta()
        if not whole_policy:
            self.report("ER0106", word.span, "`meta` does not belong in a block", help="move it to the policy")
        elif body.meta_span:
            self.twice(word.span, "`meta`", body.meta_span)
        else:
            body.meta_span = word.span
            body.meta.extend(items)

    def _except(self) -> None:
        word = self.advance()
        if self.token.kind is T.STRING:
            self.advance()
        self.conditions(self.expect("{", "with the conditions of `except`"))
        self.unsupported(word.span, "`except`", "put the condition into the step, with `not`")

    # ---- statements

    def _stmt(self) -> ast.Stmt:
        """stmt = step [ "?" stmt [ ":" stmt ] ] | "block" STR body | ".." | "..."
        | "either" body { "or" body } | "unordered" body | "no" step | "benign" ;
        """
        token, after = self.token, self.ahead()
        if token.kind is T.PUNCTUATION:
            return self._punctuated()
        if token.kind is not T.NAME:
            raise self.fail("a step", help="a step is an event with conditions: open { ... }")
        match token.text:
            case "either" | "unordered" if after.text == "{":
                return self._group_of_bodies(token.text)
            case "block" if after.kind is T.STRING or after.text == "{":
                return self._labelled_block()
            case "no" if after.kind is T.NAME:
                return self._guard("forbidding a step with `no`")
            case "benign" if after.text != "{":
                self.advance()
                self.unsupported(token.span, "`benign`", "leave the branch empty, {}")
                return ast.Unsupported(token.span)
        return self._step_or_conditional()

    def _punctuated(self) -> ast.Stmt:
        token = self.token
        if self.accept("..", "..."):
            return ast.Empty(token.span)
        if self.at("{"):
            return self._block(token, None)
        if self.at(":"):
            self.report(
                "ER0113", token.span, "this `:` belongs to no conditional", help="write step ? statement : statement"
            )
            self.advance()
            return self._stmt() if not self.at("}", ":") and self.token.kind is not T.END else ast.Empty(token.span)
        raise self.fail("a step", help="a step is an event with conditions: open { ... }")

    def _labelled_block(self) -> ast.Stmt:
        """ "block" STR body"""
        word = self.advance()
        if self.at("{"):
            message = "expected a label after `block`, found `{`"
            self.report("ER0101", word.span, message, help='write block "label" { ... }')
            return self._block(word, None)
        label = self.advance()
        return self._block(word, ast.Ident(label.span, label.text))

    def _block(self, first: Token, label: ast.Ident | None) -> ast.Block:
        opening = self.expect("{", "after the block's label")
        body = self._body(opening)
        return ast.Block(first.span.to(body.span), label, body)

    def _body(self, opening: Token) -> ast.Body:
        """body = "{" { stmt | "until" step | handler } "}" ;"""
        self.deeper(opening.span)
        collected = Members()
        self.members(collected, opening, whole_policy=False)
        self.shallower()
        span = opening.span.to(self.previous.span)
        return ast.Body(span, tuple(collected.statements), tuple(collected.handlers))

    def _group_of_bodies(self, word: str) -> ast.Stmt:
        """ "either" body { "or" body } | "unordered" body"""
        first = self.advance()
        parts: list[ast.Stmt] = [self._block(self.token, None)]
        while word == "either" and self.accept_word("or"):
            parts.append(self._block(self.token, None))
        help_text = "write the alternatives as step ? statement : statement" if word == "either" else ""
        self.unsupported(first.span, f"`{word}`", help_text)
        return ast.Unsupported(first.span.to(self.previous.span), tuple(parts))

    def _guard(self, what: str) -> ast.Stmt:
        """ "until" step | "no" step"""
        word = self.advance()
        step = self._step()
        self.unsupported(word.span, what)
        # Its alias can't be read elsewhere, so the step itself is not kept.
        return ast.Unsupported(word.span.to(step.span))

    def _step_or_conditional(self) -> ast.Stmt:
        """step [ "?" stmt [ ":" stmt ] ]"""
        step = self._step()
        question = self.accept("?")
        if question is None:
            return step
        self.deeper(question.span)
        then = other = None
        if self.at("}") or self.token.kind is T.END:
            self._sink.report(
                "ER0507",
                question.span,
                "nothing follows this `?`",
                level=Level.WARNING,
                help="the step is required as it would be without `?`; write step ? statement : statement",
            )
        elif not self.at(":"):
            then = self._stmt()
        if self.accept(":"):
            other = self._stmt()
        self.shallower()
        return ast.Conditional(step.span.to(self.previous.span), step, then, other)

    def _step(self) -> ast.Step:
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
        alias: ast.Ident | None = None
        within: ast.Number | None = None
        same_line = True
        while self.at_word(*_STEP_MODIFIERS):
            same_line = same_line and not self.token.newline
            word = self.token
            if word.text == "within" and not same_line:
                break
            self.advance()
            match word.text:
                case "as":
                    name = self.plain_word("an alias after `as`")
                    if alias:
                        self.twice(name.span, "the alias", alias.span)
                    alias = name
                case "within":
                    duration = self.duration("within")
                    if within:
                        self.twice(word.span, "`within`", within.span)
                    within = duration
                case "by":
                    self.unsupported(
                        word.span.to(self.keys()),
                        "a key for one step with `by`",
                        "the policy's key holds for every step",
                    )
                case _:
                    self._times(word)
        repeat = self.accept("..", "...") if same_line and not self.token.newline else None
        if repeat and self.at("..", "...") and not self.token.newline:
            self.twice(self.advance().span, "the repetition", repeat.span)
        return ast.Step(
            first.span.to(self.previous.span),
            events,
            condition,
            alias,
            within,
            repeat.text if repeat else "",
            repeat.span if repeat else None,
        )

    def _times(self, word: Token) -> None:
        self.number(T.NUMBER, "a number after `times`", "for example times 5")
        if self.accept_word("distinct"):
            self._operand("a field after `distinct`")
        self.unsupported(word.span.to(self.previous.span), "counting with `times`")
