"""Parses what stands in a policy beside its steps: options, meta, declarations, handlers."""

from __future__ import annotations

from policyd.compiler import ast
from policyd.compiler.conditions import ConditionParser
from policyd.compiler.cursor import Panic
from policyd.compiler.diagnostics import Label, quote
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

OPTIONS = frozenset(("key", "within", "response", "max_partials", "mode", "throttle"))
_KEYS = ("process", "tree")
_LATER_ACTIONS = frozenset(("deny", "suspend", "resume", "quarantine", "hash", "run", "set", "mark", "unmark"))
_ACTIONS_HELP = "actions are alert, log, kill, capture and notify"


class MemberParser(ConditionParser):
    """The grammar's option, meta, decl and handler."""

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

    # ---- options

    def option(self) -> ast.Option | None:
        """option = "key" keys | "within" DUR | "response" ( "audit" | "enforce" ) | "max_partials" NUM
        | "mode" ( "latest" | "first" | "all" NUM ) | "throttle" NUM "per" DUR [ "by" keys ] ;

        None where the option is not supported yet, which is reported.
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
                return self._key(word)

    def _choice(self, word: Token, choices: tuple[str, ...]) -> ast.Option:
        expected = " or ".join(f"`{choice}`" for choice in choices)
        value = self.word(f"{expected} after `{word.text}`")
        if value.text not in choices:
            self.report(
                "ER0112", value.span, f"{quote(value.text)} is not a {word.text}", help=f"{word.text} is {expected}"
            )
        return ast.Option(word.span.to(value.span), word.text, value)

    def _mode(self, word: Token) -> ast.Option | None:
        if self.at_word("first", "all"):
            mode = self.advance()
            end = self.advance() if mode.text == "all" and self.token.kind is T.NUMBER else mode
            self.unsupported(word.span.to(end.span), f"`mode {mode.text}`", "`mode latest` is the default")
            return None
        return self._choice(word, ("latest",))

    def _throttle(self, word: Token) -> ast.Option:
        number = self.number(T.NUMBER, "a number after `throttle`", "for example throttle 1 per 5m")
        if not self.accept_word("per"):
            raise self.fail("`per` and a duration", help="for example throttle 1 per 5m")
        duration = self.duration("per")
        if self.at_word("by"):
            by = self.advance()
            self.unsupported(by.span.to(self.keys()), "`throttle ... by`", "alerts are limited per process image")
        return ast.Option(word.span.to(duration.span), word.text, number=number, duration=duration)

    def _key(self, word: Token) -> ast.Option | None:
        token = self.token
        if self.at_word(*_KEYS) and self.ahead().text != ",":
            self.advance()
            return ast.Option(word.span.to(token.span), word.text, ast.Ident(token.span, token.text))
        span = word.span.to(self.keys())
        what = quote(self._sink.source.snippet(span))
        self.unsupported(span, what, "write `key process` (the default) or `key tree`")
        return None

    def keys(self) -> Span:
        """keys = key { "," key } ; key = operand | "(" keys ")" ; returns where they stand: no key of this form runs yet"""
        start = self.token.span
        while True:
            if self.at("("):
                self.skip_balanced()
            else:
                self._operand("a key")
            if not self.accept(","):
                return start.to(self.previous.span)

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

    def declaration(self) -> ast.Declaration | None:
        """decl = "let" ID "=" value | "list" ID ( "=" | "+=" ) list | "macro" ID [ "(" ... ")" ] "=" expr ;

        None where it is not supported yet, which is reported.
        """
        word = self.advance()
        name = self.plain_word(f"a name after `{word.text}`")
        if self.at("+="):
            plus = self.advance()
            if self.at("["):
                self.list_of()
            self.unsupported(word.span.to(plus.span), "adding to a list with `+=`", "write the whole list with `=`")
            return None
        self.expect("=", f"after `{word.text} {name.text}`")
        if word.text == "list" and not self.at("["):
            raise self.fail("a list in brackets", help='for example list SHELLS = ["sh", "bash"]')
        value = self.list_of() if self.at("[") else self._operand("a value")
        if isinstance(value, (ast.Call, ast.Name)):
            self.report("ER0105", value.span, "a declared value is a text, a number, a duration or a list")
        return ast.Declaration(word.span.to(value.span), name, value)

    def macro(self) -> str:
        """macro ID [ "(" [ ID { "," ID } ] ")" ] "=" expr ; returns its name: no macro runs yet"""
        word = self.advance()
        name = self.plain_word("a name after `macro`")
        if self.at("("):
            self.skip_balanced()
        self.expect("=", f"after `macro {name.text}`")
        self.expr()
        self.unsupported(word.span.to(name.span), "`macro`", "write the condition out where it is used")
        return name.text

    # ---- handlers

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

    def twice(self, span: Span, what: str, first: Span) -> None:
        """Reports something that may be given only once."""
        self.report(
            "ER0109",
            span,
            f"{what} is given twice",
            labels=(Label(first, "first given here"),),
            help="keep one of them",
        )
