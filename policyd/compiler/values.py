"""Turns the right side of a comparison into constants of the left side's kind, or says why that can't be."""

from __future__ import annotations

from execray.schema.kinds import CONSTANTS, Kind
from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, quote
from policyd.compiler.fields import FieldChecker, like_reference
from policyd.compiler.literals import address, plain_text, quoted_number, text_bytes
from policyd.compiler.names import (
    FUNCTIONS,
    PLANNED_FUNCTIONS,
    FieldInfo,
    family_of,
    family_words,
    field_names,
    find_constant,
    is_planned_field,
    near,
)
from policyd.compiler.source import SourceFile, Span
from policyd.program import Constant, FieldRef, Network

_KIND_WORDS = {
    Kind.INT: "a number",
    Kind.BOOL: "true or false",
    Kind.BYTES: "text",
    Kind.PATH: "text",
    Kind.TEXTS: "a list of text",
    Kind.IP: "an address",
    Kind.BITS: "bits",
    Kind.PROCESS: "a process identity",
    Kind.DURATION: "a duration",
}


def kind_words(kind: Kind) -> str:
    """Returns what a field of a kind holds, in words."""
    return _KIND_WORDS[kind]


@record
class Left:
    """The left side of a comparison: a field. basename: only its last component counts. source: where it was written."""

    info: FieldInfo
    ref: FieldRef
    span: Span
    source: SourceFile
    basename: bool = False


class ValueChecker(FieldChecker):
    """Resolves operands. Every method that returns None has reported why, or met what was reported before.

    Operands are those that were written where the checker's names hold: see `home`.
    """

    # ---- values

    def home(self, node: ast.Operand) -> tuple[ValueChecker, ast.Operand]:
        """Returns an operand as it was written, with the checker of that place: a macro's parameter was written elsewhere."""
        return self, node

    def declared(self, node: ast.Operand) -> ast.Operand:
        """Returns what a declared name stands for, and anything else as it is."""
        if isinstance(node, ast.Name) and node.index is None and not node.negative:
            found = self.names.scope.declared.get(node.text)
            if found is not None:
                return found.value
        return node

    def value(self, node: ast.Operand, left: Left) -> Constant | FieldRef | None:
        """Returns one constant of the left side's kind, or a field to compare with."""
        checker, node = self.home(node)
        return checker._value(node, left)

    def _value(self, node: ast.Operand, left: Left) -> Constant | FieldRef | None:
        resolved = self.declared(node)
        match resolved:
            case ast.Text():
                return self._text(resolved, node, left)
            case ast.Number():
                return self._number(resolved, node, left)
            case ast.Name():
                return self._name(resolved, left)
            case ast.BitSet():
                return self._bits(resolved, left)
            case ast.Call():
                self.call(resolved)
            case ast.ListOf() | ast.Range():
                self.sink.report("ER0301", node.span, "a list cannot stand here", help="lists stand behind `in`")
        return None

    def mismatch(self, node: ast.Operand, left: Left, is_a: str, help: str) -> None:
        """Reports a value of the wrong kind, with both places."""
        here = left.source is self.sink.source
        self.sink.report(
            "ER0304",
            left.span if here else node.span,
            f"cannot compare {quote(left.source.snippet(left.span))} with {is_a}",
            label=f"this field holds {kind_words(left.info.kind)}" if here else "",
            labels=(Label(node.span, f"this is {is_a}"),) if here else (),
            help=help,
        )

    def _text(self, text: ast.Text, node: ast.Operand, left: Left) -> Constant | None:
        if left.info.is_text:
            return text_bytes(text)
        if left.info.kind is Kind.IP:
            return self._address(text, node)
        if left.info.kind in (Kind.INT, Kind.BITS):
            number = quoted_number(text)
            if number is not None:
                return number
        self.mismatch(node, left, "text", _help_for(left.info))
        return None

    def _address(self, text: ast.Text, node: ast.Operand) -> bytes | Network | None:
        body = plain_text(text)
        found = address(body)
        if found is None:
            self.sink.report(
                "ER0307", node.span, f"{quote(body)} is not an address", help='for example "10.0.0.1" or "10.0.0.0/8"'
            )
        elif not isinstance(found, bytes) and address(body.partition("/")[0]) != found.network_address.packed:
            self.sink.report("ER0307", node.span, f"{quote(body)} has bits beyond its prefix", help=f'write "{found}"')
            return None
        return found

    def _number(self, number: ast.Number, node: ast.Operand, left: Left) -> int | None:
        is_duration = number.unit == "duration"
        if is_duration == (left.info.kind is Kind.DURATION) and left.info.kind in (Kind.INT, Kind.BITS, Kind.DURATION):
            return number.value
        self.mismatch(node, left, "a duration" if is_duration else "a number", _help_for(left.info))
        return None

    def _bits(self, bits: ast.BitSet, left: Left) -> int | None:
        if left.info.kind is not Kind.BITS:
            self.mismatch(bits, left, "a bit set", _help_for(left.info))
            return None
        total = 0
        for item in bits.items:
            value = self.value(item, left)
            if isinstance(value, FieldRef):
                self.sink.report("ER0303", item.span, "a bit set is made of constants", help="leave the field out")
            if not isinstance(value, int):
                return None
            total |= value
        return total

    # ---- names on the right

    def _name(self, name: ast.Name, left: Left) -> Constant | FieldRef | None:
        if name.text in ("true", "false") and name.index is None:
            if left.info.kind is Kind.BOOL:
                return name.text == "true"
            self.mismatch(name, left, "true or false", _help_for(left.info))
            return None
        constant = find_constant(left.info.constants, name.text)
        if constant is not None and name.index is None:
            return self._constant(name, constant, left)
        found = self.find(name)
        if found is not None and not name.negative:
            checked = self.indexed(name, *found)
            return self._other_field(name, *checked, left) if checked else None
        family = family_of(name.text)
        if family is not None:
            self._other_family(name, family, left)
            return None
        self._unknown_value(name, left)
        return None

    def _constant(self, name: ast.Name, value: int, left: Left) -> int | None:
        if left.info.constants != "E":
            if not name.negative:
                return value
            self.sink.report("ER0302", name.span, "`-` stands only before numbers and error names", help="remove it")
            return None
        if name.negative:
            return -value
        self.sink.report(
            "ER0313",
            name.span,
            f"{quote(left.info.name)} is never {quote(name.text)}",
            help=f"a failed call returns the negated number: write -{name.text}",
        )
        return None

    def _other_family(self, name: ast.Name, family: str, left: Left) -> None:
        takes = family_words(left.info.constants) if left.info.constants else kind_words(left.info.kind)
        self.sink.report(
            "ER0302",
            name.span,
            f"{quote(name.text)} is not a value of {quote(left.info.name)}",
            label=f"one of the {family_words(family)}",
            help=f"{left.info.name} takes {takes}",
        )

    def _other_field(self, name: ast.Name, info: FieldInfo, ref: FieldRef, left: Left) -> FieldRef | None:
        same = (
            info.kind is left.info.kind
            or (info.is_text and left.info.is_text)
            or (info.kind.is_number and left.info.kind.is_number and Kind.DURATION not in (info.kind, left.info.kind))
        )
        if same:
            return ref
        self.sink.report(
            "ER0303",
            left.span if left.source is self.sink.source else name.span,
            f"cannot compare {quote(left.info.name)} with {quote(name.text)}",
            label=f"holds {kind_words(left.info.kind)}",
            labels=(Label(name.span, f"holds {kind_words(info.kind)}"),),
            help="compare fields of one kind",
        )
        return None

    def _unknown_value(self, name: ast.Name, left: Left) -> None:
        head, _, rest = name.text.partition(".")
        if rest and head in self.names.aliases:
            self.bad_reference(name, head, rest)
            return
        if not self.names.codes:
            return  # the event was reported
        if is_planned_field(name.text):
            self.report_unknown_field(name, self.names.codes, name.text, "")
            return
        if like_reference(name.text):
            self.unknown_step(name, head)
            return
        candidates = [
            *CONSTANTS.get(left.info.constants, ()),
            *self.names.scope.declared,
            *field_names(self.names.codes),
        ]
        close = near(name.text, candidates)
        help_text = f"did you mean `{close}`?" if close else _help_for(left.info)
        self.sink.report("ER0203", name.span, f"unknown name {quote(name.text)}", help=help_text)

    def call(self, call: ast.Call) -> None:
        """Reports a call that can't stand here."""
        if call.name == "truncated" or call.name in self.names.scope.macros:
            message = f"`{call.name}(...)` is a condition by itself"
            self.sink.report("ER0309", call.span, message, help="write it alone")
        elif call.name in PLANNED_FUNCTIONS:
            self.sink.report(
                "ER0110", call.span, f"`{call.name}(...)` is not supported yet", help="leave it out for now"
            )
        elif call.name in FUNCTIONS:
            self.sink.report(
                "ER0309",
                call.span,
                f"`{call.name}(...)` stands only on the left of a comparison",
                help="swap the sides",
            )
        else:
            close = near(call.name, [*FUNCTIONS, *self.names.scope.macros])
            help_text = f"did you mean `{close}`?" if close else "functions are basename(field) and truncated(field)"
            self.sink.report("ER0209", call.span, f"unknown function {quote(call.name)}", help=help_text)


def _help_for(left: FieldInfo) -> str:
    match left.kind:
        case Kind.BYTES | Kind.PATH | Kind.TEXTS:
            return 'compare it with text, for example "/usr/bin/nc"'
        case Kind.BOOL:
            return f"write {left.name} = true, or {left.name} = false"
        case Kind.IP:
            return 'compare it with an address in quotes, for example "10.0.0.1"'
        case Kind.PROCESS:
            return "compare it with another process identity, for example proc.id"
        case Kind.DURATION:
            return "compare it with a duration, for example 10m"
        case _:
            names = f", or one of the {family_words(left.constants)}" if left.constants else ""
            return f"compare it with a number{names}"
