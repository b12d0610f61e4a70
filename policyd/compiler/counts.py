"""Counted steps: `times`, `distinct`, and what does not go with them."""

from __future__ import annotations

from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.diagnostics import Sink, quote
from policyd.compiler.metadata import duration_ns, in_range
from policyd.compiler.names import Names
from policyd.compiler.values import ValueChecker
from policyd.program import FieldRef, Times

_COUNT = (2, 10_000)


def check_times(step: ast.Step, names: Names, sink: Sink) -> Times | None:
    """Returns how a step counts, None where it doesn't or where something was reported."""
    node = step.times
    if node is None:
        return None
    errors = sink.errors
    if step.repeat_span is not None:
        sink.report(
            "ER0115",
            step.repeat_span,
            f"`{step.repeat}` cannot follow `times`",
            help="a counted step says how often already: leave the dots out",
        )
    count = in_range(node.count, *_COUNT, f"a step is counted from {_COUNT[0]} to {_COUNT[1]:,} times", sink)
    within = duration_ns(step.within, sink) if step.within is not None else None
    distinct = _distinct(node.distinct, names, sink) if node.distinct is not None else None
    if count is None or sink.errors > errors:
        return None
    return Times(count, within, distinct)


def _distinct(node: ast.Operand, names: Names, sink: Sink) -> FieldRef | None:
    if isinstance(node, ast.Bad):
        return None
    if not isinstance(node, ast.Name) or node.negative:
        sink.report("ER0319", node.span, "`distinct` takes one field", help="for example times 20 distinct path")
        return None
    found = ValueChecker(sink, names).field(node)
    if found is None:
        return None
    info, ref = found
    if ref.alias is not None:
        sink.report("ER0319", node.span, "`distinct` counts values of the event at hand", help="leave the alias out")
    elif ref.kind is Kind.TEXTS:
        sink.report("ER0319", node.span, f"{quote(info.name)} is a list", help=f"count one element: {info.name}[0]")
    return ref


def refuse_modifiers(until: ast.Until, sink: Sink) -> None:
    """Reports modifiers that mean nothing behind the step of an `until`: it has no place in the sequence."""
    step = until.step
    found = [node.span for node in (step.alias, step.within, step.times) if node is not None]
    if step.repeat_span is not None:
        found.append(step.repeat_span)
    for span in found:
        sink.report("ER0106", span, "the step of an `until` takes only `by`", help="leave this out")
