"""Tokens to a syntax tree, by recursive descent, with recovery: several good diagnostics for one bad file.

The parser is one class in layers: cursor, conditions, members, statements, and here the file.
"""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.cursor import Panic, describe
from policyd.compiler.diagnostics import Sink
from policyd.compiler.members import OPTIONS
from policyd.compiler.statements import POLICY_WORDS, Members, StatementParser
from policyd.compiler.tokens import T, Token

#: The language that this version reads.
LANGUAGE = 1
#: A file, and all files that are loaded together, may hold this many.
MAX_POLICIES = 10_000
_FOLLOWS = ("=", "+=", "(")  # the name of a declaration
_FILE_WORDS = ("let", "list", "macro", "language", "import", "exception")


class Parser(StatementParser):
    """The grammar's file and policy."""

    # ---- file

    def file(self) -> ast.File:
        """file = { "language" NUM | "import" STR | decl | topexc | policy } ;"""
        policies: list[ast.Policy] = []
        body = Members()
        while self.token.kind is not T.END:
            self._depth = 0
            since = self._at
            try:
                if self.at_word(*POLICY_WORDS):
                    if len(policies) >= MAX_POLICIES:
                        self.report("ER0402", self.token.span, too_many_policies("file"), help="leave some out")
                        break
                    policies.append(self._policy())
                elif self.at_word(*_FILE_WORDS):
                    self._file_member(body)
                elif not self.accept(";"):
                    raise self._stray()
            except Panic:
                if self._at == since:
                    self.advance()
                self._skip_to_member()
        return ast.File(
            tuple(policies),
            tuple(body.declarations),
            tuple(body.macros),
            tuple(body.additions),
            tuple(body.outside),
        )

    def _file_member(self, body: Members) -> None:
        word = self.token
        match word.text:
            case "let" | "list":
                body.declare(self.declaration())
            case "macro":
                body.macros.append(self.macro())
            case "exception":
                body.outside.append(self._exception())
            case "language":
                self._language(body)
            case _:
                self.advance()
                if self.token.kind is T.STRING:
                    self.advance()
                self.unsupported(word.span.to(self.previous.span), f"`{word.text}`")

    def _language(self, body: Members) -> None:
        """ "language" NUM"""
        word = self.advance()
        number = self.number(T.NUMBER, "a number after `language`", f"this version knows language {LANGUAGE}")
        span = word.span.to(number.span)
        if body.language is not None:
            self.twice(span, "`language`", body.language)
        elif number.value != LANGUAGE:
            message = f"this version doesn't know language {number.value}"
            self.report("ER0116", span, message, help=f"it knows language {LANGUAGE}")
        body.language = body.language or span

    def _exception(self) -> ast.Outside:
        """topexc = "exception" "for" STR [ STR ] [ "until" STR ] "{" conds "}" ;"""
        word = self.advance()
        example = 'for example exception for "credential_*" "why" until "2027-03-01" { ... }'
        if not self.accept_word("for"):
            raise self.fail("`for` after `exception`", help=example)
        glob = self._text("the policies' names in quotes", example)
        reason = self._text("", "") if self.token.kind is T.STRING else None
        until = self._text("a date in quotes after `until`", example) if self.accept_word("until") else None
        span = word.span.to(self.previous.span)
        condition = self.conditions(self.expect("{", "with the conditions of the exception"))
        return ast.Outside(span, glob, reason, until, condition)

    def _text(self, expected: str, help: str) -> ast.Text:
        if self.token.kind is not T.STRING:
            raise self.fail(expected, help=help)
        token = self.advance()
        return ast.Text(token.span, token.text, token.verbatim)

    def _stray(self) -> Panic:
        token = self.token
        help_text = 'a file holds policies, path "name" { ... }, and lists, list NAME = [...]'
        if self.at("}"):
            self.report("ER0103", token.span, "this `}` closes nothing", help="remove it")
        else:
            self.report("ER0103", token.span, f"{describe(token)} stands outside of a policy", help=help_text)
        return Panic()

    def _skip_to_member(self) -> None:
        """Skips to what begins a policy or a declaration at the start of a line, or the end."""
        while self.token.kind is not T.END:
            token, after = self.token, self.ahead()
            if token.newline and token.kind is T.NAME:
                if token.text in POLICY_WORDS and (after.kind is T.STRING or self.ahead(2).text == "{"):
                    return
                if token.text in ("list", "let", "macro") and after.kind is T.NAME and self.ahead(2).text in _FOLLOWS:
                    return
                if token.text == "exception" and after.text == "for":
                    return
            self.advance()

    # ---- policy

    def _policy(self) -> ast.Policy:
        """policy = ( "path" | "policy" ) STR { option } "{" { member } "}" ;"""
        word = self.advance()
        self.broken = self.incomplete = False
        if self.token.kind is not T.STRING:
            raise self.fail("the policy's name in quotes", help='for example path "credential_theft" {', code="ER0104")
        name = self._text("", "")
        body = Members()
        while self.at_word(*OPTIONS):
            body.add_option(self, self.option())
        if not self.at("{"):
            options = "key, within, response, max_partials, mode and throttle"
            raise self.fail("`{` or an option after the policy's name", help=f"options are {options}", code="ER0106")
        opening = self.advance()
        self.members(body, opening, whole_policy=True)
        span = word.span.to(self.previous.span)
        return ast.Policy(
            span,
            name,
            tuple(body.options),
            tuple(body.meta),
            tuple(body.declarations),
            ast.Body(span, tuple(body.statements), tuple(body.handlers), tuple(body.untils)),
            self.broken,
            self.incomplete,
            tuple(body.macros),
            tuple(body.exceptions),
            tuple(body.additions),
        )


def too_many_policies(where: str) -> str:
    """Returns what is said of more than MAX_POLICIES."""
    return f"more than {MAX_POLICIES} policies in one {where}"


def parse(tokens: list[Token], sink: Sink) -> ast.File:
    """Returns the tree of a file; mistakes go to the sink."""
    return Parser(tokens, sink).file()
