"""The typed tree: what names and types made of a policy, and what the automaton is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from execray.schema.records import record
from policyd.compiler import ast
from policyd.compiler.source import Span
from policyd.program import Exemption, FieldRef, Handler, KeyKind, Meta, Mode, Place, Response, Step


@record
class One:
    """One step by its number; repeat is "", ".." (one or more) or "..." (zero or more)."""

    step: int
    repeat: str = ""


@record
class Seq:
    """One after the other; empty: nothing."""

    items: tuple[Shape, ...] = ()


@record
class Choice:
    """test, then `then`; or, where an event of `other` comes first, the rest of that."""

    test: One
    then: Shape
    other: Shape


@record
class Either:
    """The branch whose first step comes first; of two that one event begins, the first in the text."""

    branches: tuple[Shape, ...]


@record
class Benign:
    """The end of the partial, in silence. span: where the author says so."""

    span: Span


@record
class Guarded:
    """A block in which an event that meets one of the steps in `untils` cancels the partial."""

    body: Shape
    untils: tuple[int, ...]


Shape: TypeAlias = One | Seq | Choice | Either | Benign | Guarded


def nullable(shape: Shape) -> bool:
    """Whether nothing at all completes it."""
    match shape:
        case One(repeat=repeat):
            return repeat == "..."
        case Seq(items=items):
            return all(nullable(item) for item in items)
        case Guarded(body=body):
            return nullable(body)
        case Either(branches=branches):
            return any(nullable(branch) for branch in branches)
    return False


def is_empty(shape: Shape) -> bool:
    """Whether it holds no step at all."""
    match shape:
        case Seq(items=items):
            return all(is_empty(item) for item in items)
        case Guarded(body=body):
            return is_empty(body)
    return False


def ends(shape: Shape) -> bool:
    """Whether every way through it ends in `benign`, so that nothing can follow."""
    match shape:
        case Benign():
            return True
        case Seq(items=items):
            return any(ends(item) for item in items)
        case Guarded(body=body):
            return ends(body)
        case Either(branches=branches):
            return all(ends(branch) for branch in branches)
        case Choice(then=then, other=other):
            return ends(then) and (is_empty(other) or ends(other))
    return False


def first_benign(shape: Shape) -> Benign | None:
    """Returns the `benign` that stands before any step of the shape, if one does."""
    match shape:
        case Benign():
            return shape
        case Seq(items=items):
            return next((first_benign(item) for item in items if not is_empty(item)), None)
        case Guarded(body=body):
            return first_benign(body)
        case Either(branches=branches):
            return next((found for found in map(first_benign, branches) if found), None)
    return None


def last_steps(shape: Shape) -> frozenset[int]:
    """Returns the steps that can complete it."""
    match shape:
        case One(step=step, repeat=repeat):
            return frozenset() if repeat == "..." else frozenset((step,))
        case Seq(items=items) if not ends(shape):
            required = next((item for item in reversed(items) if not nullable(item)), None)
            return last_steps(required) if required is not None else frozenset()
        case Guarded(body=body):
            return last_steps(body)
        case Either(branches=branches):
            return frozenset(step for branch in branches for step in last_steps(branch))
        case Choice(test=test, then=then, other=other):
            first = last_steps(test) if nullable(then) else last_steps(then)
            return first | last_steps(other)
    return frozenset()


@record
class TypedStep:
    """A checked step, and its source for what is reported later."""

    step: Step
    node: ast.Step


@record
class TypedBlock:
    """A labelled block: its labels from the outermost, and the numbers of the steps in it."""

    labels: tuple[str, ...]
    span: Span
    steps: tuple[int, ...]


@record
class TypedUntil:
    """until step: the step's number, and where it stands."""

    step: int
    span: Span


@record
class TypedHandler:
    """A checked handler. block_steps: the steps of the innermost block around it, None at the top."""

    handler: Handler
    node: ast.Handler
    block_steps: tuple[int, ...] | None


@dataclass(slots=True)
class TypedPolicy:
    """Everything a policy says, checked."""

    node: ast.Policy
    name: str
    place: Place
    shape: Shape = field(default_factory=Seq)
    steps: list[TypedStep] = field(default_factory=list)
    blocks: list[TypedBlock] = field(default_factory=list)
    handlers: list[TypedHandler] = field(default_factory=list)
    untils: list[TypedUntil] = field(default_factory=list)  # of the whole policy; blocks have theirs in the shape
    block_untils: list[TypedUntil] = field(default_factory=list)
    exemptions: list[Exemption] = field(default_factory=list)
    meta: Meta = field(default_factory=Meta)
    key: KeyKind = KeyKind.PROCESS
    key_text: str = "process"
    mode: Mode = field(default_factory=Mode)
    within_ns: int | None = None
    response: Response = Response.AUDIT
    max_partials: int = 1024
    throttle: tuple[int, int] | None = None  # None: the default
    throttle_by: tuple[FieldRef, ...] | None = None
