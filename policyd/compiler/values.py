"""Turns the right side of a comparison into constants of the left side's kind, or says why that can't be."""

from __future__ import annotations

from execray.schema.kinds import CONSTANTS, Kind
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
from policyd.compiler.source import Span
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


class ValueChecker(FieldChecker):
    """Resolves operands. Every method that returns None has reported why, or met what was reported before."""

    # ---- values

    def elements(self, node: ast.Operand) -> list[ast.Operand] | None:
        """Returns the elements of a list or of a declared one; None where the operand is a single value."""
        node = self.declared(node)
        return list(node.items) if isinstance(node, ast.ListOf) else None

    def declared(self, node: ast.Operand) -> ast.Operand:
        """Returns what a declared name stands for, and anything else as it is."""
        if isinstance(node, ast.Name) and node.index is None and not node.negative:
            found = self.names.declared.get(node.text)
            if found is not None:
                return found.value
        return node

    def value(self, node: ast.Operand, left: FieldInfo, left_span: Span) -> Constant | FieldRef | None:
        """Returns one constant of the left side's kind, or a field to compare with."""
        resolved = self.declared(node)
        match resolved:
            case ast.Text():
                return self._text(resolved, node, left, left_span)
            case ast.Number():
                return self._number(resolved, node, left, left_span)
            case ast.Name():
                return self._name(resolved, left, left_span)
            case ast.BitSet():
                return self._bits(resolved, left, left_span)
            case ast.Call():
                self.call(resolved)
            case ast.ListOf() | ast.Range():
                self.sink.report("ER0301", node.span, "a list cannot stand here", help="lists stand behind `in`")
        return None

    def mismatch(self, node: ast.Operand, left: FieldInfo, left_span: Span, is_a: str, help: str) -> None:
        """Reports a value of the wrong kind, with both places."""
        holds = kind_words(left.kind)
        what = "text" if is_a == "text" else is_a
        self.sink.report(
            "ER0304",
            left_span,
            f"cannot compare {quote(self.sink.source.snippet(left_span))} with {what}",
            label=f"this field holds {holds}",
            labels=(Label(node.span, f"this is {is_a}"),),
            help=help,
        )

    def _text(self, text: ast.Text, node: ast.Operand, left: FieldInfo, left_span: Span) -> Constant | None:
        if left.is_text:
            return text_bytes(text)
        if left.kind is Kind.IP:
            return self._address(text, node)
        if left.kind in (Kind.INT, Kind.BITS):
            number = quoted_number(text)
            if number is not None:
                return number
        self.mismatch(node, left, left_span, "text", _help_for(left))
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

    def _number(self, number: ast.Number, node: ast.Operand, left: FieldInfo, left_span: Span) -> int | None:
        is_duration = number.unit == "duration"
        if is_duration == (left.kind is Kind.DURATION) and left.kind in (Kind.INT, Kind.BITS, Kind.DURATION):
            return number.value
        self.mismatch(node, left, left_span, "a duration" if is_duration else "a number", _help_for(left))
        return None

    def _bits(self, bits: ast.BitSet, left: FieldInfo, left_span: Span) -> int | None:
        if left.kind is not Kind.BITS:
            self.mismatch(bits, left, left_span, "a bit set", _help_for(left))
            return None
        total = 0
        for item in bits.items:
            value = self.value(item, left, left_span)
            if isinstance(value, FieldRef):
                self.sink.report("ER0303", item.span, "a bit set is made of constants", help="leave the field out")
            if not isinstance(value, int):
                return None
            total |= value
        return total

    # ---- names on the right

    def _name(self, name: ast.Name, left: FieldInfo, left_span: Span) -> Constant | FieldRef | None:
        if name.text in ("true", "false") and name.index is None:
            if left.kind is Kind.BOOL:
                return name.text == "true"
            self.mismatch(name, left, left_span, "true or false", _help_for(left))
            return None
        constant = find_constant(left.constants, name.text)
        if constant is not None and name.index is None:
            return self._constant(name, constant, left)
        found = self.find(name)
        if found is not None and not name.negative:
            checked = self.indexed(name, *found)
            return self._other_field(name, *checked, left, left_span) if checked else None
        family = family_of(name.text)
        if family is not None:
            self._other_family(name, family, left)
            return None
        self._unknown_value(name, left)
        return None

    def _constant(self, name: ast.Name, value: int, left: FieldInfo) -> int | None:
        if left.constants != "E":
            if not name.negative:
                return value
            self.sink.report("ER0302", name.span, "`-` stands only before numbers and error names", help="remove it")
            return None
        if name.negative:
            return -value
        self.sink.report(
            "ER0313",
            name.span,
            f"{quote(left.name)} is never {quote(name.text)}",
            help=f"a failed call returns the negated number: write -{name.text}",
        )
        return None

    def _other_family(self, name: ast.Name, family: str, left: FieldInfo) -> None:
        takes = family_words(left.constants) if left.constants else kind_words(left.kind)
        self.sink.report(
            "ER0302",
            name.span,
            f"{quote(name.text)} is not a value of {quote(left.name)}",
            label=f"one of the {family_words(family)}",
            help=f"{left.name} takes {takes}",
        )

    def _other_field(
        self, name: ast.Name, info: FieldInfo, ref: FieldRef, left: FieldInfo, left_span: Span
    ) -> FieldRef | None:
        same = (
            info.kind is left.kind
            or (info.is_text and left.is_text and info.kind is not Kind.TEXTS)
            or (info.kind.is_number and left.kind.is_number and Kind.DURATION not in (info.kind, left.kind))
        )
        if same and info.kind is not Kind.TEXTS:
            return ref
        self.sink.report(
            "ER0303",
            left_span,
            f"cannot compare {quote(left.name)} with {quote(name.text)}",
            label=f"holds {kind_words(left.kind)}",
            labels=(Label(name.span, f"holds {kind_words(info.kind)}"),),
            help="compare fields of one kind",
        )
        return None

    def _unknown_value(self, name: ast.Name, left: FieldInfo) -> None:
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
        candidates = [*CONSTANTS.get(left.constants, ()), *self.names.declared, *field_names(self.names.codes)]
        close = near(name.text, candidates)
        help_text = f"did you mean `{close}`?" if close else _help_for(left)
        self.sink.report("ER0203", name.span, f"unknown name {quote(name.text)}", help=help_text)

    def call(self, call: ast.Call) -> None:
        """Reports a call that can't stand here."""
        if call.name in self.names.macros:
            return  # the macro itself was reported as not supported yet
        if call.name == "truncated":
            self.sink.report("ER0309", call.span, "`truncated(...)` is a condition by itself", help="write it alone")
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
            close = near(call.name, FUNCTIONS)
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
