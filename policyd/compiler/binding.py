"""Puts a compiled policy together: automaton, handlers bound to it, defaults, lints, hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from policyd.compiler import automaton
from policyd.compiler.byfile import by_file
from policyd.compiler.diagnostics import Label, Level, Sink, quote
from policyd.compiler.hashing import policy_hash
from policyd.compiler.lints import lint
from policyd.compiler.typed import TypedBlock, TypedPolicy, is_empty, last_steps
from policyd.program import Alert, CompiledPolicy, Handler, Step

#: The window of a policy of several steps that names none.
DEFAULT_WITHIN_NS = 5 * 60_000_000_000
#: At most so many alerts in so many ns, where a policy says nothing.
DEFAULT_THROTTLE = (1, 60_000_000_000)

_PROBLEMS = {
    "ER0401": ("no step of this policy is required", "write `..`, one or more, instead of `...`"),
    "ER0403": ("a step with `...` cannot decide a conditional", "write `..`, one or more, or leave the dots out"),
    "ER0404": (
        "what follows `:` can be met by nothing at all",
        "leave it empty, or require a step in it: `..` instead of `...`",
    ),
}


def bind(policy: TypedPolicy, sink: Sink, plugins: frozenset[str] | None = None) -> CompiledPolicy | None:
    """Returns the compiled policy, or None where its automaton has an error; lints it as well.

    plugins: the action plug-ins that the host allows, None where that isn't known.
    """
    errors = sink.errors
    for code, step in automaton.problems(policy.shape):
        message, help_text = _PROBLEMS[code]
        span = policy.steps[step].node.span if step is not None else policy.node.name.span
        sink.report(code, span, message, help=help_text)
    _check_handlers(policy, sink)
    if sink.errors > errors:
        return None
    steps = [typed.step for typed in policy.steps]
    counted = frozenset(number for number, step in enumerate(steps) if step.times is not None)
    nodes = automaton.build(policy.shape, tuple(until.step for until in policy.untils), counted)
    kept = automaton.minimise(automaton.without_hidden(nodes, steps))
    _report_steps(policy, nodes, kept, sink)
    within_ns = _window(policy, kept, steps, sink)
    if sink.errors > errors:
        return None
    used = automaton.used_steps(kept)
    states, untils = automaton.finished(kept, used)
    compiled = CompiledPolicy(
        name=policy.name,
        place=policy.place,
        hash="",
        steps=tuple(steps[number] for number in used),
        states=states,
        handlers=_handlers(policy),
        meta=policy.meta,
        key=policy.key,
        within_ns=within_ns,
        response=policy.response,
        max_partials=policy.max_partials,
        throttle=policy.throttle or _default_throttle(policy, within_ns),
        throttle_by=policy.throttle_by,
        key_text=policy.key_text,
        mode=policy.mode,
        untils=untils,
        exemptions=tuple(policy.exemptions),
    )
    lint(policy, compiled, used, sink, plugins)
    compiled = by_file(compiled)  # after the lints, which speak of what the author wrote
    return replace(compiled, hash=policy_hash(compiled))


def _default_throttle(policy: TypedPolicy, within_ns: int | None) -> tuple[int, int]:
    """One alert a minute; where the last step counts, one in the time in which it counts: it is met again by each event."""
    counts = [policy.steps[step].step.times for step in last_steps(policy.shape)]
    windows = [times.within_ns or within_ns or 0 for times in counts if times is not None]
    return (1, max(windows)) if windows else DEFAULT_THROTTLE


def _handlers(policy: TypedPolicy) -> tuple[Handler, ...]:
    """The author's handlers in text order; where none says what a match does, it alerts."""
    handlers = tuple(typed.handler for typed in sorted(policy.handlers, key=lambda typed: typed.node.span))
    if any(handler.step is None for handler in handlers):
        return handlers
    return (*handlers, Handler((Alert(),)))


def _check_handlers(policy: TypedPolicy, sink: Sink) -> None:
    blocks: dict[tuple[str, ...], list[TypedBlock]] = {}
    for block in policy.blocks:
        blocks.setdefault(block.labels, []).append(block)
    for typed in policy.handlers:
        labels = typed.handler.labels
        if typed.block_steps == ():
            sink.report(
                "ER0405", typed.node.span, "this handler never runs: its block has no step", help="move it outwards"
            )
        same = blocks.get(labels, [])
        if len(same) > 1:
            sink.report(
                "ER0410",
                same[1].span,
                f"two blocks are called {quote(labels[-1])}, and one of them holds a handler",
                labels=(Label(same[0].span, "the other one"),),
                help="give each its own label, so that the handler belongs to one of them",
            )


def _report_steps(
    policy: TypedPolicy, nodes: Sequence[automaton.Node], kept: Sequence[automaton.Node], sink: Sink
) -> None:
    if is_empty(policy.shape):
        sink.report(
            "ER0408",
            policy.node.name.span,
            f"the policy {quote(policy.name)} has no step and never matches",
            level=Level.WARNING,
            help="add a step: an event with conditions",
        )
        return
    _report_unused(policy, set(automaton.used_steps(nodes)), set(automaton.used_steps(kept)), sink)
    for transition in kept[0].transitions:
        typed = policy.steps[transition.step]
        if typed.step.within_ns is not None and typed.node.within is not None:
            sink.report(
                "ER0407",
                typed.node.within.span,
                "`within` on a first step: no step comes before it",
                help="limit a later step, or the whole policy",
            )
    if not any(node.accepting for node in kept) and not any(t.handler.step for t in policy.handlers):
        sink.report(
            "ER0413",
            policy.node.name.span,
            f"every way through the policy {quote(policy.name)} ends in `benign`, so it never matches",
            level=Level.WARNING,
            help="let one way end without it",
        )


def _report_unused(policy: TypedPolicy, built: set[int], used: set[int], sink: Sink) -> None:
    cancelling = {until.step: until.span for until in (*policy.untils, *policy.block_untils)}
    for number, typed in enumerate(policy.steps):
        if number in used:
            continue
        if number in cancelling:
            sink.report(
                "ER0414",
                cancelling[number],
                "this `until` never cancels anything",
                level=Level.WARNING,
                help="it needs a place to hold in: between two steps of the policy, or of the block that it stands in",
            )
        elif number in built:
            sink.report(
                "ER0406",
                typed.node.span,
                "this step is never reached",
                level=Level.WARNING,
                help="an alternative before it takes every event that it would take",
            )
        elif typed.node.repeat_span:
            sink.report(
                "ER0509",
                typed.node.repeat_span,
                "this step with `...` changes nothing at the beginning or end of a policy",
                level=Level.WARNING,
                help="remove it, or write `..` to require it",
            )


def _window(policy: TypedPolicy, nodes: Sequence[automaton.Node], steps: Sequence[Step], sink: Sink) -> int | None:
    option = next((o for o in policy.node.options if o.name == "within"), None)
    if automaton.is_single_event(nodes, steps):
        if option and nodes[0].transitions:
            sink.report(
                "ER0510",
                option.span,
                "one event completes this policy, so `within` changes nothing",
                level=Level.NOTE,
                help="remove it",
            )
        return None
    if policy.within_ns is None:
        sink.report(
            "ER0502",
            policy.node.name.span,
            "a policy of several steps without `within` has a window of 5 minutes",
            level=Level.NOTE,
            help="write the window you mean, for example within 30s",
        )
    return policy.within_ns or DEFAULT_WITHIN_NS
