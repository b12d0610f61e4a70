"""Parses handlers: `on match` and `on step`, and their actions."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import quote
from policyd.compiler.members import MemberParser
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

_LATER_ACTIONS = frozenset(("deny", "suspend", "resume", "quarantine", "hash", "run", "set", "mark", "unmark"))
_ACTIONS_HELP = "actions are alert, log, kill, capture and notify"


class HandlerParser(MemberParser):
    """The grammar's handler and action."""

    def handler(self) -> ast.Handler:
        """handler = "on" ( "match" | "step" ID ) [ "if" expr ] "{" { action ( ";" | NEWLINE ) } "}" ;"""
        word = self.advance()
        step = None
        if self.accept_word("step"):
            step = self.plain_word("the alias of a step after `on step`")
        elif not self.accept_word("match"):
            raise self.fail("`match` or `step` after `on`", help="write `on match { ... }` or `on step ALIAS { ... }`")
        condition = self.expr() if self.accept_word("if") else None
        opening = self.expect("{", "with the actions", help="for example on match { alert }")
        actions = self._actions(opening)
        return ast.Handler(word.span.to(self.previous.span), step, condition, tuple(actions))

    def _actions(self, opening: Token) -> list[ast.Action]:
        actions: list[ast.Action] = []
        depth = self._depth
        while not self.accept("}"):
            if self.token.kind is T.END:
                self.report("ER0102", opening.span, "this brace is never closed", help="close the handler with `}`")
                break
            since = self._at
            try:
                if self.accept(";"):
                    continue
                action = self._action()
                if action is not None:
                    actions.append(action)
                if not self.at("}", ";") and not self.token.newline:
                    raise self.fail("`;` or a line break after the action")
            except Panic:
                self._depth = depth
                self.skip_line(since, ";")
        return actions

    def _action(self) -> ast.Action | None:
        """action = "alert" [ ID ] | "log" | "kill" [ "actor" ] | "capture" [ "net" ] { "for" DUR | "max" SIZE }
        | "notify" STR [ "with" arguments ] ;

        The other actions of the language are taken and reported as not supported yet.
        """
        token = self.token
        name = self.word("an action", _ACTIONS_HELP)
        if name.text in _LATER_ACTIONS:
            self._skip_arguments()
            self.unsupported(token.span, f"the action `{name.text}`", _ACTIONS_HELP)
            return None
        match name.text:
            case "alert":
                severity = self.word("a severity") if self._has_argument() else None
                return ast.Action(self._since(token), name.text, severity)
            case "kill" | "capture" | "notify":
                return {"kill": self._kill, "capture": self._capture, "notify": self._notify}[name.text](token)
            case "log":
                return ast.Action(name.span, name.text)
        self.report("ER0111", name.span, f"unknown action {quote(name.text)}", help=_ACTIONS_HELP)
        self._skip_arguments()
        return None

    def _has_argument(self) -> bool:
        return self.token.kind is not T.END and not self.token.newline and not self.at(";", "}")

    def _since(self, first: Token) -> Span:
        return first.span.to(self.previous.span)

    def _skip_arguments(self) -> None:
        while self._has_argument():
            if self.at("{", "(", "["):
                self.skip_balanced()
            else:
                self.advance()

    def _kill(self, token: Token) -> ast.Action | None:
        if not self._has_argument() or self.accept_word("actor"):
            return ast.Action(self._since(token), "kill")
        target = self.word("`actor`")
        self.unsupported(
            self._since(token), f"`kill {target.text}`", "`kill` ends the process behind the event at hand"
        )
        return None

    def _capture(self, token: Token) -> ast.Action | None:
        if self.at_word("file", "stack", "env") and self._has_argument():
            what = self.token.text
            self._skip_arguments()
            self.unsupported(self._since(token), f"`capture {what}`", "`capture` records network traffic")
            return None
        self.accept_word("net")
        duration = size = None
        while self._has_argument():
            if self.accept_word("for"):
                self._once(duration, "for")
                duration = self.duration("for")
            elif self.accept_word("max"):
                self._once(size, "max")
                size = self.number(T.SIZE, "a size after `max`", "for example 4MiB")
            else:
                raise self.fail("`for` or `max`", help="for example capture net for 10s max 4MiB")
        return ast.Action(self._since(token), "capture", None, duration, size)

    def _notify(self, token: Token) -> ast.Action:
        if self.token.kind is not T.STRING or self.token.newline:
            raise self.fail("the name of an action plug-in in quotes", help='for example notify "pager"')
        name = self.advance()
        arguments = self._arguments() if self.accept_word("with") else []
        plugin = ast.Text(name.span, name.text, name.verbatim)
        return ast.Action(self._since(token), "notify", plugin=plugin, arguments=tuple(arguments))

    def _arguments(self) -> list[ast.Argument]:
        """arguments = "{" { ID "=" operand [ "," | ";" ] } "}" ;"""
        opening = self.expect("{", "with the arguments after `with`", help="for example with { path = path }")
        arguments: list[ast.Argument] = []
        depth = self._depth
        while not self.accept("}"):
            if self.token.kind is T.END:
                self.report("ER0102", opening.span, "this brace is never closed", help="close the arguments with `}`")
                break
            since = self._at
            try:
                arguments.append(self._argument(arguments))
                self.accept(",", ";")
            except Panic:
                self._depth = depth
                self.skip_line(since)
        return arguments

    def _argument(self, before: list[ast.Argument]) -> ast.Argument:
        key = self.plain_word("the name of an argument", "for example with { path = path }")
        self.expect("=", f"after `{key.text}`", help="an argument reads: name = value")
        value = self.list_of() if self.at("[") else self._operand(f"a value for `{key.text}`")
        earlier = next((argument.key for argument in before if argument.key.text == key.text), None)
        if earlier is not None:
            self.twice(key.span, quote(key.text), earlier.span)
        return ast.Argument(key, value)

    def _once(self, earlier: ast.Number | None, word: str) -> None:
        if earlier is not None:
            self.twice(self.previous.span, f"`{word}`", earlier.span)
