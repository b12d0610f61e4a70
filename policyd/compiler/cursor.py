"""A place among the tokens, and how the parser moves on, complains and recovers."""

from __future__ import annotations

from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.source import Span
from policyd.compiler.tokens import T, Token

#: Parentheses, blocks, conditionals and lists may stand in each other this deep.
MAX_NESTING = 64

_OPENERS = {"{": "}", "(": ")", "[": "]"}
_CLOSERS = frozenset("})]")


class Panic(Exception):
    """What stands here makes no sense and was reported: unwind to a place where reading can go on."""


class Cursor:
    """Reads tokens from left to right. Never runs past the END token."""

    def __init__(self, tokens: list[Token], sink: Sink) -> None:
        self._tokens = tokens
        self._at = 0
        self._sink = sink
        self._depth = 0
        self.broken = False  # a syntax error was met since this was last cleared
        self.incomplete = False  # something not supported yet was met since this was last cleared

    # ---- looking and taking

    @property
    def token(self) -> Token:
        """The token at hand."""
        return self._tokens[self._at]

    @property
    def previous(self) -> Token:
        """The token before; at the very beginning, the first."""
        return self._tokens[max(self._at - 1, 0)]

    def ahead(self, count: int = 1) -> Token:
        """Returns a token further on, or the END token."""
        return self._tokens[min(self._at + count, len(self._tokens) - 1)]

    def advance(self) -> Token:
        """Takes the token at hand; END is never passed."""
        token = self._tokens[self._at]
        if token.kind is not T.END:
            self._at += 1
        return token

    def at(self, *texts: str) -> bool:
        """Whether punctuation with one of these texts is at hand."""
        token = self._tokens[self._at]
        return token.kind is T.PUNCTUATION and token.text in texts

    def at_word(self, *words: str) -> bool:
        """Whether one of these words is at hand."""
        token = self._tokens[self._at]
        return token.kind is T.NAME and token.text in words

    def accept(self, *texts: str) -> Token | None:
        """Takes punctuation if it is at hand."""
        token = self._tokens[self._at]
        if token.kind is T.PUNCTUATION and token.text in texts:
            self._at += 1
            return token
        return None

    def accept_word(self, *words: str) -> Token | None:
        """Takes a word if it is at hand."""
        return self.advance() if self.at_word(*words) else None

    def expect(self, text: str, context: str, help: str = "") -> Token:
        """Takes punctuation, or reports that it is missing and raises Panic."""
        if self.at(text):
            return self.advance()
        raise self.fail(f"`{text}` {context}", help=help)

    # ---- complaining

    def fail(self, expected: str, *, help: str = "", code: str = "ER0101") -> Panic:
        """Reports that `expected` doesn't stand at the token at hand; returns the Panic to raise."""
        token = self.token
        self.report(code, token.span, f"expected {expected}, found {describe(token)}", help=help)
        return Panic()

    def report(
        self, code: str, span: Span, message: str, *, help: str = "", label: str = "", labels: tuple[Label, ...] = ()
    ) -> None:
        """Reports a syntax error."""
        self.broken = True
        self._sink.report(code, span, message, help=help, label=label, labels=labels)

    def unsupported(self, span: Span, what: str, help: str = "") -> None:
        """Reports something of the language that this version doesn't run."""
        self.incomplete = True
        self._sink.report("ER0110", span, f"{what} is not supported yet", help=help or "leave it out for now")

    def deeper(self, span: Span) -> None:
        """Counts one level of nesting; reports too many and raises Panic. Undone by shallower()."""
        if self._depth >= MAX_NESTING:
            self.report(
                "ER0108",
                span,
                f"nested deeper than {MAX_NESTING} levels",
                help="split the policy, or flatten this part",
            )
            raise Panic
        self._depth += 1

    def shallower(self) -> None:
        """Leaves a level of nesting."""
        self._depth -= 1

    # ---- recovering

    def skip_balanced(self) -> Span:
        """Takes an opening bracket and everything to the one that closes it; returns the span of it all."""
        first = self.advance()
        closers = [_OPENERS[first.text]]
        while closers and self.token.kind is not T.END:
            token = self.advance()
            if token.kind is T.PUNCTUATION:
                if token.text in _OPENERS:
                    closers.append(_OPENERS[token.text])
                elif token.text == closers[-1]:
                    closers.pop()
                elif token.text in _CLOSERS and token.text in closers:
                    while closers.pop() != token.text:
                        pass
        return Span(first.start, self.previous.end)

    def skip_line(self, since: int, separators: str = ",;") -> None:
        """Skips to the next line, separator or closing brace, over whole bracketed parts.

        since: the index of the token where the part that makes no sense begins. Where reading it got as far as the next
        line, that line is not skipped.
        """
        while self.token.kind is not T.END:
            if self.at("}") or (self.token.newline and self._at > since):
                return
            if self.at(*_OPENERS):
                self.skip_balanced()
            elif self.token.kind is T.PUNCTUATION and self.token.text in separators:
                self.advance()
                return
            else:
                self.advance()


def describe(token: Token) -> str:
    """Returns a token in words for a message."""
    match token.kind:
        case T.END:
            return "the end of the file"
        case T.STRING:
            return f"the text {quote(token.text)}"
        case T.NAME | T.PUNCTUATION:
            return quote(token.text)
        case _:
            return f"the {token.kind.value} {quote(token.text)}"
