"""Resolves names of fields: of the event at hand, of an earlier step, of an element; or says what is wrong with them."""

from __future__ import annotations

from execray.schema.catalog import ACTOR_FIELD_BY_NAME, EVENT_BY_CODE
from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.names import (
    ANCESTOR,
    MAX_ANCESTOR,
    Element,
    FieldInfo,
    Names,
    dotted_heads,
    family_of,
    field_names,
    find_element,
    find_field,
    is_planned_field,
    near,
)
from policyd.program import IT, FieldRef

#: argv[N]: up to this.
MAX_INDEX = 4095


class FieldChecker:
    """Resolves fields. Every method that returns None has reported why, or met what was reported before.

    depth: how many quantifiers stand around.
    """

    def __init__(self, sink: Sink, names: Names, depth: int = 0) -> None:
        self.sink = sink
        self.names = names
        self.depth = depth

    # ---- fields

    def field(self, node: ast.Name) -> tuple[FieldInfo, FieldRef] | None:
        """Returns the field that a name means, at hand or of an earlier step; reports an unknown one."""
        found = self.find(node)
        if found is not None:
            return self.indexed(node, *found)
        if is_element(node.text) and IT not in self.names.aliases:
            self._bad_element(node)
            return None
        if node.text == ANCESTOR:
            help_text = 'for example any ancestor(it.name = "sshd"), or ancestor[1].name = "sshd"'
            self.sink.report("ER0309", node.span, "`ancestor` is a list of processes", help=help_text)
            return None
        head, _, rest = node.text.partition(".")
        if rest and head in self.names.aliases:
            self.bad_reference(node, head, rest)
        else:
            self._unknown_field(node)
        return None

    def find(self, node: ast.Name) -> tuple[FieldInfo, str | None] | None:
        """Returns what field a name means and the alias it is read through; None, silently, if none."""
        if self.names.element is not None and is_element(node.text):
            info = find_element(self.names.element, node.text)
        else:
            info = find_field(self.names.codes, node.text)
        if info is not None:
            return info, None
        head, _, rest = node.text.partition(".")
        alias = self.names.bound.get(head)
        if alias is None or not rest:
            return None
        info = find_field(alias.codes, rest)
        return None if info is None else (info, None if alias.current else head)

    def indexed(self, node: ast.Name, info: FieldInfo, alias: str | None) -> tuple[FieldInfo, FieldRef] | None:
        """Returns a field that was found, or its element; reports what can't be."""
        if info.conflict:
            first, second = info.conflict
            message = f"{quote(node.text)} means different things in `{first}` and `{second}`"
            self.sink.report("ER0303", node.span, message, help="write one step for each event")
            return None
        if _ancestor_number(info.name) > MAX_ANCESTOR:
            self.sink.report(
                "ER0310", node.span, "no ancestor is that far away", help=f"up to ancestor[{MAX_ANCESTOR}]"
            )
            return None
        if node.index is None:
            return info, info.ref(alias)
        if info.kind is not Kind.TEXTS:
            self.sink.report("ER0310", node.span, f"{quote(info.name)} is not a list", help="leave out the index")
            return None
        if node.index > MAX_INDEX:
            self.sink.report("ER0310", node.span, f"the index {node.index} is too large", help=f"up to {MAX_INDEX}")
            return None
        ref = info.ref(alias, node.index)
        return FieldInfo(info.name, Kind.BYTES, "", info.events), ref

    def _bad_element(self, node: ast.Name) -> None:
        match self.names.element:
            case None:
                message, help_text = (
                    "`it` is an element, and no quantifier stands around it",
                    'write any argv(it = "-c")',
                )
            case Element.TEXT:
                message, help_text = f"`it` is a text here and has no field {quote(node.text[3:])}", "write `it` alone"
            case Element.PROCESS:
                name = node.text[3:]
                close = near(name, ACTOR_FIELD_BY_NAME)
                message = f"a process has no field {quote(name)}" if name else "`it` is a process here"
                help_text = f"did you mean `it.{close}`?" if close else "for example it.exe, it.name or it.uid"
        self.sink.report("ER0213", node.span, message, help=help_text)

    def bad_reference(self, node: ast.Name, head: str, rest: str) -> None:
        """Reports a field of a step that can't be read here, or hasn't got it."""
        if head not in self.names.bound:
            self.sink.report(
                "ER0205",
                node.span,
                f"the step `{head}` does not come before this place",
                labels=(Label(self.names.aliases[head], "declared here"),),
                help="a condition reads steps that lie before it on the same way through the policy",
            )
            return
        codes = self.names.bound[head].codes
        if codes:  # otherwise its event was reported
            self.report_unknown_field(node, codes, rest, f"{head}.")

    def _unknown_field(self, node: ast.Name) -> None:
        head = node.text.partition(".")[0]
        if not self.names.codes:
            return  # the event was reported
        if node.text in self.names.scope.declared:
            self.sink.report(
                "ER0309",
                node.span,
                f"{quote(node.text)} is a declared value, not a field",
                help="put the field on the left and the list or value on the right",
            )
        elif family_of(node.text) is not None or node.text in ("true", "false"):
            self.sink.report(
                "ER0309", node.span, f"{quote(node.text)} is a constant, not a field", help="put the field on the left"
            )
        elif like_reference(node.text):
            self.unknown_step(node, head)
        else:
            self.report_unknown_field(node, self.names.codes, node.text, "")

    def unknown_step(self, node: ast.Name, head: str) -> None:
        """Reports what looks like a field of an earlier step that there isn't."""
        close = near(head, self.names.aliases)
        help_text = f"did you mean `{close}`?" if close else "give the earlier step a name with `as`"
        self.sink.report("ER0204", node.span, f"unknown step {quote(head)}", help=help_text)

    def report_unknown_field(self, node: ast.Name, codes: tuple[int, ...], name: str, prefix: str) -> None:
        """Reports a name that means no field in events of these codes. prefix: the alias it is read through, with a dot."""
        events = " or ".join(f"`{EVENT_BY_CODE[code].name}`" for code in codes)
        close = near(name, field_names(codes))
        if is_planned_field(name) and not close:
            self.sink.report(
                "ER0211", node.span, f"the field {quote(name)} is not observed yet", help="leave it out for now"
            )
            return
        if close:
            help_text = f"did you mean `{prefix}{close}`?"
        else:
            own = [field.name for code in codes for field in EVENT_BY_CODE[code].fields]
            help_text = f"besides the fields of the actor it has {', '.join(dict.fromkeys(own))}" if own else ""
        self.sink.report("ER0201", node.span, f"{events} has no field {quote(name)}", help=help_text)


def is_element(name: str) -> bool:
    """Whether it is `it` or a field of it."""
    return name == IT or name.startswith(f"{IT}.")


def _ancestor_number(name: str) -> int:
    return int(name[len(ANCESTOR) + 1 : name.index("]")]) if name.startswith(f"{ANCESTOR}[") else 0


def like_reference(name: str) -> bool:
    """Whether a name that means nothing looks like a field of an earlier step."""
    head, _, rest = name.partition(".")
    return bool(rest) and head.partition("[")[0] not in dotted_heads() and not is_planned_field(name)
