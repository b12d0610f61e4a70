"""The syntax tree: what the parser saw, with spans, before any name has a meaning."""

from __future__ import annotations

from typing import TypeAlias

from execray.schema.records import record
from policyd.compiler.source import Span

# ---- operands


@record
class Text:
    """A string. body is as written between the quotes; verbatim ones have no escapes."""

    span: Span
    body: str
    verbatim: bool


@record
class Number:
    """A number, also a negative one; unit is "" or "duration" (value in ns)."""

    span: Span
    value: int
    unit: str = ""


@record
class Name:
    """A dotted name: a field, an earlier step's field, a constant or a list. index is that of `argv[1]`."""

    span: Span
    text: str
    index: int | None = None
    negative: bool = False  # -EPERM


@record
class Call:
    """NAME(arguments)."""

    span: Span
    name: str
    arguments: tuple[Operand, ...]


@record
class BitSet:
    """A|B, with or without parentheses."""

    span: Span
    items: tuple[Operand, ...]


@record
class Range:
    """FIRST..LAST in a list, both included."""

    span: Span
    first: Number
    last: Number


@record
class ListOf:
    """[a, b]."""

    span: Span
    items: tuple[Operand, ...]


@record
class Bad:
    """Stands where something was refused already: whatever is made of it is not reported again."""

    span: Span


Operand: TypeAlias = Text | Number | Name | Call | BitSet | Range | ListOf | Bad

# ---- conditions


@record
class Compare:
    """left OP right. op is normalised: `=`, `!=`, `<`, ..., `=~`, `!~` or a word; negated for `not OP`."""

    span: Span
    left: Operand
    op: str
    op_span: Span
    right: Operand | None = None
    negated: bool = False
    quantifier: str = ""  # any, all


@record
class Bare:
    """An operand by itself."""

    span: Span
    operand: Operand


@record
class NotExpr:
    """not item."""

    span: Span
    item: Expr


@record
class AndExpr:
    """Every item."""

    span: Span
    items: tuple[Expr, ...]


@record
class OrExpr:
    """Some item. grouped: it stands in its own parentheses."""

    span: Span
    items: tuple[Expr, ...]
    grouped: bool = False


@record
class Quantified:
    """any | all | none FIELD(item), in which `it` is an element of the field."""

    span: Span
    word: Ident
    field: Name
    item: Expr


Expr: TypeAlias = Compare | Bare | NotExpr | AndExpr | OrExpr | Quantified | Bad

# ---- statements


@record
class Ident:
    """A word with its place."""

    span: Span
    text: str


@record
class Keys:
    """What behind `key` or `by` names the fields that the steps of a partial share; nested parentheses are flattened."""

    span: Span
    parts: tuple[Operand, ...]


@record
class Times:
    """times COUNT [ distinct FIELD ]."""

    span: Span
    count: Number
    distinct: Operand | None


@record
class Step:
    """event|event { conditions } as alias by keys times N within DUR .."""

    span: Span
    events: tuple[Ident, ...]
    condition: AndExpr
    alias: Ident | None
    within: Number | None
    repeat: str  # "", "..", "..."
    repeat_span: Span | None
    keys: Keys | None = None
    times: Times | None = None


@record
class Empty:
    """`..` or `...` alone."""

    span: Span


@record
class Block:
    """block "label" { ... }, or { ... } without a label."""

    span: Span
    label: Ident | None
    body: Body


@record
class Conditional:
    """test ? then : other."""

    span: Span
    test: Step
    then: Stmt | None
    other: Stmt | None


@record
class Either:
    """either { ... } or { ... }: one block for each alternative."""

    span: Span
    branches: tuple[Block, ...]


@record
class Benign:
    """benign: the partial ends here, in silence."""

    span: Span


@record
class Until:
    """until step: an event that meets it cancels."""

    span: Span
    step: Step


@record
class Unsupported:
    """A construct that was reported as not supported yet; its parts are still checked for names."""

    span: Span
    parts: tuple[Stmt, ...] = ()


Stmt: TypeAlias = Step | Empty | Block | Conditional | Either | Benign | Unsupported


@record
class Argument:
    """key = value, of what `notify` hands over."""

    key: Ident
    value: Operand


@record
class Action:
    """One action of a handler. severity: of alert; plugin and arguments: of notify; span covers it whole."""

    span: Span
    name: str
    severity: Ident | None = None
    duration: Number | None = None
    size: Number | None = None
    plugin: Text | None = None
    arguments: tuple[Argument, ...] = ()


@record
class Handler:
    """on match | on step ALIAS, if expr, actions."""

    span: Span
    step: Ident | None
    condition: Expr | None
    actions: tuple[Action, ...]


@record
class Body:
    """Statements, handlers and `until` between braces."""

    span: Span
    statements: tuple[Stmt, ...]
    handlers: tuple[Handler, ...]
    untils: tuple[Until, ...] = ()


@record
class Except:
    """except "reason" { conditions }"""

    span: Span
    reason: Text | None
    condition: AndExpr


# ---- members of a policy and of a file


@record
class Option:
    """key, within, response, max_partials, throttle or mode."""

    span: Span
    name: str
    word: Ident | None = None
    number: Number | None = None
    duration: Number | None = None
    keys: Keys | None = None


@record
class Declaration:
    """let NAME = value, list NAME = [...]."""

    span: Span
    name: Ident
    value: Operand


@record
class Addition:
    """list NAME += [...]. span: up to the sign."""

    span: Span
    name: Ident
    items: tuple[Operand, ...]


@record
class Macro:
    """macro NAME(parameters) = condition."""

    span: Span
    name: Ident
    parameters: tuple[Ident, ...]
    body: Expr


@record
class MetaItem:
    """One entry of meta: texts for a list, otherwise one."""

    key: Ident
    value: Operand


@record
class Policy:
    """path "name" ... { ... }. broken: something in it could not be read, so its meaning is not checked.

    incomplete: something in it is not supported yet, so names and types are checked and no automaton is built.
    """

    span: Span
    name: Text
    options: tuple[Option, ...]
    meta: tuple[MetaItem, ...]
    declarations: tuple[Declaration, ...]
    body: Body
    broken: bool
    incomplete: bool
    macros: tuple[Macro, ...] = ()
    exceptions: tuple[Except, ...] = ()
    additions: tuple[Addition, ...] = ()


@record
class Outside:
    """exception for "glob" "reason" until "date" { conditions }: holds for policies of any file. span: up to the brace."""

    span: Span
    glob: Text
    reason: Text | None
    until: Text | None
    condition: AndExpr


@record
class File:
    """All of one file."""

    policies: tuple[Policy, ...]
    declarations: tuple[Declaration, ...]
    macros: tuple[Macro, ...]
    additions: tuple[Addition, ...] = ()
    exceptions: tuple[Outside, ...] = ()
