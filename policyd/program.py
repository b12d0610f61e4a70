"""What the compiler makes of a policy and the engine runs: immutable data, all that the two share."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Iterator
from typing import TypeAlias

from execray.schema.kinds import Kind
from execray.schema.records import compared
from execray.schema.row import FILE_NAMES_NAME

#: Partials of all policies together.
MAX_PARTIALS = 20_000

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Op(enum.Enum):
    """A test's relation. Every one is false when its field is missing, or when a field it is compared with is.

    On a field of kind TEXTS a test holds when it holds for some element, except NE: non-empty and no element equal.
    """

    # Members are hashed by identity: by name, each takes a call, and tests are hashed by the thousand.
    __hash__ = object.__hash__

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"  # value: tuple of constants; for IP fields also networks
    MATCH = "=~"  # value: tuple of RE2 patterns (bytes), any of which may match anywhere; dot matches newline
    CONTAINS = "contains"  # value: tuple of bytes; some of them, or all of them where Test.all is set
    STARTSWITH = "startswith"
    ENDSWITH = "endswith"
    HAS = "has"  # all bits of value
    HASANY = "hasany"  # some bit of value
    TRUE = "true"  # a bool field by itself; for others, that a bit or the value isn't zero
    EXISTS = "exists"
    TRUNCATED = "truncated"  # captured in part only: false for a value that is whole, and for one that is missing


#: The name of the element in hand inside of a quantifier: `it`, or `it.FIELD` where the elements are processes.
IT = "it"


@compared(frozen=True, slots=True)
class FieldRef:
    """A field of the event at hand (alias None), or of the event that met an earlier step.

    name is canonical. It may begin with `parent.`, or with `ancestor[N].` for the creator N steps beyond the parent (so N is
    at least 1), or be `it` or `it.FIELD` inside of a Quantified. `ancestor` is the list of all creators, nearest first.
    index picks one element of a list, missing when the list is shorter.
    """

    name: str
    kind: Kind
    alias: str | None = None
    index: int | None = None


Constant: TypeAlias = int | bool | bytes | Network
Operand: TypeAlias = Constant | FieldRef | tuple[Constant, ...]


@compared(frozen=True, slots=True)
class Test:
    """field OP value. text is the source, for people. ignore_case folds ASCII only."""

    field: FieldRef
    op: Op
    value: Operand | None = None
    all: bool = False
    ignore_case: bool = False
    text: str = dataclasses.field(default="", compare=False)


@compared(frozen=True, slots=True)
class And:
    """True when every item is; so an empty one is true."""

    items: tuple[Expr, ...]


@compared(frozen=True, slots=True)
class Or:
    """True when some item is."""

    items: tuple[Expr, ...]


@compared(frozen=True, slots=True)
class Not:
    """Two-valued: flips a false that came from a missing field too."""

    item: Expr


@compared(frozen=True, slots=True)
class Quantified:
    """Some element of a list meets `item`, or with `every` each of at least one. A missing list has no element.

    field is a list of text, or `ancestor`. item's fields are IT ones, and any others, which mean the event as ever.
    """

    field: FieldRef
    item: Expr
    every: bool = False
    text: str = dataclasses.field(default="", compare=False)


Expr: TypeAlias = Test | And | Or | Not | Quantified


@compared(frozen=True, slots=True)
class Times:
    """A step that is met by the last `count` of its events, all within `within_ns` (None: within the policy's window).

    distinct: what is counted is the number of distinct values of this field in that window; an event without it counts not.
    """

    count: int  # 2 to 10,000
    within_ns: int | None = None
    distinct: FieldRef | None = None


@compared(frozen=True, slots=True)
class Place:
    """Where something stands in the source; line and column count from 1."""

    file: str
    line: int
    column: int


@compared(frozen=True, slots=True)
class Step:
    """One step of a policy: the events it may be met by, and the condition."""

    codes: tuple[int, ...]  # catalogue codes
    condition: Expr
    text: str = dataclasses.field(compare=False)  # the source, on one line, at most 200 characters
    place: Place = dataclasses.field(compare=False)
    alias: str | None = None
    labels: tuple[str, ...] = ()  # the blocks around it, outermost first
    within_ns: int | None = None  # at most this long after the step before it
    key: tuple[FieldRef, ...] = ()  # of an event that meets it, where the policy's key is KeyKind.FIELDS
    times: Times | None = None


@compared(frozen=True, slots=True)
class Until:
    """An event that meets `step` cancels the policy's partials of its key that wait in `states`."""

    step: int  # no transition takes it
    states: tuple[int, ...]


@compared(frozen=True, slots=True)
class Exemption:
    """A match is held back while `condition` holds for the completing event; an alias reads an earlier one."""

    condition: Expr
    reason: str
    place: Place = dataclasses.field(compare=False)
    until: str = dataclasses.field(default="", compare=False)  # the last day that it holds, YYYY-MM-DD; "": no end


@compared(frozen=True, slots=True)
class Transition:
    """On an event that meets `step`, go to `target`."""

    step: int
    target: int


@compared(frozen=True, slots=True)
class State:
    """A place in the policy. Transitions are in text order: the first that an event meets is taken.

    repeats: steps whose further matches are added to the evidence without moving (`..`, `...`).
    An accepting state has no transitions: the match is complete on entering it. A state that neither accepts nor has
    transitions ends the partial in silence (`benign`).
    """

    transitions: tuple[Transition, ...] = ()
    repeats: tuple[int, ...] = ()
    accepting: bool = False


class KeyKind(enum.Enum):
    """What the steps of one partial share."""

    PROCESS = "process"
    TREE = "tree"  # the actor of step 1 or a process descending from it
    FIELDS = "fields"  # equal values of each step's `key`; a step doesn't take an event in which one is missing


class Overlap(enum.Enum):
    """What happens where two partials of one key meet in one place."""

    LATEST = "latest"  # the newer replaces the older
    FIRST = "first"  # the older stays, the newer is dropped
    ALL = "all"  # a partial that advances also stays; up to `copies` for each place and key, the oldest dropped


@compared(frozen=True, slots=True)
class Mode:
    """How partials of one key overlap."""

    overlap: Overlap = Overlap.LATEST
    copies: int = 1  # only for Overlap.ALL


class Response(enum.Enum):
    """How far a policy may go. AUDIT reports what ENFORCE would do."""

    AUDIT = "audit"
    ENFORCE = "enforce"


class Severity(enum.IntEnum):
    """Ordered."""

    INFORMATIONAL = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


@compared(frozen=True, slots=True)
class Alert:
    """Raise an alert; severity None means the policy's."""

    severity: Severity | None = None


@compared(frozen=True, slots=True)
class Kill:
    """SIGKILL the actor of the event at hand."""


@compared(frozen=True, slots=True)
class Capture:
    """Record the actor's network traffic with tcpdump."""

    duration_ns: int
    max_bytes: int


@compared(frozen=True, slots=True)
class Log:
    """Write a log line, no alert."""


@compared(frozen=True, slots=True)
class Notify:
    """Hand a request to an action plug-in. A field in arguments is read when the handler runs; its value may be missing."""

    plugin: str
    arguments: tuple[tuple[str, Constant | FieldRef], ...] = ()


Action: TypeAlias = Alert | Kill | Capture | Log | Notify


@compared(frozen=True, slots=True)
class Handler:
    """on match | on step ALIAS, if condition, actions in text order.

    labels: the blocks it stands in; it then runs only for a match that went through them.
    """

    actions: tuple[Action, ...]
    step: str | None = None  # alias; None: on match
    condition: Expr | None = None
    labels: tuple[str, ...] = ()


@compared(frozen=True, slots=True)
class Meta:
    """What a policy says of itself."""

    id: str = ""
    title: str = ""
    description: str = ""
    severity: Severity = Severity.MEDIUM
    attack: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    author: str = ""
    status: str = ""
    falsepositives: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@compared(frozen=True, slots=True)
class CompiledPolicy:
    """One policy, ready to run. Two policies of one hash behave alike."""

    name: str
    place: Place
    hash: str  # sha256 hex of everything that decides behaviour; not of comments, layout or position
    steps: tuple[Step, ...]
    states: tuple[State, ...]  # states[0] is the start
    handlers: tuple[Handler, ...]
    meta: Meta = Meta()
    key: KeyKind = KeyKind.PROCESS
    within_ns: int | None = None  # None only where a single event completes it
    response: Response = Response.AUDIT
    max_partials: int = 1024
    throttle: tuple[int, int] = (1, 60_000_000_000)  # N alerts per DUR (ns), for each key
    throttle_by: tuple[FieldRef, ...] | None = (
        None  # instead of the key (and a process's image): values of the completing event
    )
    key_text: str = dataclasses.field(default="process", compare=False)  # as the author wrote it: `session`, `by path`
    mode: Mode = Mode()
    untils: tuple[Until, ...] = ()
    exemptions: tuple[Exemption, ...] = ()

    @property
    def paths_by_file(self) -> tuple[bytes, ...]:
        """The exact paths that are matched by the identity of their file as well, in the order of the text."""
        conditions: list[Expr | None] = [step.condition for step in self.steps]
        conditions += [handler.condition for handler in self.handlers]
        conditions += [exemption.condition for exemption in self.exemptions]
        found = (path for condition in conditions if condition is not None for path in paths_in(condition))
        return tuple(dict.fromkeys(found))

    @property
    def codes(self) -> frozenset[int]:
        """The events it needs."""
        return frozenset(code for step in self.steps for code in step.codes)

    @property
    def urgent(self) -> frozenset[int]:
        """Those of the events after which it kills, or records traffic: nobody should have to wait for these."""
        acting = [handler for handler in self.handlers if any(map(self._acts, handler.actions))]
        named = {handler.step for handler in acting}
        moves = [move for state in self.states for move in state.transitions] if None in named else []
        last = {move.step for move in moves if self.states[move.target].accepting}
        steps = (step for at, step in enumerate(self.steps) if at in last or (step.alias and step.alias in named))
        return frozenset(code for step in steps for code in step.codes)

    def _acts(self, action: Action) -> bool:
        return isinstance(action, Capture) or (isinstance(action, Kill) and self.response is Response.ENFORCE)


def paths_in(expr: Expr) -> Iterator[bytes]:
    """Yields the paths that a condition asks of `file.names`, in text order."""
    match expr:
        case Test(field=field, op=Op.EQ | Op.NE | Op.IN, value=value) if field.name == FILE_NAMES_NAME:
            values = value if isinstance(value, tuple) else (value,)
            yield from (path for path in values if isinstance(path, bytes) and path.startswith(b"/"))
        case Not(item) | Quantified(item=item):
            yield from paths_in(item)
        case And(items) | Or(items):
            for item in items:
                yield from paths_in(item)


def span_text(span_ns: int) -> str:
    """Returns a time span as a policy writes it."""
    units = (("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000))
    for unit, size in (*units, ("ms", 1_000_000), ("us", 1_000)):
        if span_ns >= size and span_ns % size == 0:
            return f"{span_ns // size}{unit}"
    return f"{span_ns}ns"
