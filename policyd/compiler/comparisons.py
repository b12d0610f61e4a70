"""Checks one comparison against the catalogue and turns it into the tests that the engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from execray.schema.kinds import Kind
from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.diagnostics import Level, quote
from policyd.compiler.lefts import LeftChecker
from policyd.compiler.macros import ExpansionSink
from policyd.compiler.names import near
from policyd.compiler.scope import Declared
from policyd.compiler.source import Span
from policyd.compiler.texts import WILDCARDS, basename_patterns, patterns_of, refused
from policyd.compiler.values import Left, ValueChecker, kind_words
from policyd.program import And, Constant, Expr, FieldRef, Not, Op, Or, Test

_ORDER = {"<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE}
_TEXT_OPS = {"contains": Op.CONTAINS, "startswith": Op.STARTSWITH, "endswith": Op.ENDSWITH}
_BITS = {"has": Op.HAS, "hasany": Op.HASANY}
_IGNORING_CASE = {
    "ieq": "=",
    "iin": "in",
    "icontains": "contains",
    "istartswith": "startswith",
    "iendswith": "endswith",
    "ilike": "like",
}
_QUANTIFIABLE = frozenset((*_TEXT_OPS, *WILDCARDS, "in", "="))
_ACCEPTS_LIST = frozenset((*_TEXT_OPS, *WILDCARDS, "in", "=", "!=", "=~", "!~"))
#: Every operator of the language, as it is written.
OPERATORS = frozenset((*_ORDER, *_TEXT_OPS, *WILDCARDS, *_BITS, *_IGNORING_CASE, "=", "!=", "=~", "!~", "in", "exists"))
_ON_TEXT = frozenset((*_TEXT_OPS, *WILDCARDS, "=~", "!~"))
_WHOLE = frozenset(("=", "!=", "in"))
_COMM_BYTES = 15
_MAX_TEXT = 200
_PATTERN_WORK = 10


@record
class _Right:
    """The right side: what was written, one by one, and the checker of the place where it was."""

    home: ValueChecker
    items: Sequence[ast.Operand]
    listed: bool = False  # in brackets, or a declared list
    declared: Declared | None = None


@record
class _Comparison:
    """One comparison in hand. op is the operator without its case folding."""

    node: ast.Compare
    op: str
    left: Left
    ignore_case: bool
    text: str


class ComparisonChecker(LeftChecker):
    """Types comparisons: field, operator, value. What returns None has reported why."""

    def text_of(self, span: Span) -> str:
        """Returns source on one line, cut to what a test or step may carry."""
        # Cut first: a list of a whole file's length must not be copied for each of its elements.
        text = self.sink.source.text[span.start : min(span.end, span.start + 4 * _MAX_TEXT)]
        if "\n" in text or "\t" in text:
            text = " ".join(text.split())
        if isinstance(self.sink, ExpansionSink):
            text = f"{self.sink.use_text} {text}"
        return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."

    def compare(self, node: ast.Compare) -> Expr | None:
        """Returns the tests that a comparison means."""
        left = self.left(node.left)
        if left is None:
            return None
        op, ignore_case = _IGNORING_CASE.get(node.op, node.op), node.op in _IGNORING_CASE
        this = _Comparison(node, op, left, ignore_case, self.text_of(node.span))
        if op == "exists":
            typed: Expr | None = Test(left.ref, Op.EXISTS, text=this.text)
        elif not self._fits(this):
            return None
        else:
            typed = self._dispatch(this)
        if typed is None:
            return None
        return Not(typed) if node.negated or op == "!~" else typed

    def _dispatch(self, this: _Comparison) -> Expr | None:
        node = this.node
        assert node.right is not None
        right = self._right(node.right)
        if right.listed and not self._list_fits(this, right.items):
            return None
        if node.quantifier == "all" and len(right.items) > 1:
            # Each by itself: on a list field every one may hold for another element.
            typed = [self._one(this, _Right(right.home, (item,), True)) for item in right.items]
            good = [item for item in typed if item is not None]
            return And(tuple(good)) if len(good) == len(typed) else None
        return self._one(this, right)

    def _right(self, node: ast.Operand) -> _Right:
        home, written = self.home(node)
        resolved = home.declared(written)
        if not isinstance(resolved, ast.ListOf):
            return _Right(home, (written,))
        named = home.names.scope.declared.get(written.text) if isinstance(written, ast.Name) else None
        return _Right(home, resolved.items, True, named)

    def _one(self, this: _Comparison, right: _Right) -> Expr | None:
        op = this.op
        if op in ("=~", "!~"):
            return self._patterns(this, right)
        if op in WILDCARDS or this.left.basename:
            return self._wildcards(this, right)
        if op in _TEXT_OPS:
            return self._any_of(this, _TEXT_OPS[op], right)
        if op in _BITS or op in _ORDER:
            return self._single(this, _BITS.get(op) or _ORDER[op], right)
        return self._equality(this, right)

    # Which kinds of field an operator takes; equality and `in` take all.
    def _fits(self, this: _Comparison) -> bool:
        node, op, info = this.node, this.op, this.left.info
        if node.quantifier and op not in _QUANTIFIABLE:
            help_text = "`has` tests that all bits are set, `hasany` that some are" if op in _BITS else "leave it out"
            self.sink.report("ER0301", node.op_span, f"`{node.op} {node.quantifier}` makes no sense", help=help_text)
            return False
        help_text = ""
        if op in _ORDER and (not info.kind.is_number or info.kind is Kind.BITS):
            help_text = "only numbers and durations have an order"
        elif not info.is_text and (op in _ON_TEXT or node.op in _IGNORING_CASE):
            help_text = "it works on text"
        elif op in _BITS and info.kind is not Kind.BITS:
            help_text = "it tests bits, for example flags has O_CREAT"
        elif this.left.basename and op in ("=~", "!~"):
            what = f"`{node.op}` on `basename(...)` is not supported yet"
            self.sink.report("ER0110", node.op_span, what, help="test the path itself with `=~`")
            return False
        if not help_text:
            return True
        message = f"`{node.op}` does not work on {quote(info.name)}, which holds {kind_words(info.kind)}"
        self.sink.report("ER0301", node.op_span, message, help=help_text)
        return False

    def _list_fits(self, this: _Comparison, items: Sequence[ast.Operand]) -> bool:
        node = this.node
        assert node.right is not None
        if not items:
            self.sink.report("ER0311", node.right.span, "this list is empty", help="put at least one element into it")
            return False
        if this.op not in _ACCEPTS_LIST:
            self.sink.report("ER0301", node.right.span, f"`{node.op}` does not take a list", help="give one value")
            return False
        return True

    # ---- values

    def _values(self, this: _Comparison, right: _Right) -> tuple[list[Constant], list[FieldRef]] | None:
        """The constants and the fields on the right, or None where one of them was reported."""
        if not self._affordable(this, right, 1):
            return None
        values = [right.home.value(item, this.left) for item in right.items]
        good = [value for value in values if value is not None]
        if len(good) < len(values):
            return None
        if this.op not in WILDCARDS and not self._fits_comm(this.left, right, good):
            return None
        if this.op in _WHOLE and this.left.info.words and not self._fits_words(this, right, good):
            return None
        return (
            [value for value in good if not isinstance(value, FieldRef)],
            [value for value in good if isinstance(value, FieldRef)],
        )

    def _affordable(self, this: _Comparison, right: _Right, weight: int) -> bool:
        """Whether the file may still ask for this. What is written out in the text itself grows only with the text."""
        repeated = right.declared is not None or bool(self.expanding)
        return not repeated or self.sink.spend(weight * len(right.items), this.node.span)

    def _fits_comm(self, left: Left, right: _Right, values: Sequence[Constant | FieldRef]) -> bool:
        if not _is_comm(left.info.name):
            return True
        good = True
        for node, value in zip(right.items, values, strict=True):
            if isinstance(value, bytes) and len(value) > _COMM_BYTES:
                good = False
                short = value[:_COMM_BYTES].decode("utf-8", "ignore")
                right.home.sink.report(
                    "ER0306",
                    node.span,
                    f"{quote(value)} is longer than a thread's name can be",
                    help=f'the kernel keeps 15 bytes: write "{short}", or test `name` or `exe`',
                )
        return good

    def _fits_words(self, this: _Comparison, right: _Right, values: Sequence[Constant | FieldRef]) -> bool:
        words, good = this.left.info.words, True
        for node, value in zip(right.items, values, strict=True):
            word = value.decode("utf-8", "replace") if isinstance(value, bytes) else words[0]
            if (word.lower() if this.ignore_case else word) in words:
                continue
            good = False
            close = near(word, words)
            right.home.sink.report(
                "ER0322",
                node.span,
                f"{quote(this.left.info.name)} is never {quote(word)}",
                help=f'did you mean "{close}"?' if close else f"it is one of {', '.join(words)}",
            )
        return good

    # ---- the groups of operators

    def _equality(self, this: _Comparison, right: _Right) -> Expr | None:
        if not right.listed and this.op != "in":
            return self._single(this, Op.NE if this.op == "!=" else Op.EQ, right)
        inside = self._element_of(this, right)
        if inside is None or this.op != "!=":
            return inside
        return And((Test(this.left.ref, Op.EXISTS, text=this.text), Not(inside)))

    def _element_of(self, this: _Comparison, right: _Right) -> Expr | None:
        if self._known(this, right) is None:
            ranges = [item for item in right.items if isinstance(item, ast.Range)]
            if ranges:
                singles = [item for item in right.items if not isinstance(item, ast.Range)]
                return self._with_ranges(this, replace(right, items=singles, declared=None), ranges)
        return self._any_of(this, Op.IN, right)

    def _any_of(self, this: _Comparison, op: Op, right: _Right) -> Expr | None:
        """One test for all constants, and one for each field."""
        left, text, fold = this.left.ref, this.text, this.ignore_case
        known = self._known(this, right)
        if known is not None:
            return Test(left, op, known, ignore_case=fold, text=text)
        values = self._values(this, right)
        if values is None:
            return None
        constants, fields = values
        tests: list[Expr] = []
        if constants:
            folded = tuple(dict.fromkeys(_fold(value, fold) for value in constants))
            if right.declared is not None and not fields:
                right.declared.typed[_key(this)] = folded
            tests.append(Test(left, op, folded, ignore_case=fold, text=text))
        one = Op.EQ if op is Op.IN else op
        tests += [Test(left, one, field, ignore_case=fold, text=text) for field in dict.fromkeys(fields)]
        return tests[0] if len(tests) == 1 else Or(tuple(tests))

    def _known(self, this: _Comparison, right: _Right) -> tuple[Constant, ...] | None:
        """What the list became before: one of thousands in thousands of policies is typed, and kept, once."""
        return None if right.declared is None else right.declared.typed.get(_key(this))

    def _single(self, this: _Comparison, op: Op, right: _Right) -> Test | None:
        values = self._values(this, right)
        if values is None:
            return None
        value = (*values[0], *values[1])[0]
        if not isinstance(value, int | bytes | FieldRef):
            message = f"`{this.node.op}` compares with one address, not with a network"
            self.sink.report("ER0301", this.node.op_span, message, help="use `in`")
            return None
        if op is Op.EQ and this.left.info.constants == "O_" and not isinstance(value, FieldRef):
            self._lint_exact_bits(this.node)
        folded = value if isinstance(value, FieldRef) else _fold(value, this.ignore_case)
        return Test(this.left.ref, op, folded, ignore_case=this.ignore_case, text=this.text)

    def _lint_exact_bits(self, node: ast.Compare) -> None:
        self.sink.report(
            "ER0503",
            node.span,
            "`=` compares all the bits: a call with one flag more does not match",
            level=Level.NOTE,
            help="use `has` to test that some bits are set, or `access` for reading and writing",
        )

    def _with_ranges(self, this: _Comparison, singles: _Right, ranges: Sequence[ast.Range]) -> Expr | None:
        left, text = this.left, this.text
        if left.info.kind not in (Kind.INT, Kind.DURATION):
            message, help_text = "a range stands only in a list of numbers", "list the values one by one"
            singles.home.sink.report("ER0301", ranges[0].span, message, help=help_text)
            return None
        parts: list[Expr] = []
        for item in ranges:
            first, last = singles.home.value(item.first, left), singles.home.value(item.last, left)
            if not isinstance(first, int) or not isinstance(last, int):
                return None
            if first > last:
                message, help_text = "this range is empty", "the smaller number comes first"
                singles.home.sink.report("ER0312", item.span, message, help=help_text)
                return None
            parts.append(And((Test(left.ref, Op.GE, first, text=text), Test(left.ref, Op.LE, last, text=text))))
        if singles.items:
            others = self._any_of(this, Op.IN, singles)
            if others is None:
                return None
            parts.append(others)
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    # ---- patterns

    def _wildcards(self, this: _Comparison, right: _Right) -> Expr | None:
        values = self._values(this, right)
        if values is None:
            return None
        constants, fields = values
        if fields:
            what = f"`{this.node.op}` takes a pattern" if this.op in WILDCARDS else "`basename(...)` compares with text"
            self.sink.report("ER0301", this.node.op_span, f"{what}, not a field", help="write a text in quotes")
            return None
        raws = [value for value in constants if isinstance(value, bytes)]
        make = WILDCARDS.get(this.op)
        patterns = basename_patterns(this.op, raws) if this.left.basename or not make else list(map(make, raws))
        return self._match(this, right, patterns)

    def _patterns(self, this: _Comparison, right: _Right) -> Expr | None:
        if not self._affordable(this, right, _PATTERN_WORK):
            return None
        return self._match(this, right, patterns_of(right.home, this.node, right.items))

    def _match(self, this: _Comparison, right: _Right, patterns: Sequence[bytes] | None) -> Expr | None:
        fold = this.ignore_case
        if patterns is None or refused(right.home.sink, zip(patterns, right.items, strict=True), fold):
            return None
        left, text = this.left.ref, this.text
        test = Test(left, Op.MATCH, tuple(dict.fromkeys(patterns)), ignore_case=fold, text=text)
        return And((Test(left, Op.EXISTS, text=text), Not(test))) if this.op == "!=" else test


def _key(this: _Comparison) -> tuple[object, ...]:
    """All that decides what a list of constants becomes."""
    info = this.left.info
    return info.kind, info.constants, _is_comm(info.name), this.op in _WHOLE and info.words, this.ignore_case


def _is_comm(name: str) -> bool:
    return name.rpartition(".")[2] == "comm"


def _fold(value: Constant, ignore_case: bool) -> Constant:
    return value.lower() if ignore_case and isinstance(value, bytes) else value
