"""The typed tree: what names and types made of a policy, and what the automaton is built from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from policyd.compiler import ast
from policyd.compiler.source import Span
from policyd.program import Handler, KeyKind, Meta, Place, Response, Step


@dataclass(frozen=True, slots=True)
class One:
    """One step by its number; repeat is "", ".." (one or more) or "..." (zero or more)."""

    step: int
    repeat: str = ""


@dataclass(frozen=True, slots=True)
class Seq:
    """One after the other; empty: nothing."""

    items: tuple[Shape, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """test, then `then`; or, where an event of `other` comes first, the rest of that."""

    test: One
    then: Shape
    other: Shape


Shape: TypeAlias = One | Seq | Choice


def nullable(shape: Shape) -> bool:
    """Whether nothing at all completes it."""
    match shape:
        case One(repeat=repeat):
            return repeat == "..."
        case Seq(items=items):
            return all(nullable(item) for item in items)
        case Choice():
            return False


def is_empty(shape: Shape) -> bool:
    """Whether it holds no step at all."""
    return isinstance(shape, Seq) and all(is_empty(item) for item in shape.items)


def last_steps(shape: Shape) -> frozenset[int]:
    """Returns the steps that can complete it."""
    match shape:
        case One(step=step, repeat=repeat):
            return frozenset() if repeat == "..." else frozenset((step,))
        case Seq(items=items):
            required = next((item for item in reversed(items) if not nullable(item)), None)
            return last_steps(required) if required is not None else frozenset()
        case Choice(test=test, then=then, other=other):
            first = last_steps(test) if nullable(then) else last_steps(then)
            return first | last_steps(other)


@dataclass(frozen=True, slots=True)
class TypedStep:
    """A checked step, and its source for what is reported later."""

    step: Step
    node: ast.Step


@dataclass(frozen=True, slots=True)
class TypedBlock:
    """A labelled block: its labels from the outermost, and the numbers of the steps in it."""

    labels: tuple[str, ...]
    span: Span
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
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
    meta: Meta = field(default_factory=Meta)
    key: KeyKind = KeyKind.PROCESS
    within_ns: int | None = None
    response: Response = Response.AUDIT
    max_partials: int = 1024
    throttle: tuple[int, int] = (1, 60_000_000_000)
