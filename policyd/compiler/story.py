"""A compiled policy in plain words: what starts it, what advances it, what ends it, what it then does, and what it may hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from execray.schema.records import compared
from policyd.compiler.bounds import bounds_of, size_text
from policyd.program import (
    Action,
    Alert,
    Capture,
    CompiledPolicy,
    Exemption,
    Handler,
    KeyKind,
    Kill,
    Overlap,
    Response,
    Step,
    span_text,
)

#: Paths that are listed one by one.
_SHOWN_PATHS: Final = 16


@compared(frozen=True, slots=True)
class Section:
    """A heading and its lines; a line that begins with a space belongs to the one before it."""

    name: str
    lines: tuple[str, ...]


def story(policy: CompiledPolicy) -> list[Section]:
    """Returns the policy in words, section by section."""
    meta = policy.meta
    told = [meta.description or meta.title] if meta.description or meta.title else []
    sections = [
        Section("About", (f"{meta.severity.name.lower()}{_attack(policy)}", *told)),
        Section("Who", (_who(policy),)),
        Section("Starts", tuple(_starts(policy))),
        Section("Advances", tuple(_advances(policy))),
        Section("Ends", tuple(_ends(policy))),
        Section("Excepted", tuple(_excepted(exemption, policy) for exemption in policy.exemptions)),
        Section("By file", tuple(_by_file(policy))),
        Section("Does", tuple(_does(policy))),
        Section("Holds", tuple(_holds(policy))),
    ]
    return [section for section in sections if section.lines]


def _attack(policy: CompiledPolicy) -> str:
    return f", ATT&CK {' '.join(policy.meta.attack)}" if policy.meta.attack else ""


def _who(policy: CompiledPolicy) -> str:
    match policy.key:
        case KeyKind.PROCESS:
            return "every step is done by one and the same process, by its identity and not its bare pid"
        case KeyKind.TREE:
            return "the steps are done by the process that did the first one, or by processes that descend from it"
        case KeyKind.FIELDS if all(not step.key for step in policy.steps):
            return "the steps are done by any processes of this host: all of them count together"
        case KeyKind.FIELDS:
            key = policy.key_text.removeprefix("by ")
            return f"the steps belong together by {key}: events in which a part of that is missing don't count"


def _starts(policy: CompiledPolicy) -> Iterator[str]:
    moves = policy.states[0].transitions
    if not moves:
        yield "never: it has no step"
    for move in moves:
        done = ", and that alone completes it" if policy.states[move.target].accepting else ""
        yield f"{_met(policy.steps[move.step], move.step)}{done}"
        yield f" {policy.steps[move.step].text}"
    if moves and policy.key is not KeyKind.TREE and not _single(policy):
        match policy.mode.overlap:
            case Overlap.LATEST:
                yield "a later start by the same key replaces the one that waits in the same place"
            case Overlap.FIRST:
                yield "a later start by the same key changes nothing while one waits in the same place"
            case Overlap.ALL:
                yield f"up to {policy.mode.copies} of one key wait in each place side by side, and every combination is found"


def _advances(policy: CompiledPolicy) -> Iterator[str]:
    for number, state in enumerate(policy.states[1:], start=1):
        for order, move in enumerate(state.transitions, start=1):
            step, target = policy.steps[move.step], policy.states[move.target]
            place = f"in place {number}" if len(policy.states) > 3 else "then"
            rank = f", choice {order}" if len(state.transitions) > 1 else ""
            end = (
                "the match"
                if target.accepting
                else f"place {move.target}"
                if target.transitions
                else "the end, in silence"
            )
            yield f"{place}{rank}: {_met(step, move.step)}; that leads to {end}"
            yield f" {step.text}"
        for repeat in state.repeats:
            yield f"in place {number}, further events like {_name(policy.steps[repeat], repeat)} are kept as evidence"


def _ends(policy: CompiledPolicy) -> Iterator[str]:
    if _single(policy):
        return
    if policy.within_ns is not None:
        yield f"{span_text(policy.within_ns)} after its first event"
    if policy.key is KeyKind.PROCESS:
        yield "2s after its process has ended"
    for until in policy.untils:
        everywhere = len(until.states) >= sum(1 for state in policy.states[1:] if state.transitions)
        places = "" if everywhere else f", while in place {', '.join(map(str, until.states))}"
        yield f"at once when {_met(policy.steps[until.step], until.step)}{places}"
        yield f" {policy.steps[until.step].text}"


def _excepted(exemption: Exemption, policy: CompiledPolicy) -> str:
    until = f", until {exemption.until}" if exemption.until else ""
    place = exemption.place
    file = "" if place.file == policy.place.file else f"{place.file}, "
    return f"{exemption.reason or 'without a reason given'}{until} ({file}line {place.line})"


def _by_file(policy: CompiledPolicy) -> Iterator[str]:
    paths = [path.decode("utf-8", "backslashreplace") for path in policy.paths_by_file]
    if not paths:
        return
    yield "these paths are matched by the file's identity too: by hard links, bind mounts, in other mount namespaces"
    for path in paths[:_SHOWN_PATHS]:
        yield f" {path}"
    if len(paths) > _SHOWN_PATHS:
        yield f" and {len(paths) - _SHOWN_PATHS} more"


def _does(policy: CompiledPolicy) -> Iterator[str]:
    for handler in policy.handlers:
        yield f"{_when(handler)}: {', '.join(_action(action) for action in handler.actions)}"
    if all(handler.step is not None for handler in policy.handlers):
        yield "on a match: alert"
    limit, per_ns = policy.throttle
    by = "for each program that does it" if policy.key is KeyKind.PROCESS else "for each key"
    if policy.throttle_by is not None:
        by = f"for each {', '.join(field.name for field in policy.throttle_by)}" if policy.throttle_by else "in all"
    alerts = "1 alert" if limit == 1 else f"{limit} alerts"
    yield f"at most {alerts} in {span_text(per_ns)} {by}; the next one says how many were held back"
    if any(isinstance(action, Kill) for handler in policy.handlers for action in handler.actions):
        if policy.response is Response.AUDIT:
            yield "response audit: a kill is only reported as what would have been done"
        else:
            yield "response enforce: it kills where the host's mode is enforce too"


def _holds(policy: CompiledPolicy) -> Iterator[str]:
    bounds = bounds_of(policy)
    waiting = f", at most {bounds.partials} begun at a time" if bounds.partials else ""
    yield f"{_counted(bounds.steps, 'step')}, {_counted(bounds.places, 'waiting place')}{waiting}"
    if bounds.count_bytes:
        each = size_text(bounds.partial_bytes)
        yield f"counts in at most {size_text(bounds.count_bytes)}: {each} for each that has begun"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _single(policy: CompiledPolicy) -> bool:
    return all(policy.states[move.target].accepting for move in policy.states[0].transitions) and not any(
        step.times for step in policy.steps
    )


def _name(step: Step, number: int) -> str:
    return f"`{step.alias}`" if step.alias else f"step {number + 1}"


def _met(step: Step, number: int) -> str:
    text = _name(step, number)
    if step.times is not None:
        what = f"different values of {step.times.distinct.name}" if step.times.distinct else "events"
        within = f" within {span_text(step.times.within_ns)}" if step.times.within_ns else ""
        text += f" is met by {step.times.count} {what}{within}"
    else:
        text += " is met"
    if step.within_ns is not None:
        text += f", at most {span_text(step.within_ns)} after the step before it"
    return text + (f" (in {' / '.join(step.labels)})" if step.labels else "")


def _when(handler: Handler) -> str:
    when = "on a match" if handler.step is None else f"when `{handler.step}` is met"
    when += f" through {' / '.join(handler.labels)}" if handler.labels else ""
    return when + (" and the handler's `if` holds" if handler.condition is not None else "")


def _action(action: Action) -> str:
    match action:
        case Alert(severity=None):
            return "alert"
        case Alert(severity=severity):
            return f"alert {severity.name.lower()}" if severity else "alert"
        case Kill():
            return "kill the process behind the event"
        case Capture(duration_ns=duration, max_bytes=size):
            return f"capture its network traffic for {span_text(duration)}, at most {size >> 10} KiB"
        case _:
            return type(action).__name__.lower()
