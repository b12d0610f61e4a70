"""Random policies as their authors write them: trees of statements, and rendered as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias, TypeVar

#: What the generator can write and the compiler, as it stands, takes.
FEATURES: tuple[str, ...] = (
    *("tree", "host", "user", "session", "entry", "container", "by"),
    *("choice", "either", "blocks", "benign", "until", "exceptions", "alike"),
    *("repeats", "step windows", "times", "distinct"),
    *("first", "all", "handlers"),
    *("references", "quantifiers", "truncated"),
)


@dataclass(frozen=True)
class Step:
    """EVENT { CONDITIONS } MODIFIERS."""

    events: str
    conditions: tuple[str, ...] = ()
    alias: str = ""
    modifiers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """TEST ? THEN : OTHER."""

    test: Step
    then: Statement
    other: Statement | None = None


@dataclass(frozen=True)
class Block:
    """block "LABEL" { ... }."""

    label: str
    body: tuple[Statement, ...]
    untils: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Either:
    """either { ... } or { ... }."""

    bodies: tuple[Block, ...]


@dataclass(frozen=True)
class Benign:
    """benign."""


_S = TypeVar("_S", bound="Statement")
Statement: TypeAlias = Step | Choice | Block | Either | Benign


@dataclass(frozen=True)
class Policy:
    """path "NAME" OPTIONS { ... }."""

    name: str
    options: tuple[str, ...]
    body: tuple[Statement, ...]
    untils: tuple[Step, ...] = ()
    exceptions: tuple[str, ...] = ()
    on_step: tuple[str, ...] = ()  # aliases


# ---- as text

DECLARED = """list NAMES = ["a", "init"]
macro is_root = uid = 0
macro ends(field, what) = field endswith any what

"""


def render(policies: Sequence[Policy]) -> str:
    """Returns the text of a file."""
    return DECLARED + "\n".join("\n".join(_policy(policy)) for policy in policies) + "\n"


def _policy(policy: Policy) -> Iterator[str]:
    yield f'path "{policy.name}" {" ".join(policy.options)} {{'
    for statement in policy.body:
        yield from _indented(_statement(statement))
    for until in policy.untils:
        yield f"    until {_step(until)}"
    for number, exception in enumerate(policy.exceptions):
        yield f'    except "reason {number}" {{ {exception} }}'
    for alias in policy.on_step:
        yield f"    on step {alias} {{ log }}"
    yield "}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    yield from (f"    {line}" for line in lines)


def _statement(statement: Statement) -> Iterator[str]:
    match statement:
        case Step():
            yield _step(statement)
        case Choice(test, then, other):
            # A `:` belongs to the nearest conditional that lacks one, so another in here stands in braces.
            braced = other is not None and isinstance(then, Choice)
            yield f"{_step(test)} ?" + (" {" if braced else "")
            yield from _indented(_statement(then))
            if braced:
                yield "}"
            if other is not None:
                yield ":"
                yield from _indented(_statement(other))
        case Block(label):
            yield f'block "{label}" {{'
            yield from _body(statement)
            yield "}"
        case Either(bodies):
            word = "either"
            for body in bodies:
                yield f"{word} {{"
                yield from _body(body)
                yield "}"
                word = "or"
        case Benign():
            yield "benign"


def _body(block: Block) -> Iterator[str]:
    for statement in block.body:
        yield from _indented(_statement(statement))
    for until in block.untils:
        yield f"    until {_step(until)}"


def _step(step: Step) -> str:
    alias = f" as {step.alias}" if step.alias else ""
    return " ".join([f"{step.events} {{ {', '.join(step.conditions)} }}{alias}", *step.modifiers])


# ---- drawn

_FILE = ("open", "open", "write", "write", "chmod", "open|write", "open|write|chmod")
_ON_FILES = (
    'path = "/a"',
    'path = "/a"',
    'path != "/b"',
    'path in ["/a", "/c/b"]',
    'path not in ["/a"]',
    'path =~ "^/[ab]$"',
    'path !~ "b$"',
    'path like "/c/?"',
    'path glob "/*"',
    'path istartswith "/A"',
    'basename(path) = "a"',
)
_ON_ALL = (
    "uid = 0",
    "uid = 0",
    "uid != parent.uid",
    "ret < 0",
    "ret >= 0",
    "ret in [0, 2..5]",
    'argv contains all ["a", "b"]',
    'argv[1] = "b"',
    'argv != "b"',
    'exe endswith "/a"',
    'name = "b"',
    "argc > 1",
    "proc.age < 11s",
    "parent.proc.age > 5s",
    'user.name = "u"',
    "argv contains name",
    'exe in [parent.exe, "/bin/b"]',
    "exe startswith parent.exe",
    "is_root",
    'ends(exe, ["b", "c"])',
    "name in NAMES",
    'parent.exe in ["/bin/a", "/sbin/init"]',
)
_QUANTIFIED = (
    'any argv(it = "a")',
    'all argv(it contains "a" or uid = 0)',
    'none argv(it startswith "-")',
    'any ancestor(it.exe = "/bin/a" and it.uid = 0)',
    "none ancestor(it.uid = uid)",
    'ancestor[1].exe = "/sbin/init"',
)
_CUT = ("truncated(path)", "not truncated(path)", "truncated(exe)", "path is null", "path exists")
_WINDOWS = ("500ms", "1s", "2s")


class _Draft:
    """A policy while it is drawn."""

    def __init__(self, rng: Random, features: frozenset[str], keys: tuple[str, ...]) -> None:
        self.rng = rng
        self.features = features
        self.keys = keys
        self.aliases: list[str] = []
        self.visible: list[str] = []  # of these, what the statement at hand may refer to
        self.labels = 0
        self.last: tuple[str, tuple[str, ...]] | None = None

    def has(self, feature: str, chance: float = 1.0) -> bool:
        return feature in self.features and self.rng.random() < chance

    def condition(self, *, files: bool) -> str:
        rng, roll = self.rng, self.rng.random()
        if roll < 0.12:
            return f"({self.condition(files=files)} or {self.condition(files=files)})"
        if roll < 0.2:
            return f"not ({self.condition(files=files)})"
        if self.visible and self.has("references", 0.3):
            return f"uid {rng.choice(('=', '!='))} {rng.choice(self.visible)}.uid"
        if self.has("quantifiers", 0.25):
            return rng.choice(_QUANTIFIED)
        if files and self.has("truncated", 0.15):
            return rng.choice(_CUT)
        return rng.choice((*_ON_FILES, *_ON_FILES, *_ON_ALL) if files else _ON_ALL)

    def step(self, *, plain: bool = False, dots: bool = True, first: bool = False) -> Step:
        rng = self.rng
        events = rng.choice(_FILE)
        if self.has("exits", 0.07):
            events = "exit"
        if rng.random() < 0.1:
            events = "connect"
        files = events not in ("exit", "connect")
        count = rng.choice((0, 1, 1, 1, 2))
        conditions = tuple(
            item for item in (self.condition(files=files) for _ in range(count)) if files or "ret" not in item
        )
        # Now and then what the step before takes, so that an alternative is forestalled by another.
        if (
            self.has("alike", 0.25)
            and self.last is not None
            and set(re.findall(r"s\d+", str(self.last))) <= {*self.visible}
        ):
            events, conditions = self.last
        self.last = events, conditions
        modifiers = [f"by {rng.choice(self.keys)}"] if self.keys else []
        alias = ""
        if not plain:
            modifiers += self.modifiers(dots=dots, first=first)
            alias = f"s{len(self.aliases)}"
            self.aliases.append(alias)
            self.visible.append(alias)
        return Step(events, conditions, alias, tuple(modifiers))

    def modifiers(self, *, dots: bool, first: bool) -> list[str]:
        rng = self.rng
        if self.has("times", 0.4):
            distinct = f" distinct {rng.choice(('path', 'uid', 'exe'))}" if self.has("distinct", 0.5) else ""
            within = f" within {rng.choice(_WINDOWS)}" if rng.random() < 0.7 else ""
            return [f"times {rng.choice((2, 2, 3))}{distinct}{within}"]
        out = []
        if not first and self.has("step windows", 0.25):
            out.append(f"within {rng.choice(_WINDOWS)}")
        if dots and self.has("repeats", 0.35):
            out.append(rng.choice(("..", "..", "...")))
        return out

    def body(self, depth: int, most: int = 3, *, first: bool = False) -> tuple[Statement, ...]:
        count = self.rng.randint(1, most)
        return tuple(self.statement(depth, first=first and not at) for at in range(count))

    def statement(self, depth: int, *, first: bool = False) -> Statement:
        rng = self.rng
        if depth and self.has("choice", 0.3):
            before = list(self.visible)
            test = replace_dots(self.step(first=first))
            then = Benign() if self.has("benign", 0.3) else self.branch(depth - 1)
            if rng.random() < 0.3:
                return Choice(test, then)
            return Choice(test, then, self.apart(before, lambda: self.branch(depth - 1, first=first)))
        if depth and self.has("either", 0.3):
            before = list(self.visible)
            bodies = [
                self.apart(before, lambda: self.block(depth - 1, first=first)) for _ in range(rng.choice((2, 2, 3)))
            ]
            return Either(tuple(bodies))
        if depth and self.has("blocks", 0.2):
            return self.block(depth - 1, first=first)
        return self.step(first=first)

    def apart(self, before: list[str], draw: Callable[[], _S]) -> _S:
        """Draws an alternative, which sees the aliases from before the choice; what follows sees those of all."""
        after, self.visible = self.visible, list(before)
        drawn = draw()
        self.visible = [*after, *(alias for alias in self.visible if alias not in after)]
        return drawn

    def branch(self, depth: int, *, first: bool = False) -> Statement:
        return self.block(depth, first=first) if self.has("blocks", 0.4) else self.statement(depth, first=first)

    def block(self, depth: int, *, first: bool = False) -> Block:
        self.labels += 1
        label = f"b{self.labels}"
        body = self.body(depth, 2, first=first)
        if self.has("benign", 0.15):
            body = (*body, Benign())
        return Block(label, body, self.untils(0.3))

    def untils(self, chance: float) -> tuple[Step, ...]:
        if not self.has("until", chance):
            return ()
        return (self.step(plain=True),)


def replace_dots(step: Step) -> Step:
    """Returns the step without `...`, which can't decide a conditional."""
    return replace(step, modifiers=tuple(modifier for modifier in step.modifiers if modifier != "..."))


#: `by` one of these at every step.
_KEY_ROWS = (("proc.id", "parent.proc.id"), ("exe", "parent.exe"), ("uid",), ("uid, exe",), ("parent.proc.id",))


def random_text(rng: Random, features: frozenset[str], name: str) -> Policy:
    """Returns a policy that uses what the features allow."""
    keys = rng.choice(_KEY_ROWS) if "by" in features and rng.random() < 0.5 else ()
    draft = _Draft(rng, features, keys)
    options = [f"within {rng.choice(('1s', '2s', '4s', '60s'))}"] if rng.random() < 0.8 else []
    named = ["process"] + [key for key in ("tree", "host", "user", "session", "entry", "container") if key in features]
    if not keys and len(named) > 1:
        options.append(f"key {rng.choice(named)}")
    modes = (
        ["latest"]
        + (["first"] if "first" in features else [])
        + (["all 1", "all 2", "all 8"] if "all" in features else [])
    )
    if len(modes) > 1:
        options.append(f"mode {rng.choice(modes)}")
    body = draft.body(2, first=True)
    exceptions: list[str] = []
    while draft.has("exceptions", 0.5) and len(exceptions) < 3:
        exceptions.append(draft.condition(files=False))
    on_step = (rng.choice(draft.aliases),) if draft.aliases and draft.has("handlers", 0.4) else ()
    return Policy(name, tuple(options), body, draft.untils(0.6), tuple(exceptions), on_step)
