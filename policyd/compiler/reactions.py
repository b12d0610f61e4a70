"""What a policy does, and for whom it doesn't: handlers, their actions, and exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from policyd.compiler import ast
from policyd.compiler.checker import ConditionChecker
from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.literals import plain_text
from policyd.compiler.metadata import in_range, severity_of
from policyd.compiler.names import AliasInfo, Names, near
from policyd.compiler.notices import NotifyChecker
from policyd.compiler.outside import OutsideException
from policyd.compiler.source import Span
from policyd.program import Action, Alert, Capture, Exemption, Expr, Handler, Kill, Log, Notify, Place

_DEFAULT_CAPTURE_NS = 5_000_000_000
_DEFAULT_CAPTURE_BYTES = 1 << 20
_CAPTURE_NS = (100_000_000, 3_600_000_000_000)
_CAPTURE_BYTES = (1 << 10, 1 << 30)

MAX_NOTICES = 64

#: What may be named, given the events that a condition is about and the steps that it may read.
Namer = Callable[[tuple[int, ...], Mapping[str, AliasInfo]], Names]


class Reactions:
    """Checks handlers and exceptions, once all steps are known.

    known: every step that has an alias. final: the events that may complete the policy.
    """

    def __init__(self, names: Namer, known: Mapping[str, AliasInfo], final: tuple[int, ...], sink: Sink) -> None:
        self._names = names
        self._known = known
        self._notices = 0
        self._final = final
        self._sink = sink

    def handler(self, node: ast.Handler, labels: tuple[str, ...]) -> Handler | None:
        """Returns the checked handler, or None where it could not be bound."""
        known, codes = dict(self._known), self._final
        if node.step is not None:
            name = node.step.text
            if name not in known:
                close = near(name, known)
                help_text = f"did you mean `{close}`?" if close else "give the step a name with `as`"
                self._sink.report("ER0204", node.step.span, f"unknown step {quote(name)}", help=help_text)
                return None
            codes = known[name].codes
            known[name] = replace(known[name], current=True)
        names = self._names(codes, known)
        condition = ConditionChecker(self._sink, names).condition(node.condition) if node.condition else None
        actions = [self._action(action, names) for action in node.actions]
        if node.condition and condition is None:
            return None
        done = tuple(action for action in actions if action is not None)
        return Handler(done, node.step.text if node.step else None, condition, labels)

    def _action(self, node: ast.Action, names: Names) -> Action | None:
        match node.name:
            case "alert":
                return Alert(severity_of(node.severity, self._sink) if node.severity else None)
            case "kill":
                return Kill()
            case "capture":
                return self._capture(node)
            case "notify":
                return self._notify(node, names)
        return Log()

    def _notify(self, node: ast.Action, names: Names) -> Notify | None:
        self._notices += 1
        if self._notices > MAX_NOTICES:
            if self._notices == MAX_NOTICES + 1:
                message = f"more than {MAX_NOTICES} times `notify` in one policy"
                self._sink.report("ER0402", node.span, message, help="split it into several")
            return None
        return NotifyChecker(self._sink, names).notify(node)

    def _capture(self, node: ast.Action) -> Capture:
        duration = size = None
        if node.duration:
            duration = in_range(node.duration, *_CAPTURE_NS, "captures last from 100ms to 1h", self._sink)
        if node.size:
            size = in_range(node.size, *_CAPTURE_BYTES, "captures hold from 1KiB to 1GiB", self._sink)
        return Capture(duration or _DEFAULT_CAPTURE_NS, size or _DEFAULT_CAPTURE_BYTES)

    def exemption(self, node: ast.Except) -> Exemption | None:
        """Returns the checked exception, or None where something in it was reported."""
        if not has_condition(node, self._sink):
            return None
        names = self._names(self._final, self._known)
        condition = ConditionChecker(self._sink, names).condition(node.condition) if self._final else None
        return None if condition is None else _exemption(node, condition, self._sink)

    def outside(self, exception: OutsideException) -> Exemption | None:
        """Returns the same for one from outside: its lists and macros are those of its own file."""
        node, sink = exception.node, exception.sink
        if not node.condition.items or not self._final:
            return None
        # What it can't read is told in its own file, so it gets no place in this one.
        names = Names(self._final, exception.scope, self._known, dict.fromkeys(self._known, Span(0, 0)))
        condition = ConditionChecker(sink, names).condition(node.condition)
        return None if condition is None else _exemption(node, condition, sink)


def has_condition(node: ast.Except | ast.Outside, sink: Sink) -> bool:
    """Whether an exception has a condition; reports one that hasn't."""
    if node.condition.items:
        return True
    sink.report(
        "ER0318",
        node.span,
        "an exception without a condition would hold for every match",
        help='say for whom the policy doesn\'t hold, for example exe = "/usr/bin/restic"',
    )
    return False


def _exemption(node: ast.Except | ast.Outside, condition: Expr, sink: Sink) -> Exemption:
    line, column = sink.source.position(node.span.start)
    reason = plain_text(node.reason) if node.reason else ""
    until = plain_text(node.until) if isinstance(node, ast.Outside) and node.until else ""
    return Exemption(condition, reason, Place(sink.source.name, line, column), until)
