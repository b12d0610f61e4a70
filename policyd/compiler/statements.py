"""Parses the body of a policy: its members, and statements nested to any bounded depth."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import Level, quote
from policyd.compiler.members import OPTIONS, MemberParser
from policyd.compiler.source import Span
from policyd.compiler.steps import StepParser
from policyd.compiler.tokens import T, Token

POLICY_WORDS = ("path", "policy")


class Members:
    """What the members of a policy are collected in."""

    def __init__(self) -> None:
        self.statements: list[ast.Stmt] = []
        self.handlers: list[ast.Handler] = []
        self.options: list[ast.Option] = []
        self.meta: list[ast.MetaItem] = []
        self.meta_span: Span | None = None
        self.declarations: list[ast.Declaration] = []
        self.macros: list[ast.Macro] = []
        self.untils: list[ast.Until] = []
        self.exceptions: list[ast.Except] = []
        self.additions: list[ast.Addition] = []
        self.outside: list[ast.Outside] = []  # only of a file
        self.language: Span | None = None  # only of a file: where its header stands

    def declare(self, found: ast.Declaration | ast.Addition) -> None:
        if isinstance(found, ast.Addition):
            self.additions.append(found)
        else:
            self.declarations.append(found)

    def add_option(self, parser: MemberParser, option: ast.Option) -> None:
        earlier = next((o for o in self.options if o.name == option.name), None)
        if earlier:
            parser.twice(option.span, f"`{option.name}`", earlier.span)
        else:
            self.options.append(option)


class StatementParser(StepParser):
    """The grammar's member, body and stmt."""

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
            body.untils.append(self._until())
        elif token.text == "except":
            self._except(body, whole_policy)
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
            if after_step:
                self._sink.report(
                    "ER0508",
                    option.span,
                    "this `within` limits the whole policy",
                    level=Level.NOTE,
                    help="to limit the step before it, write it on the line of the step's closing brace",
                )
        elif token.text == "macro":
            body.macros.append(self.macro())
        else:
            body.declare(self.declaration())

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

    def _except(self, body: Members, whole_policy: bool) -> None:
        """ "except" [ STR ] "{" conds "}" """
        word = self.advance()
        reason = None
        if self.token.kind is T.STRING:
            token = self.advance()
            reason = ast.Text(token.span, token.text, token.verbatim)
        condition = self.conditions(self.expect("{", "with the conditions of `except`"))
        if not whole_policy:
            self.report("ER0106", word.span, "`except` does not belong in a block", help="move it to the policy")
            return
        body.exceptions.append(ast.Except(word.span.to(condition.span), reason, condition))

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
        return self._worded(token, after) or self._step_or_conditional()

    def _worded(self, token: Token, after: Token) -> ast.Stmt | None:
        """A statement that begins with a word of the language; None where a step stands here."""
        match token.text:
            case "either" if after.text == "{":
                return self._either()
            case "unordered" if after.text == "{":
                return self._unordered()
            case "block" if after.kind is T.STRING or after.text == "{":
                return self._labelled_block()
            case "no" if after.kind is T.NAME:
                return self._no()
            case "benign" if after.text != "{":
                self.advance()
                return ast.Benign(token.span)
        return None

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

    def _block(self, first: Token, label: ast.Ident | None, after: str = "the block's label") -> ast.Block:
        opening = self.expect("{", f"after {after}")
        body = self._body(opening)
        return ast.Block(first.span.to(body.span), label, body)

    def _body(self, opening: Token) -> ast.Body:
        """body = "{" { stmt | "until" step | handler } "}" ;"""
        self.deeper(opening.span)
        collected = Members()
        self.members(collected, opening, whole_policy=False)
        self.shallower()
        span = opening.span.to(self.previous.span)
        return ast.Body(span, tuple(collected.statements), tuple(collected.handlers), tuple(collected.untils))

    def _either(self) -> ast.Either:
        """ "either" body { "or" body }"""
        first = self.advance()
        branches = [self._block(self.token, None, "`either`")]
        while self.accept_word("or"):
            branches.append(self._block(self.token, None, "`or`"))
        return ast.Either(first.span.to(self.previous.span), tuple(branches))

    def _unordered(self) -> ast.Unsupported:
        """ "unordered" body"""
        first = self.advance()
        block = self._block(self.token, None, "`unordered`")
        self.unsupported(first.span, "`unordered`")
        return ast.Unsupported(first.span.to(self.previous.span), (block,))

    def _until(self) -> ast.Until:
        """ "until" step"""
        word = self.advance()
        step = self.step()
        return ast.Until(word.span.to(step.span), step)

    def _no(self) -> ast.Unsupported:
        """ "no" step"""
        word = self.advance()
        step = self.step()
        self.unsupported(word.span, "forbidding a step with `no`")
        # Its alias can't be read elsewhere, so the step itself is not kept.
        return ast.Unsupported(word.span.to(step.span))

    def _step_or_conditional(self) -> ast.Stmt:
        """step [ "?" stmt [ ":" stmt ] ]"""
        step = self.step()
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
