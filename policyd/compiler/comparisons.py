"""Checks one comparison against the catalogue and turns it into the tests that the engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.diagnostics import Level, quote
from policyd.compiler.literals import basename_pattern, glob_pattern, like_pattern, pattern_bytes
from policyd.compiler.names import FieldInfo
from policyd.compiler.source import Span
from policyd.compiler.values import ValueChecker, kind_words
from policyd.patterns import PatternError, compile_pattern
from policyd.program import And, Constant, Expr, FieldRef, Not, Op, Or, Test

_ORDER = {"<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE}
_TEXT_OPS = {"contains": Op.CONTAINS, "startswith": Op.STARTSWITH, "endswith": Op.ENDSWITH}
_WILDCARDS = {"like": like_pattern, "glob": glob_pattern}
_BITS = {"has": Op.HAS, "hasany": Op.HASANY}
_IGNORING_CASE = {
    "ieq": "=",
    "iin": "in",
    "icontains": "contains",
    "istartswith": "startswith",
    "iendswith": "endswith",
    "ilike": "like",
}
_QUANTIFIABLE = frozenset((*_TEXT_OPS, *_WILDCARDS, "in", "="))
_ACCEPTS_LIST = frozenset((*_TEXT_OPS, *_WILDCARDS, "in", "=", "!=", "=~", "!~"))
#: Every operator of the language, as it is written.
OPERATORS = frozenset(
    (*_ORDER, *_TEXT_OPS, *_WILDCARDS, *_BITS, *_IGNORING_CASE, "=", "!=", "=~", "!~", "in", "exists")
)
_ON_TEXT = frozenset((*_TEXT_OPS, *_WILDCARDS, "=~", "!~"))
_COMM_BYTES = 15
_COMM_FIELDS = ("comm", "parent.comm")
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class _Left:
    """The left side of a comparison. basename: only its last component counts."""

    info: FieldInfo
    ref: FieldRef
    span: Span
    basename: bool = False


class ComparisonChecker(ValueChecker):
    """Types comparisons: field, operator, value. What returns None has reported why."""

    def text_of(self, span: Span) -> str:
        """Returns source on one line, cut to what a test or step may carry."""
        # Cut first: a list of a whole file's length must not be copied for each of its elements.
        text = self.sink.source.text[span.start : min(span.end, span.start + 4 * _MAX_TEXT)]
        if "\n" in text or "\t" in text:
            text = " ".join(text.split())
        return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."

    # ---- comparisons

    def _left(self, node: ast.Operand) -> _Left | None:
        match node:
            case ast.Name(negative=False):
                found = self.field(node)
                return _Left(*found, node.span) if found else None
            case ast.Call(name="basename"):
                return self._basename(node)
            case ast.Call():
                self.call(node)
            case ast.Bad():
                pass
            case _:
                self.sink.report(
                    "ER0309",
                    node.span,
                    "a comparison begins with a field",
                    help="put the field on the left and the value on the right",
                )
        return None

    def _basename(self, call: ast.Call) -> _Left | None:
        if len(call.arguments) != 1 or not isinstance(call.arguments[0], ast.Name):
            self.sink.report("ER0309", call.span, "`basename` takes one field", help="for example basename(path)")
            return None
        found = self.field(call.arguments[0])
        if found is None:
            return None
        info, ref = found
        if info.kind not in (Kind.PATH, Kind.BYTES):
            self.sink.report("ER0301", call.span, f"{quote(info.name)} holds {kind_words(info.kind)}, not a path")
            return None
        prefix, _, last = info.name.rpartition("exe")
        if last == "" and prefix in ("", "parent."):
            # The catalogue has this one as a field of its own, which is cheaper to test.
            name = replace(info, name=prefix + "name", kind=Kind.BYTES)
            return _Left(name, name.ref(ref.alias), call.span)
        return _Left(info, ref, call.span, basename=True)

    def compare(self, node: ast.Compare) -> Expr | None:
        left = self._left(node.left)
        if left is None:
            return None
        op, ignore_case = _IGNORING_CASE.get(node.op, node.op), node.op in _IGNORING_CASE
        if op == "exists":
            typed: Expr | None = Test(left.ref, Op.EXISTS, text=self.text_of(node.span))
        elif not self._fits(node, op, left):
            return None
        else:
            typed = self._dispatch(node, op, left, ignore_case)
        if typed is None:
            return None
        return Not(typed) if node.negated or op == "!~" else typed

    def _dispatch(self, node: ast.Compare, op: str, left: _Left, ignore_case: bool) -> Expr | None:
        assert node.right is not None
        elements = self.elements(node.right)
        if elements is not None and not self._list_fits(node, op, elements):
            return None
        right = [node.right] if elements is None else elements
        if node.quantifier == "all" and len(right) > 1:
            # Each by itself: on a list field every one may hold for another element.
            typed = [self._one(node, op, left, ignore_case, [item]) for item in right]
            good = [item for item in typed if item is not None]
            return And(tuple(good)) if len(good) == len(typed) else None
        return self._one(node, op, left, ignore_case, right)

    def _one(
        self, node: ast.Compare, op: str, left: _Left, ignore_case: bool, right: Sequence[ast.Operand]
    ) -> Expr | None:
        if op in ("=~", "!~"):
            return self._patterns(node, left, right)
        if op in _WILDCARDS or left.basename:
            return self._wildcards(node, op, left, ignore_case, right)
        if op in _TEXT_OPS:
            return self._needles(node, _TEXT_OPS[op], left, ignore_case, right)
        if op in _BITS or op in _ORDER:
            return self._single(node, _BITS.get(op) or _ORDER[op], left, right[0])
        return self._equality(node, op, left, ignore_case, right)

    # Which kinds of field an operator takes; equality and `in` take all.
    def _fits(self, node: ast.Compare, op: str, left: _Left) -> bool:
        info = left.info
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
        elif left.basename and op in ("=~", "!~"):
            what = f"`{node.op}` on `basename(...)` is not supported yet"
            self.sink.report("ER0110", node.op_span, what, help="test the path itself with `=~`")
            return False
        if not help_text:
            return True
        message = f"`{node.op}` does not work on {quote(info.name)}, which holds {kind_words(info.kind)}"
        self.sink.report("ER0301", node.op_span, message, help=help_text)
        return False

    def _list_fits(self, node: ast.Compare, op: str, elements: Sequence[ast.Operand]) -> bool:
        assert node.right is not None
        if not elements:
            self.sink.report("ER0311", node.right.span, "this list is empty", help="put at least one element into it")
            return False
        if op not in _ACCEPTS_LIST:
            self.sink.report("ER0301", node.right.span, f"`{node.op}` does not take a list", help="give one value")
            return False
        return True

    # ---- the groups of operators

    def _constants(self, left: _Left, right: Sequence[ast.Operand]) -> list[Constant | FieldRef] | None:
        values = [self.value(item, left.info, left.span) for item in right]
        good = [value for value in values if value is not None]
        return good if len(good) == len(values) else None

    def _only_constants(
        self, node: ast.Compare, left: _Left, right: Sequence[ast.Operand]
    ) -> tuple[Constant, ...] | None:
        values = self._constants(left, right)
        if values is None:
            return None
        constants = tuple(value for value in values if not isinstance(value, FieldRef))
        if len(constants) == len(values):
            return constants
        self.sink.report(
            "ER0110",
            node.op_span,
            f"`{node.op}` with a field on its right is not supported yet",
            help="fields compare with =, !=, <, <=, > and >=",
        )
        return None

    def _equality(
        self, node: ast.Compare, op: str, left: _Left, ignore_case: bool, right: Sequence[ast.Operand]
    ) -> Expr | None:
        ranges = [item for item in right if isinstance(item, ast.Range)]
        singles = [item for item in right if not isinstance(item, ast.Range)]
        text = self.text_of(node.span)
        if ranges:
            return self._with_ranges(node, op, left, singles, ranges)
        if len(right) == 1 and op != "in":
            typed = self._single(node, Op.NE if op == "!=" else Op.EQ, left, right[0])
            return replace(typed, ignore_case=ignore_case, value=_folded(typed.value, ignore_case)) if typed else None
        constants = self._only_constants(node, left, right)
        if constants is None:
            return None
        if not self._fits_comm(left, right, constants):
            return None
        constants = tuple(_fold(value, ignore_case) for value in dict.fromkeys(constants))
        if op == "!=":
            return And(tuple(Test(left.ref, Op.NE, value, text=text) for value in constants))
        return Test(left.ref, Op.IN, constants, ignore_case=ignore_case, text=text)

    def _single(self, node: ast.Compare, op: Op, left: _Left, right: ast.Operand) -> Test | None:
        value = self.value(right, left.info, left.span)
        if value is None or not self._fits_comm(left, [right], [value]):
            return None
        if not isinstance(value, (int, bytes, FieldRef)):
            self.sink.report(
                "ER0301", node.op_span, f"`{node.op}` compares with one address, not with a network", help="use `in`"
            )
            return None
        if isinstance(value, FieldRef) and op in _BITS.values():
            self._only_constants(node, left, [right])
            return None
        if op is Op.EQ and left.info.constants == "O_" and not isinstance(value, FieldRef):
            self._lint_exact_bits(node)
        return Test(left.ref, op, value, text=self.text_of(node.span))

    def _lint_exact_bits(self, node: ast.Compare) -> None:
        self.sink.report(
            "ER0503",
            node.span,
            "`=` compares all the bits: a call with one flag more does not match",
            level=Level.NOTE,
            help="use `has` to test that some bits are set, or `access` for reading and writing",
        )

    def _fits_comm(self, left: _Left, right: Sequence[ast.Operand], values: Sequence[Constant | FieldRef]) -> bool:
        if left.info.name not in _COMM_FIELDS:
            return True
        good = True
        for node, value in zip(right, values, strict=True):
            if isinstance(value, bytes) and len(value) > _COMM_BYTES:
                good = False
                short = value[:_COMM_BYTES].decode("utf-8", "ignore")
                self.sink.report(
                    "ER0306",
                    node.span,
                    f"{quote(value)} is longer than a thread's name can be",
                    help=f'the kernel keeps 15 bytes: write "{short}", or test `name` or `exe`',
                )
        return good

    def _with_ranges(
        self,
        node: ast.Compare,
        op: str,
        left: _Left,
        singles: Sequence[ast.Operand],
        ranges: Sequence[ast.Range],
    ) -> Expr | None:
        text = self.text_of(node.span)
        if left.info.kind not in (Kind.INT, Kind.DURATION):
            self.sink.report("ER0301", ranges[0].span, "a range stands only in a list of numbers")
            return None
        parts: list[Expr] = []
        for item in ranges:
            first, last = self._constants(left, [item.first, item.last]) or (None, None)
            if not isinstance(first, int) or not isinstance(last, int):
                return None
            if first > last:
                self.sink.report("ER0312", item.span, "this range is empty", help="the smaller number comes first")
                return None
            parts.append(And((Test(left.ref, Op.GE, first, text=text), Test(left.ref, Op.LE, last, text=text))))
        if singles:
            constants = self._only_constants(node, left, singles)
            if constants is None:
                return None
            parts.append(Test(left.ref, Op.IN, constants, text=text))
        inside: Expr = parts[0] if len(parts) == 1 else Or(tuple(parts))
        if op == "!=":
            return And((Test(left.ref, Op.EXISTS, text=text), Not(inside)))
        return inside

    def _needles(
        self, node: ast.Compare, op: Op, left: _Left, ignore_case: bool, right: Sequence[ast.Operand]
    ) -> Expr | None:
        constants = self._only_constants(node, left, right)
        if constants is None or not self._fits_comm(left, right, constants):
            return None
        folded = tuple(_fold(value, ignore_case) for value in dict.fromkeys(constants))
        return Test(left.ref, op, folded, ignore_case=ignore_case, text=self.text_of(node.span))

    def _wildcards(
        self, node: ast.Compare, op: str, left: _Left, ignore_case: bool, right: Sequence[ast.Operand]
    ) -> Expr | None:
        constants = self._only_constants(node, left, right)
        if constants is None:
            return None
        raws = [value for value in constants if isinstance(value, bytes)]
        make = _WILDCARDS.get(op)
        patterns = [basename_pattern(op, raw) if left.basename or not make else make(raw) for raw in raws]
        if not self._compiles(node, list(zip(patterns, right, strict=True)), ignore_case):
            return None
        text = self.text_of(node.span)
        test = Test(left.ref, Op.MATCH, tuple(patterns), ignore_case=ignore_case, text=text)
        return And((Test(left.ref, Op.EXISTS, text=text), Not(test))) if op == "!=" else test

    def _patterns(self, node: ast.Compare, left: _Left, right: Sequence[ast.Operand]) -> Expr | None:
        patterns: list[tuple[bytes, ast.Operand]] = []
        for item in right:
            text = self.declared(item)
            if isinstance(text, ast.Text):
                patterns.append((pattern_bytes(text), item))
            elif not isinstance(text, ast.Bad):
                self.sink.report(
                    "ER0305",
                    item.span,
                    f"`{node.op}` takes a regular expression in quotes",
                    help='for example path =~ "/etc/(passwd|shadow)"',
                )
        if len(patterns) != len(right) or not self._compiles(node, patterns, False):
            return None
        return Test(left.ref, Op.MATCH, tuple(p for p, _ in patterns), text=self.text_of(node.span))

    def _compiles(self, node: ast.Compare, patterns: Sequence[tuple[bytes, ast.Operand]], ignore_case: bool) -> bool:
        good = True
        for pattern, place in patterns:
            try:
                compile_pattern(pattern, ignore_case)
            except PatternError as error:
                good = False
                self.sink.report(
                    "ER0305",
                    place.span,
                    f"RE2 refuses this pattern: {_reason(error)}",
                    help="RE2 has no look-around and no back-references; see its syntax page",
                )
        return good


def _reason(error: PatternError) -> str:
    return quote(str(error)).strip("`")


def _fold(value: Constant, ignore_case: bool) -> Constant:
    return value.lower() if ignore_case and isinstance(value, bytes) else value


def _folded(value: object, ignore_case: bool) -> Constant | FieldRef | None:
    if isinstance(value, FieldRef):
        return value
    assert isinstance(value, (int, bytes))
    return _fold(value, ignore_case)
