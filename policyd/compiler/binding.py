"""Puts a compiled policy together: automaton, handlers bound to it, defaults, lints, hash."""

from __future__ import annotations

from dataclasses import replace

from policyd.compiler import automaton
from policyd.compiler.diagnostics import Label, Level, Sink, quote
from policyd.compiler.hashing import policy_hash
from policyd.compiler.lints import lint
from policyd.compiler.typed import TypedBlock, TypedPolicy, is_empty
from policyd.program import Alert, CompiledPolicy, Handler, State

#: The window of a policy of several steps that names none.
DEFAULT_WITHIN_NS = 5 * 60_000_000_000

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
    states = automaton.build(policy.shape)
    steps = [typed.step for typed in policy.steps]
    kept = automaton.minimise(automaton.without_hidden(states, steps))
    _report_steps(policy, states, kept, sink)
    within_ns = _window(policy, kept, sink)
    if sink.errors > errors:
        return None
    used = automaton.used_steps(kept)
    compiled = CompiledPolicy(
        name=policy.name,
        place=policy.place,
        hash="",
        steps=tuple(steps[number] for number in used),
        states=automaton.renumber_steps(kept, used),
        handlers=_handlers(policy),
        meta=policy.meta,
        key=policy.key,
        within_ns=within_ns,
        response=policy.response,
        max_partials=policy.max_partials,
        throttle=policy.throttle,
    )
    lint(policy, compiled, sink, plugins)
    return replace(compiled, hash=policy_hash(compiled))


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


def _report_steps(policy: TypedPolicy, states: tuple[State, ...], kept: tuple[State, ...], sink: Sink) -> None:
    if is_empty(policy.shape):
        sink.report(
            "ER0408",
            policy.node.name.span,
            f"the policy {quote(policy.name)} has no step and never matches",
            level=Level.WARNING,
            help="add a step: an event with conditions",
        )
        return
    used = set(automaton.used_steps(kept))
    built = set(automaton.used_steps(states))
    for number, typed in enumerate(policy.steps):
        if number in used:
            continue
        if number in built:
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
    for transition in kept[0].transitions:
        within = policy.steps[transition.step].node.within
        if within:
            sink.report(
                "ER0407",
                within.span,
                "`within` on a first step: no step comes before it",
                help="limit a later step, or the whole policy",
            )


def _window(policy: TypedPolicy, states: tuple[State, ...], sink: Sink) -> int | None:
    option = next((o for o in policy.node.options if o.name == "within"), None)
    if automaton.is_single_event(states):
        if option and states[0].transitions:
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
