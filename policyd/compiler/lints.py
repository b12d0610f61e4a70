"""Lints: what compiles and probably isn't what its author wants. Few, and right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from execray.schema.catalog import ACTOR_FIELDS, EVENT_BY_CODE, EventType
from policyd.compiler import ast
from policyd.compiler.diagnostics import Level, Sink, quote
from policyd.compiler.lint_fields import conjuncts, fields_of
from policyd.compiler.lints_flow import FlowLints
from policyd.compiler.literals import plain_text
from policyd.compiler.source import Span
from policyd.compiler.typed import TypedPolicy
from policyd.program import Alert, Capture, CompiledPolicy, Expr, Handler, Kill, Not, Op, Response, Step, Test

_FORGEABLE = frozenset(field.name for field in ACTOR_FIELDS if field.spoofable)
# Of an exec that failed, these are still the caller's.
_IMAGE = frozenset(("exe", "name", "argv", "argc", "cmdline", "file.id"))
# Not paths, which are whole but for very few.
_OFTEN_CUT = frozenset(("content", "argv", "cmdline", "env"))


def lint(
    policy: TypedPolicy, compiled: CompiledPolicy, used: Sequence[int], sink: Sink, plugins: frozenset[str] | None
) -> None:
    """Reports warnings and notes on a policy that compiles.

    used: the numbers that the compiled policy's steps have among the typed ones. plugins: the action plug-ins that the host
    allows, if known.
    """
    _kill_without_enforce(policy, sink)
    _kill_by_comm(policy, compiled, sink)
    _kill_by_what_is_cut(policy, compiled, sink)
    _kill_without_exception(policy, compiled, sink)
    _kill_on_attempt(policy, compiled, sink)
    _guard_by_forgeable(policy, sink)
    FlowLints(policy, compiled, used, sink).run()
    _capture_beside_kill(policy, sink)
    _normal_that_alerts(policy, compiled, sink)
    _unhandled_match(policy, compiled, sink)
    if plugins is not None:
        _not_allowed(policy, plugins, sink)


def _has(handler: Handler, *kinds: type) -> bool:
    return any(isinstance(action, kinds) for action in handler.actions)


def _kill_without_enforce(policy: TypedPolicy, sink: Sink) -> None:
    if policy.response is Response.ENFORCE:
        return
    for typed in policy.handlers:
        for action in typed.node.actions:
            if action.name == "kill":
                sink.report(
                    "ER0511",
                    action.span,
                    "this policy only reports what `kill` would do",
                    level=Level.NOTE,
                    help="it kills once the policy says `response enforce` and the host's mode is enforce",
                )
                return


def _kill_of(policy: TypedPolicy) -> ast.Action | None:
    return next((a for t in policy.handlers for a in t.node.actions if a.name == "kill"), None)


def _kill_by_what_is_cut(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    kill = _kill_of(policy)
    fields = {name for step in compiled.steps for name in fields_of(step.condition)}
    cut = sorted(fields & _OFTEN_CUT)
    if kill and cut:
        sink.report(
            "ER0522",
            kill.span,
            f"this `kill` rests on `{cut[0]}`, of which only the beginning is captured",
            level=Level.NOTE,
            help="where it was cut, the match is alerted and doesn't kill",
        )


def _kill_without_exception(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    kill = _kill_of(policy)
    if kill and policy.response is Response.ENFORCE and not compiled.exemptions:
        sink.report(
            "ER0523",
            kill.span,
            "this policy kills, and has no exception",
            level=Level.NOTE,
            help='say who does the same rightly: except "reason" { exe = ... }',
        )


def _kill_on_attempt(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    """What a kill follows: a call that may have failed, or what only the caller says of it."""
    kill = _kill_of(policy)
    if kill is None:
        return
    for step, handler in _killed_by(compiled):
        fields = fields_of(step.condition)
        asked = fields if handler.condition is None else fields | fields_of(handler.condition)
        events = [EVENT_BY_CODE[code] for code in step.codes]
        tried = [event.name for event in events if _may_have_failed(event, fields)]
        if tried and "ret" not in asked:
            done = "(ret >= 0 or ret = -EINPROGRESS)" if "connect" in tried else "ret >= 0"
            sink.report(
                "ER0526",
                kill.span,
                f"this `kill` follows a {quote(tried[0])} that failed, too",
                level=Level.WARNING,
                help=f"add `{done}` to the step, or `ret exists` where the attempt is enough",
            )
        # not exec: the name that a program was executed by is the kernel's own copy
        claimed = sorted(name for event in events if event.name != "exec" for name in fields & event.claims)
        if claimed and not any(_own(fields, event) - event.claims for event in events):
            sink.report(
                "ER0527",
                kill.span,
                f"this `kill` rests on {quote(claimed[0])}, which another thread of the caller can change meanwhile",
                level=Level.NOTE,
                help="test what the kernel used as well, such as `path`, `file.id` or `dst.ip`",
            )


def _may_have_failed(event: EventType, fields: set[str]) -> bool:
    """Of an exec that failed only the name is new: who tests the program has found it running already."""
    return not event.fact and (event.name != "exec" or ("filename" in fields and not fields & _IMAGE))


def _own(fields: set[str], event: EventType) -> set[str]:
    return {field.name for field in event.fields if field.name != "ret"} & fields


def _killed_by(compiled: CompiledPolicy) -> Iterator[tuple[Step, Handler]]:
    """Yields each step behind which a kill stands, with what says so."""
    moves = [move for state in compiled.states for move in state.transitions]
    last = sorted({move.step for move in moves if compiled.states[move.target].accepting})
    for handler in compiled.handlers:
        if not _has(handler, Kill):
            continue
        if handler.step is None:
            yield from (
                (compiled.steps[index], handler) for index in last if _applies(handler, compiled.steps[index].labels)
            )
        else:
            yield from ((step, handler) for step in compiled.steps if step.alias == handler.step)


def _guard_by_forgeable(policy: TypedPolicy, sink: Sink) -> None:
    for typed in policy.steps:
        for node, expr in conjuncts(typed.node.condition, typed.step.condition):
            if _lets_through(expr) and fields_of(expr) == {"comm"}:
                _report_guard(node.span, "comm", sink)
    for except_, exemption in zip(policy.node.exceptions, policy.exemptions, strict=False):
        fields = fields_of(exemption.condition)
        if fields <= _FORGEABLE:
            _report_guard(except_.span, sorted(fields)[0], sink)


def _lets_through(expr: Expr) -> bool:
    return isinstance(expr, Not) or (isinstance(expr, Test) and expr.op is Op.NE)


def _report_guard(span: Span, field: str, sink: Sink) -> None:
    sink.report(
        "ER0520",
        span,
        f"any process can pass this guard: it chooses its own `{field}`",
        level=Level.NOTE,
        help="test `exe` or `name` instead, or as well",
    )


def _kill_by_comm(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    kill = _kill_of(policy)
    fields = {name for step in compiled.steps for name in fields_of(step.condition)}
    if kill and fields == {"comm"}:
        sink.report(
            "ER0504",
            kill.span,
            "this `kill` rests on `comm` alone, which any process can choose",
            level=Level.WARNING,
            help="test `exe` or `name` as well",
        )


def _capture_beside_kill(policy: TypedPolicy, sink: Sink) -> None:
    handlers = [typed.handler for typed in policy.handlers]
    if any(handler.step is not None and _has(handler, Capture) for handler in handlers):
        return
    for typed in policy.handlers:
        if typed.handler.step is None and _has(typed.handler, Kill) and _has(typed.handler, Capture):
            action = next(a for a in typed.node.actions if a.name == "capture")
            sink.report(
                "ER0505",
                action.span,
                "a killed process sends nothing more, so this capture stays empty",
                level=Level.WARNING,
                help="begin it at an earlier step: on step ALIAS { capture }",
            )


def _normal_that_alerts(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    for block in policy.blocks:
        label = block.labels[-1].lower()
        if label != "normal" and not label.startswith("normal_"):
            continue
        if not any(step.labels[: len(block.labels)] == block.labels for step in compiled.steps):
            continue
        if any(_applies(handler, block.labels) and _has(handler, Alert, Kill) for handler in compiled.handlers):
            sink.report(
                "ER0506",
                block.span,
                f"the branch {quote(block.labels[-1])} can end in an alert",
                level=Level.WARNING,
                help="a branch that means no harm has no steps, {}, or an `on match` of its own without alert",
            )


def _applies(handler: Handler, labels: tuple[str, ...]) -> bool:
    return handler.step is None and labels[: len(handler.labels)] == handler.labels


def _unhandled_match(policy: TypedPolicy, compiled: CompiledPolicy, sink: Sink) -> None:
    handled = [handler.labels for handler in compiled.handlers if handler.step is None]
    if () in handled:
        return
    # Is there a way to the end that goes through no block with a handler?
    seen, order = {0}, [0]
    for index in order:  # grows while it is read
        for transition in compiled.states[index].transitions:
            labels = compiled.steps[transition.step].labels
            if any(labels[: len(own)] == own for own in handled) or transition.target in seen:
                continue
            seen.add(transition.target)
            order.append(transition.target)
    if any(compiled.states[index].accepting for index in order):
        sink.report(
            "ER0512",
            policy.node.name.span,
            "some matches of this policy do nothing: only some of its blocks have an `on match`",
            level=Level.WARNING,
            help="add on match { alert } to the policy itself",
        )


def _not_allowed(policy: TypedPolicy, plugins: frozenset[str], sink: Sink) -> None:
    nodes = [action for typed in policy.handlers for action in typed.node.actions if action.plugin is not None]
    for node in nodes:
        assert node.plugin is not None
        name = plain_text(node.plugin)
        if name not in plugins:
            allowed = f"allowed here: {', '.join(sorted(plugins))}" if plugins else "none is allowed here"
            sink.report(
                "ER0513",
                node.plugin.span,
                f"the action plug-in {quote(name)} is not allowed on this host, so this `notify` does nothing",
                level=Level.WARNING,
                help=f"put it on the list `policyd.actions` of the configuration; {allowed}",
            )
