"""Text to tokens. Tokens and the gaps between them (white space, comments) tile the source."""

from __future__ import annotations

import re

from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.source import Span
from policyd.compiler.tokens import DURATION_NS, MALFORMED, SIZE_BYTES, T, Token

# In order: gaps, strings, names, numbers, punctuation. Every alternative is linear in what it consumes; the possessive
# quantifiers keep the matcher from remembering each step of a file full of comments or escapes.
_TOKEN = re.compile(
    r"""
      (?P<gap>(?:[\s\ufeff]+|//[^\n]*|\#[^\n]*|/\*.*?\*/)++)
    | (?P<triple>\"\"\"(?P<triple_body>.*?)\"\"\")
    | (?P<raw>r\"(?P<raw_body>[^"]*)\")
    | (?P<string>"(?P<body>[^"\\]*+(?:\\.[^"\\]*+)*+)")
    | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
    | (?P<address>\d+\.\d+\.\d+\.\d+(?:/\d+)?)
    | (?P<number>\d\w*(?:\.\d\w*)?)
    | (?P<punctuation>\.{1,3}|==|=~|!=|!~|<=|>=|&&|\|\||\+=|[{}()\[\]=<>!,;:?|$-])
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
# Strings are matched too, so that a comment sign in one of them is left alone.
_COMMENTS = re.compile(
    r'''"""(?:.*?)"""|r"[^"]*"|"[^"\\]*+(?:\\.[^"\\]*+)*+"|\s*(?://[^\n]*|\#[^\n]*|/\*.*?\*/)\s*''', re.DOTALL
)
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]+|0o[0-7]+|\d+)\Z", re.ASCII)
_WITH_UNIT = re.compile(r"(\d+)([A-Za-z]+)\Z", re.ASCII)
_UNIT = re.compile(r"[A-Za-z]+\Z", re.ASCII)
_UNEXPECTED = re.compile(r"[^“”„‟«»″‘’‚‛`'\s\w\"{}()\[\]=<>!,;:?|$.\-#]+|.", re.DOTALL | re.ASCII)
# What the rest of a line with an unterminated string probably holds behind that string.
_CLOSERS = re.compile(r"[\s})\]]*\Z")
_CODE_IN_STRING = re.compile(r"[{}]|[\w\]] *=")
_MAX_NUMBER = (1 << 64) - 1
_MAX_DIGITS = 40
_MAX_UNTERMINATED = 20
_OTHER_QUOTES = "“”„‟«»″‘’‚‛`'"
_OTHER_QUOTED = re.compile(rf'[{_OTHER_QUOTES}]([^\n"{_OTHER_QUOTES}]*)[{_OTHER_QUOTES}]')
_HELP = {"&": "use `and`, `&&`, or `has` for a bit test", "/": "comments begin with // or #"}


class Lexer:
    """Scans one file. Every mistake is reported to the sink, and the scan goes on behind it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._text = sink.source.text
        self._tokens: list[Token] = []
        self._unterminated = 0
        self._unexpected_until = 0  # end of the line whose first unexpected character was reported
        self._resumed_at = 0  # tokens before this index are settled: a later unterminated string isn't blamed on them

    def scan(self) -> list[Token]:
        """Returns the tokens of the whole file, the last of kind END."""
        text, match, tokens = self._text, _TOKEN.match, self._tokens
        at, size = 0, len(text)
        newline, gap_end = True, -1
        while at < size:
            found = match(text, at)
            if found is None:
                at = self._mend(at, newline, gap_end != at)
                newline = bool(tokens) and self._text.find("\n", tokens[-1].end, at) >= 0
                continue
            kind, end = found.lastgroup, found.end()
            if kind == "gap":
                newline = newline or "\n" in found.group()
                gap_end = end
            elif kind in ("name", "punctuation"):
                # Nine tokens of ten, so they are made here rather than in a call.
                name_or_sign = T.NAME if kind == "name" else T.PUNCTUATION
                tokens.append(Token(name_or_sign, at, end, found.group(), newline, gap_end != at))
                newline = False
            else:
                tokens.append(self._token(kind, found, newline, gap_end != at))
                newline = False
            at = end
        tokens.append(Token(T.END, size, size, "", newline, False))
        return tokens

    def _token(self, kind: str | None, found: re.Match[str], newline: bool, touches: bool) -> Token:
        start, end = found.span()
        match kind:
            case "string":
                return Token(T.STRING, start, end, found.group("body"), newline, touches)
            case "raw" | "triple":
                return Token(T.STRING, start, end, found.group(f"{kind}_body"), newline, touches, verbatim=True)
            case "address":
                return Token(T.ADDRESS, start, end, found.group(), newline, touches)
            case _:
                token_kind, value = self._number(Span(start, end), found.group())
                return Token(token_kind, start, end, found.group(), newline, touches, value)

    def _number(self, span: Span, text: str) -> tuple[T, int]:
        """Returns kind and value of a number, duration or size; reports a malformed one."""
        unit = _WITH_UNIT.match(text)
        kind, digits, factor = T.NUMBER, text, 1
        if unit and unit[2] in DURATION_NS:
            kind, digits, factor = T.DURATION, unit[1], DURATION_NS[unit[2]]
        elif unit and unit[2] in SIZE_BYTES:
            kind, digits, factor = T.SIZE, unit[1], SIZE_BYTES[unit[2]]
        if not _NUMBER.match(digits):
            self._malformed(span, text)
            meant = _UNIT.search(text)
            return (T.DURATION if meant and meant[0] in DURATION_NS else kind), MALFORMED
        if len(digits) > 1 and digits.isdecimal() and digits[0] == "0":
            self._leading_zero(span, digits)
            return kind, MALFORMED
        value = int(digits, 0) * factor if len(digits) <= _MAX_DIGITS else _MAX_NUMBER + 1
        if value > _MAX_NUMBER:
            self._sink.report(
                "ER0008", span, f"the number {quote(text)} is too large", help="numbers have at most 64 bits"
            )
            return kind, MALFORMED
        return kind, value

    def _malformed(self, span: Span, text: str) -> None:
        if "." in text:
            help_text = "numbers are whole; write 1500ms rather than 1.5s"
        elif text[:2] == "0b":
            help_text = "numbers are decimal, 0x.. or 0o.."
        elif text[0] == "0" and text[1:2] in "xXoO":
            help_text = "hexadecimal digits follow 0x, and digits 0 to 7 follow 0o"
        else:
            help_text = "units of time are ns us ms s m h d, and of size KiB MiB GiB"
        self._sink.report("ER0007", span, f"{quote(text)} is not a number", help=help_text)

    def _leading_zero(self, span: Span, digits: str) -> None:
        bare = digits.lstrip("0") or "0"
        octal = set(bare) <= set("01234567")
        help_text = f"write 0o{bare} for octal, or {bare} for decimal" if octal else f"write {bare}"
        self._sink.report(
            "ER0006", span, f"the number {quote(digits)} begins with a zero", help=help_text, label="octal or decimal?"
        )

    def _mend(self, at: int, newline: bool, touches: bool) -> int:
        """Reports what can't be a token at `at`; returns where to go on."""
        text = self._text
        if text.startswith("/*", at):
            self._sink.report(
                "ER0005", Span(at, at + 2), "this comment is never closed", help="close it with */; comments don't nest"
            )
            return len(text)
        if text[at] == '"' or text.startswith('r"', at):
            return self._unterminated_string(at, newline, touches)
        if text[at] in _OTHER_QUOTES:
            return self._other_quotes(at, newline, touches)
        found = _UNEXPECTED.match(text, at)
        end = found.end() if found else at + 1
        help_text = _HELP.get(text[at:end], "remove it, or put it in quotes if it belongs to a text")
        self._unexpected(Span(at, end), help_text)
        return end

    def _unexpected(self, span: Span, help: str) -> None:
        """Reports the first unexpected character of a line; the others are probably of the same kind."""
        if span.start < self._unexpected_until:
            return
        text = self._text
        line_end = text.find("\n", span.start)
        self._unexpected_until = len(text) if line_end < 0 else line_end
        bad = text[span.start : span.end]
        self._sink.report("ER0003", span, f"unexpected {'backtick' if '`' in bad else quote(bad)}", help=help)

    def _other_quotes(self, at: int, newline: bool, touches: bool) -> int:
        """Takes what stands between quotes of another kind for the text that was meant."""
        self._unexpected(Span(at, at + 1), 'text stands between straight double quotes: "text"')
        closing = _OTHER_QUOTED.match(self._text, at)
        if closing is None:
            return at + 1
        self._tokens.append(Token(T.STRING, at, closing.end(), closing[1], newline, touches))
        return closing.end()

    def _unterminated_string(self, at: int, newline: bool, touches: bool) -> int:
        """Blames the likeliest opening quote, puts a token for the string there, and goes on at its next line.

        Strings may span lines, so a missing quote is noticed only at the end of the file, when the quotes come out odd.
        The first string since then that swallowed what looks like policy text is taken for the one left open.
        """
        self._unterminated += 1
        culprit = self._swallower()
        if culprit is not None:
            token = self._tokens[culprit]
            del self._tokens[culprit:]
            at, newline, touches = token.start, token.newline, token.touches
            self._sink.forget_from(at)
            self._unexpected_until = 0
        text = self._text
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        closers = _CLOSERS.search(text, at + 1, line_end)
        end = max(closers.start() if closers else line_end, at + 1)
        self._sink.report(
            "ER0004", Span(at, at + 1), "this text has no closing quote", help='close it with "; a quote inside is \\"'
        )
        self._tokens.append(Token(T.STRING, at, end, text[at + 1 : end], newline, touches))
        self._resumed_at = len(self._tokens)
        return end if self._unterminated < _MAX_UNTERMINATED else len(text)

    def _swallower(self) -> int | None:
        strings = [
            index
            for index in range(self._resumed_at, len(self._tokens))
            if self._tokens[index].kind is T.STRING
            and not self._tokens[index].verbatim
            and "\n" in self._tokens[index].text
        ]
        return next((index for index in strings if _CODE_IN_STRING.search(self._tokens[index].text)), None)


def tokenize(sink: Sink) -> list[Token]:
    """Returns the tokens of the sink's source, the last of kind END; mistakes go to the sink."""
    return Lexer(sink).scan()


def strip_comments(text: str) -> str:
    """Returns a piece of source with every comment, and the space around it, replaced by one space."""
    return _COMMENTS.sub(lambda found: found[0] if found[0][0] in '"r' else " ", text)
