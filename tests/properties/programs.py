"""Random compiled policies: any automaton that a text could become, and conditions that few values tell apart."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, replace
from random import Random

from execray.schema.catalog import EVENT_BY_NAME, EVENTS, HEAD_FIELD_BY_NAME
from execray.schema.kinds import Kind
from policyd.program import (
    IT,
    Alert,
    And,
    CompiledPolicy,
    Exemption,
    Expr,
    FieldRef,
    Handler,
    KeyKind,
    Mode,
    Not,
    Op,
    Operand,
    Or,
    Overlap,
    Place,
    Quantified,
    State,
    Step,
    Test,
    Times,
    Transition,
    Until,
)

SECOND = 1_000_000_000
HERE = Place("random.policy", 1, 1)
_KINDS = {field.name: field.kind for event in EVENTS for field in event.by_name.values()}
_KINDS |= {name: field.kind for name, field in HEAD_FIELD_BY_NAME.items()}
_EVENTS = ("open", "open", "write", "chmod", "connect", "open|write", "open|write|chmod")
_RARE_EVENTS = {"exits": "exit", "forks": "fork", "execs": "exec"}

#: Key parts of one type each; the steps of a policy draw theirs from one row.
_KEYS: tuple[tuple[str, ...], ...] = (
    ("path",),
    ("path", "exe"),
    ("path", "file.id", "exe"),
    ("uid",),
    ("uid", "parent.uid"),
    ("dst.port", "uid"),
    ("proc.id", "parent.proc.id"),
    ("parent.proc.id",),
    ("proc.id", "child.id"),
    ("file.id",),
    ("dst.ip",),
    ("proc.id",),
    ("ancestor[1].proc.id", "parent.proc.id"),
    ("parent.proc.age",),
    ("session.id",),
    ("entry.id", "session.id", "proc.id"),
    ("container.id",),
    ("user.id",),
    ("user.id", "uid", "loginuid"),
)


def field(name: str, alias: str | None = None, index: int | None = None) -> FieldRef:
    """Returns a reference to a field by its canonical name."""
    bare = name
    if name.startswith(("parent.", "ancestor[", f"{IT}.")):
        bare = name.split(".", 1)[1]
    kind = Kind.BYTES if name in (IT, "ancestor") else _KINDS[bare]
    return FieldRef(name, kind, alias, index)


def test(name: str | FieldRef, op: Op, value: Operand | None = None, *, all: bool = False, fold: bool = False) -> Test:
    """Returns a test."""
    return Test(field(name) if isinstance(name, str) else name, op, value, all, fold)


test.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def shown_field(ref: FieldRef) -> str:
    """Returns a field as the language writes it."""
    alias = f"{ref.alias}." if ref.alias else ""
    return alias + ref.name + (f"[{ref.index}]" if ref.index is not None else "")


_ATOMS: tuple[Expr, ...] = (
    test("path", Op.EQ, b"/a"),
    test("path", Op.EQ, b"/a"),
    test("path", Op.NE, b"/b"),
    test("path", Op.IN, (b"/a", b"/c/b")),
    test("path", Op.MATCH, (rb"^/[ab]$", b"c/b")),
    test("path", Op.ENDSWITH, (b"b",)),
    test("path", Op.STARTSWITH, (b"/c", b"/b")),
    test("path", Op.CONTAINS, (b"/", b"A"), all=True, fold=True),
    test("path", Op.EQ, b"/A", fold=True),
    test("uid", Op.EQ, 0),
    test("uid", Op.EQ, 0),
    test("uid", Op.NE, field("parent.uid")),
    test("parent.uid", Op.EQ, 0),
    test("parent.exe", Op.EQ, b"/bin/a"),
    test("ret", Op.LT, 0),
    test("ret", Op.GE, 0),
    test("ret", Op.EQ, field("uid")),
    test("argv", Op.EQ, b"a"),
    test("argv", Op.NE, b"b"),
    test("argv", Op.CONTAINS, (b"a", b"b"), all=True),
    test(field("argv", index=1), Op.EQ, b"b"),
    test("argc", Op.GT, 1),
    test("argv", Op.CONTAINS, field("name")),
    test("argv", Op.EQ, field("name")),
    test("path", Op.ENDSWITH, field("name")),
    test("exe", Op.STARTSWITH, field("parent.exe")),
    test("mode", Op.HAS, field("fd")),
    test("name", Op.EQ, b"b"),
    test("proc.age", Op.LT, 11 * SECOND),
    test("parent.proc.age", Op.GT, 5 * SECOND),
    test("user.name", Op.EQ, b"u"),
    test("exe", Op.EQ, b"/bin/a"),
    test("mode", Op.HAS, 1),
    test("mode", Op.HASANY, 2),
    test("created", Op.TRUE),
    test("fd", Op.IN, (0, 2)),
    test("dst.port", Op.EQ, 443),
    test("dst.ip", Op.IN, (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_address("::1").packed)),
    test("content", Op.STARTSWITH, (b"x",)),
    test("content", Op.MATCH, (b"^.x$",)),
)
_LISTS: tuple[Expr, ...] = (
    test("ancestor[1].exe", Op.NE, b"/bin/b"),
    test("ancestor[2].uid", Op.EQ, 0),
    Quantified(field("argv"), test(IT, Op.EQ, b"a")),
    Quantified(field("argv"), test(IT, Op.CONTAINS, (b"a", b"c")), every=True),
    Quantified(field("argv"), And((test(IT, Op.STARTSWITH, (b"-",)), test("uid", Op.EQ, 0)))),
    Quantified(field("ancestor"), test(f"{IT}.exe", Op.EQ, b"/bin/a")),
    Quantified(field("ancestor"), test(f"{IT}.uid", Op.EQ, 0), every=True),
    Quantified(field("ancestor"), test(f"{IT}.uid", Op.EQ, field("uid"))),
    Quantified(field("ancestor"), And((test(f"{IT}.name", Op.EQ, b"a"), Not(test(f"{IT}.uid", Op.EQ, 0))))),
)
_CUT: tuple[Expr, ...] = (
    test("path", Op.TRUNCATED),
    test("argv", Op.TRUNCATED),
    test("exe", Op.TRUNCATED),
    test("path", Op.EXISTS),
    Not(test("path", Op.EXISTS)),
)
#: What the kernel tests, and what is close to it and can't be tested there.
_KERNEL: tuple[Expr, ...] = (
    test("path", Op.STARTSWITH, (b"/c/",)),
    test("path", Op.STARTSWITH, (b"/c/d", b"pipe:")),
    test("path", Op.CONTAINS, (b"/d/",)),
    test("path", Op.CONTAINS, (b"c", b"/d/"), all=True),
    test("path", Op.ENDSWITH, (b"/ab", b"a long name of a file")),
    test("path", Op.ENDSWITH, (b"]",)),
    test("path", Op.ENDSWITH, (b".sh",)),
    test("path", Op.MATCH, (rb"^/c/[^/]*/ab$",)),
    test("path", Op.MATCH, (rb"/(a|ab)$", rb"^(pipe|memfd):")),
    test("path", Op.MATCH, (rb"(?:\A|/)x\.sh\z",)),
    test("path", Op.MATCH, (rb"(?i)/A$",)),
    test("path", Op.EXISTS),
    Not(test("path", Op.EXISTS)),
    Not(test("path", Op.STARTSWITH, (b"/c/",))),
    Not(test("path", Op.ENDSWITH, (b"]",))),
    test("flags", Op.HAS, 0o101),
    test("flags", Op.HASANY, 0o103),
    test("flags", Op.EQ, 0),
    Not(test("flags", Op.HASANY, 3)),
    test("access", Op.HAS, 1),
    test("access", Op.HAS, 2),
    test("access", Op.EQ, 3),
    Or((Not(test("access", Op.EXISTS)), test("access", Op.HAS, 2))),
    test("ret", Op.EQ, -1),
    test("ret", Op.IN, (3, 0)),
    test("ret", Op.NE, 0),
    Not(test("ret", Op.IN, (0, -1))),
    test("uid", Op.GT, 0),
    test("comm", Op.EQ, b"one"),
    test("comm", Op.IN, (b"one", b"two")),
    Not(test("comm", Op.EQ, b"one")),
    test("created", Op.EQ, False),
    test("dst.port", Op.LT, 100),
    Or((test("path", Op.EQ, b"/a"), test("uid", Op.EQ, 0))),
    And((test("path", Op.STARTSWITH, (b"/c/",)), test("path", Op.ENDSWITH, (b"b",)))),
    Or((test("path", Op.EQ, b"/a"), test("file.names", Op.EQ, b"/a"))),
    And((test("path", Op.NE, b"/a"), Not(test("file.names", Op.EQ, b"/a")))),
    test("file.names", Op.IN, (b"/a", b"/b")),
)
_NETWORKS = (
    ("10.0.0.0/8", "::1"),
    ("2001:db8::/126", "2001:db8::2"),
    ("2001:db8::/32", "192.0.2.7"),
    ("::/0", "10.0.0.1"),
    ("::ffff:0:0/96", "::ffff:10.0.0.1"),
    ("::5:0:0:0:0/65", "::5:0:0:0:1"),
)
_ADDRESSES: tuple[Expr, ...] = (
    *(
        test("dst.ip", Op.IN, (ipaddress.ip_network(one), ipaddress.ip_address(other).packed))
        for one, other in _NETWORKS
    ),
    *(Not(test("dst.ip", Op.IN, (ipaddress.ip_network(one),))) for one, _ in _NETWORKS),
    *(test("dst.ip", Op.NE, ipaddress.ip_address(other).packed) for _, other in _NETWORKS),
    test("dst.ip", Op.EXISTS),
    Not(test("dst.ip", Op.EXISTS)),
)


@dataclass
class _Draft:
    """A policy while it is drawn."""

    rng: Random
    features: frozenset[str]
    steps: list[Step]
    key: KeyKind = KeyKind.PROCESS
    key_rows: tuple[tuple[str, ...], ...] = ()

    def has(self, feature: str, chance: float = 1.0) -> bool:
        return feature in self.features and self.rng.random() < chance

    # ---- conditions

    def condition(self, depth: int = 2) -> Expr:
        rng = self.rng
        roll = rng.random()
        if depth == 2 and roll < 0.35:
            return And(())
        if depth and roll < 0.55:
            parts = tuple(self.condition(depth - 1) for _ in range(2))
            return rng.choice((And, Or))(parts)
        if depth and roll < 0.65:
            return Not(self.condition(depth - 1))
        return self.atom()

    def atom(self) -> Expr:
        rng = self.rng
        if self.has("addresses", 0.7):
            return rng.choice(_ADDRESSES)
        if self.has("kernel", 0.5):
            return rng.choice(_KERNEL)
        if self.has("references", 0.3) and self.steps:
            earlier = rng.choice(self.steps).alias
            name = rng.choice(("path", "path", "uid", "fd", "exe", "ret"))
            return test(name, rng.choice((Op.EQ, Op.EQ, Op.NE)), field(name, earlier))
        if self.has("quantifiers", 0.3):
            return rng.choice(_LISTS)
        if self.has("truncated", 0.15):
            return rng.choice(_CUT)
        return rng.choice(_ATOMS)

    # ---- steps

    def step(self, *, plain: bool = False) -> int:
        """Adds a step and returns its number. plain: without a window or a count."""
        rng = self.rng
        events = "connect" if self.has("addresses", 0.7) else rng.choice(_EVENTS)
        for feature, event in _RARE_EVENTS.items():
            if self.has(feature, 0.07):
                events = event
        within = times = None
        if not plain and self.has("times", 0.45):
            times = self.times()
        elif not plain and self.has("step windows", 0.3):
            within = rng.choice((SECOND // 2, SECOND, 2 * SECOND))
        condition = self.condition()
        number = len(self.steps)
        alias = f"s{number}"
        codes = tuple(EVENT_BY_NAME[name].code for name in events.split("|"))
        key = tuple(field(rng.choice(row)) for row in self.key_rows)
        self.steps.append(
            Step(codes, condition, events, HERE, alias, within_ns=within, key=key, times=times),
        )
        return number

    def times(self) -> Times:
        rng = self.rng
        within = rng.choice((None, SECOND // 2, SECOND, 2 * SECOND))
        distinct = field(rng.choice(("path", "path", "fd", "uid", "exe"))) if self.has("distinct", 0.5) else None
        return Times(rng.choice((2, 2, 3, 4)), within, distinct)

    # ---- the automaton

    def states(self, count: int) -> list[State]:
        """Places in a row, the last accepts; each has one way forward, or as many as the features allow."""
        rng = self.rng
        ends = [State(accepting=True)]
        if self.has("benign", 0.7):
            ends.append(State())
        states: list[State] = []
        for place in range(count):
            ways = [Transition(self.some_step(place), place + 1)]
            while self.has("choice", 0.35) and len(ways) < 3:
                target, step = rng.randint(place + 1, count - 1 + len(ends)), self.some_step(place)
                if all(way.step != step for way in ways):  # a second way with one step could never be taken
                    ways.insert(rng.randrange(len(ways) + 1), Transition(step, target))
            repeats = []
            if place and self.has("repeats", 0.5):
                repeats.append(ways[0].step if rng.random() < 0.2 else self.repeatable())
            plain = tuple(step for step in dict.fromkeys(repeats) if self.steps[step].times is None)
            states.append(State(tuple(ways), plain))
        return [*states, *ends]

    def some_step(self, place: int) -> int:
        # Steps are places in the text, so two transitions rarely take the same one.
        if self.steps and self.has("shared steps", 0.2):
            return self.rng.randrange(len(self.steps))
        return self.step()

    def repeatable(self) -> int:
        # `X ..`: the step that led here, or `X ...`: one that only repeats.
        return len(self.steps) - 1 if self.steps and self.rng.random() < 0.6 else self.step(plain=True)


def random_policy(rng: Random, features: frozenset[str], name: str) -> CompiledPolicy:
    """Returns a policy that uses what the features allow."""
    draft = _Draft(rng, features, [])
    keys = [KeyKind.PROCESS, *(kind for kind in KeyKind if kind.value in features)]
    draft.key = rng.choice(keys)
    if draft.key is KeyKind.FIELDS:
        draft.key_rows = tuple(rng.sample(_KEYS, rng.choice((0, 1, 1, 1, 2))))
    states = draft.states(rng.choice((1, 1, 2, 2, 3, 3, 4)))
    untils = tuple(_until(draft, len(states)) for _ in range(rng.randint(1, 2))) if draft.has("until", 0.6) else ()
    exemptions: list[Exemption] = []
    while draft.has("exemptions", 0.5) and len(exemptions) < 3:
        exemptions.append(Exemption(draft.condition(), f"reason {len(exemptions)}", HERE))
    handlers = [Handler((Alert(),))]
    if draft.has("handlers", 0.5):
        handlers.append(Handler((Alert(),), step=rng.choice(draft.steps).alias))
    policy = CompiledPolicy(
        name,
        HERE,
        "",
        tuple(draft.steps),
        tuple(states),
        tuple(handlers),
        key=draft.key,
        within_ns=rng.choice((SECOND, 2 * SECOND, 4 * SECOND, 60 * SECOND)),
        mode=_mode(draft),
        untils=untils,
        exemptions=tuple(exemptions),
    )
    return hashed(policy)


def _until(draft: _Draft, states: int) -> Until:
    everywhere = tuple(range(states))
    inside = tuple(sorted(draft.rng.sample(everywhere, draft.rng.randint(1, states))))
    return Until(draft.step(plain=True), draft.rng.choice((everywhere, inside)))


def _mode(draft: _Draft) -> Mode:
    modes = [Mode()]
    if "first" in draft.features:
        modes.append(Mode(Overlap.FIRST))
    if "all" in draft.features:
        modes += [Mode(Overlap.ALL, copies) for copies in (1, 2, 3, 8)]
    return draft.rng.choice(modes)


def hashed(policy: CompiledPolicy) -> CompiledPolicy:
    """Returns the policy with a hash of what decides its behaviour."""
    bare = replace(policy, hash="")
    return replace(policy, hash=hashlib.sha256(repr(bare).encode()).hexdigest())


# ---- shown to people


def describe(policy: CompiledPolicy) -> str:
    """Returns a policy in words like the language's, its automaton spelt out."""
    mode = policy.mode.overlap.value + (f" {policy.mode.copies}" if policy.mode.overlap is Overlap.ALL else "")
    window = "" if policy.within_ns is None else f" within {_seconds(policy.within_ns)}"
    lines = [f'path "{policy.name}" key {policy.key.value}{window} mode {mode} {{']
    lines += [f"    step {number}: {_step(step)}" for number, step in enumerate(policy.steps)]
    for number, state in enumerate(policy.states):
        ways = ", ".join(f"step {way.step} -> {way.target}" for way in state.transitions)
        repeats = "".join(f"  + step {step} .." for step in state.repeats)
        end = "" if state.transitions else "accept" if state.accepting else "benign"
        lines.append(f"    state {number}: {ways}{end}{repeats}")
    lines += [f"    until step {until.step} in states {list(until.states)}" for until in policy.untils]
    lines += [f'    except "{e.reason}" {{ {show(e.condition)} }}' for e in policy.exemptions]
    lines += [f"    on step {handler.step}" for handler in policy.handlers if handler.step]
    return "\n".join([*lines, "}"])


def _seconds(ns: int) -> str:
    return f"{ns / SECOND:g}s"


def _step(step: Step) -> str:
    out = f"{step.text} {{ {show(step.condition)} }} as {step.alias}"
    if step.key:
        out += " by " + ", ".join(shown_field(ref) for ref in step.key)
    if step.within_ns is not None:
        out += f" within {_seconds(step.within_ns)}"
    if step.times is not None:
        out += f" times {step.times.count}"
        out += f" distinct {shown_field(step.times.distinct)}" if step.times.distinct else ""
        out += f" within {_seconds(step.times.within_ns)}" if step.times.within_ns is not None else ""
    return out


def show(expr: Expr) -> str:
    """Returns a condition in words."""
    match expr:
        case Test(ref, op, value):
            if op is Op.TRUNCATED:
                return f"truncated({shown_field(ref)})"
            right = shown_field(value) if isinstance(value, FieldRef) else "" if value is None else repr(value)
            options = (" all" if expr.all else "") + (" (ignoring case)" if expr.ignore_case else "")
            return f"{shown_field(ref)} {op.value}{options} {right}".rstrip()
        case Not(item):
            return f"not ({show(item)})"
        case And(items) | Or(items):
            word = " and " if isinstance(expr, And) else " or "
            return "(" + word.join(show(item) for item in items) + ")" if items else ""
        case Quantified(ref, item, every):
            return f"{'all' if every else 'any'} {ref.name}({show(item)})"
