"""Expands macros: each name in a macro means what it means where the macro was written, an argument where that was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.cursor import MAX_NESTING
from policyd.compiler.diagnostics import Label, Level, Sink, quote
from policyd.compiler.fields import is_element
from policyd.compiler.names import Names
from policyd.compiler.scope import Macro
from policyd.compiler.source import Span
from policyd.compiler.values import ValueChecker

_MAX_LABELS = 4
_MAX_USE = 80
_EXPANSION_WORK = 4


class ExpansionSink(Sink):
    """Reports what is wrong in a macro's body at the place where the macro is used; where in the body, a label says."""

    def __init__(self, outer: Sink, macro: Macro, use: Span) -> None:
        super().__init__(macro.source)
        self._outer = outer
        self._macro = macro
        self._use = use
        # The file's own sink, and the use in it: asked directly, or a chain of macros would cost its length each time.
        self._root: Sink = outer
        self._root_use: Span = use
        before = ""
        if isinstance(outer, ExpansionSink):
            self._root, self._root_use = outer._root, outer._root_use
            before = f"{outer.use_text} "
        self.use_text: str = before + " ".join(outer.source.snippet(use)[:_MAX_USE].split()) + ":"

    @property
    def errors(self) -> int:
        """Those of the file in which the macro is used."""
        return self._root.errors

    def spend(self, units: int, span: Span) -> bool:
        """Asks the file in which the macro is used."""
        return self._root.spend(units, self._root_use)

    def report(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        help: str = "",
        label: str = "",
        labels: Iterable[Label] = (),
        notes: Iterable[str] = (),
        level: Level = Level.ERROR,
    ) -> None:
        """Reports at the use."""
        macro, outer = self._macro, self._outer
        if macro.source is outer.source:
            inside = (Label(span, f"here in the macro `{macro.name}`"), *labels)[:_MAX_LABELS]
            outer.report(code, self._use, message, help=help, labels=inside, notes=notes, level=level)
            return
        line, _ = macro.source.position(span.start)
        where = f"in the macro `{macro.name}`, {macro.source.name}:{line}"
        outer.report(code, self._use, message, help=help, notes=(*notes, where), level=level)


@record
class Argument:
    """What a parameter stands for, and the checker of the place where it was written."""

    checker: ValueChecker
    operand: ast.Operand


class MacroChecker(ValueChecker):
    """Resolves parameters, and finds the body of a macro that is used."""

    def __init__(
        self,
        sink: Sink,
        names: Names,
        depth: int = 0,
        arguments: Mapping[str, Argument] | None = None,
        expanding: tuple[Macro, ...] = (),
    ) -> None:
        super().__init__(sink, names, depth)
        self.arguments = arguments or {}
        self.expanding = expanding

    def unknown_step(self, node: ast.Name, head: str) -> None:
        """Reports what looks like a field of an earlier step that there isn't."""
        if not self.expanding or self.expanding[-1].of_policy:
            super().unknown_step(node, head)
            return
        help_text = "a macro knows no steps: hand the field over as an argument"
        self.sink.report("ER0204", node.span, f"unknown step {quote(head)}", help=help_text)

    def home(self, node: ast.Operand) -> tuple[ValueChecker, ast.Operand]:
        """Returns an operand as it was written, with the checker of that place."""
        if not self.arguments or not isinstance(node, ast.Name) or node.negative:
            return self, node
        head, _, rest = node.text.partition(".")
        argument = self.arguments.get(head)
        if argument is None:
            return self, node
        written = argument.operand
        if rest or node.index is not None:
            if not isinstance(written, ast.Name) or written.index is not None or written.negative:
                message = f"the parameter `{head}` stands for no field here"
                self.sink.report("ER0214", node.span, message, help="give it the name of a field or of a step")
                return self, ast.Bad(node.span)
            written = replace(written, text=f"{written.text}.{rest}" if rest else written.text, index=node.index)
        if isinstance(written, ast.Name) and is_element(written.text) and argument.checker.depth != self.depth:
            message = f"`{head}` stands for an element, and another quantifier stands around this place"
            self.sink.report("ER0213", node.span, message, help="write the condition out where it is used")
            return self, ast.Bad(node.span)
        return argument.checker, written

    def expansion(
        self, name: str, arguments: tuple[ast.Operand, ...], span: Span
    ) -> tuple[ExpansionSink, Names, Mapping[str, Argument], Macro] | None:
        """Returns what the body of the macro is checked with, or None where the use was reported."""
        macro = self.names.scope.macros[name]
        if len(arguments) != len(macro.parameters):
            self._wrong_count(macro, len(arguments), span)
            return None
        if macro in self.expanding:
            message = f"the macro `{name}` uses itself"
            self.sink.report("ER0215", span, message, help="write the condition out, or use another macro")
            return None
        if len(self.expanding) >= MAX_NESTING:
            message = f"macros use each other more than {MAX_NESTING} deep here"
            self.sink.report("ER0108", span, message, help="write some of them out")
            return None
        if not self.sink.spend(macro.size + _EXPANSION_WORK, span):
            return None
        names = replace(self.names, scope=macro.scope, element=None)
        if not macro.of_policy:
            names = replace(names, bound={}, aliases={})
        given = {
            parameter: Argument(*self.home(operand))
            for parameter, operand in zip(macro.parameters, arguments, strict=True)
        }
        return ExpansionSink(self.sink, macro, span), names, given, macro

    def _wrong_count(self, macro: Macro, count: int, span: Span) -> None:
        wanted = len(macro.parameters)
        here = macro.source is self.sink.source
        self.sink.report(
            "ER0214",
            span,
            f"the macro `{macro.name}` takes {_counted(wanted)}, not {count}",
            labels=(Label(macro.span, "declared here"),) if here else (),
            help=f"write {macro.name}({', '.join(macro.parameters)})"
            if wanted
            else f"write {quote(macro.name).strip('`')}",
        )


def _counted(count: int) -> str:
    return "one argument" if count == 1 else f"{count or 'no'} arguments"
