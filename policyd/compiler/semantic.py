"""Names and types: walks a policy in text order, checks it against the catalogue, and makes the typed tree."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import replace

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import ast
from policyd.compiler.checker import ConditionChecker
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.lexer import strip_comments
from policyd.compiler.literals import plain_text
from policyd.compiler.metadata import apply_options, check_meta, duration_ns, in_range, severity_of
from policyd.compiler.names import (
    PLANNED_EVENTS,
    AliasInfo,
    Declared,
    Names,
    dotted_heads,
    family_of,
    near,
)
from policyd.compiler.notices import NotifyChecker
from policyd.compiler.source import Span
from policyd.compiler.typed import (
    Choice,
    One,
    Seq,
    Shape,
    TypedBlock,
    TypedHandler,
    TypedPolicy,
    TypedStep,
    last_steps,
)
from policyd.program import Action, Alert, And, Capture, Expr, Handler, Kill, Log, Notify, Place, Step

#: A policy may have this many steps, and as many blocks.
MAX_STEPS = 1024
MAX_HANDLERS = 256
MAX_NOTICES = 64
_MAX_NAME = 200
_MAX_STEP_TEXT = 200
_DEFAULT_CAPTURE_NS = 5_000_000_000
_DEFAULT_CAPTURE_BYTES = 1 << 20
_CAPTURE_NS = (100_000_000, 3_600_000_000_000)
_CAPTURE_BYTES = (1 << 10, 1 << 30)

_Bound = Mapping[str, tuple[int, ...]]  # alias -> codes of the steps it may stand for


def declare(
    declarations: tuple[ast.Declaration, ...], outer: MutableMapping[str, Declared], sink: Sink
) -> MutableMapping[str, Declared]:
    """Returns the declared names of a scope over those of the scope around it; reports doubles."""
    own: dict[str, Declared] = {}
    for declaration in declarations:
        name = declaration.name
        if name.text in own:
            sink.report(
                "ER0208",
                name.span,
                f"{quote(name.text)} is declared twice",
                labels=(Label(own[name.text].span, "first declared here"),),
                help="give one of them another name",
            )
            continue
        if family_of(name.text) is not None:
            sink.report("ER0208", name.span, f"{quote(name.text)} is a constant already", help="choose another name")
        own[name.text] = Declared(name.span, declaration.value)
    return ChainMap(own, outer)  # not a copy: there may be many policies under many lists


class PolicyChecker:
    """Checks one policy. Errors go to the sink; what is returned is complete only where there were none."""

    def __init__(
        self, node: ast.Policy, declared: MutableMapping[str, Declared], macros: frozenset[str], sink: Sink
    ) -> None:
        self._sink = sink
        self._declared = declare(node.declarations, declared, sink)
        self._macros = macros | node.macros
        line, column = sink.source.position(node.span.start)
        self._policy = TypedPolicy(node, plain_text(node.name), Place(sink.source.name, line, column))
        self._aliases: dict[str, Span] = {}  # all of the policy, with their first place
        self._alias_codes: dict[str, tuple[int, ...]] = {}
        self._labels: tuple[str, ...] = ()
        self._notices = 0
        self._full = False  # a bound was reached and reported
        self._handlers: list[tuple[ast.Handler, tuple[str, ...], tuple[int, ...] | None]] = []

    def check(self) -> TypedPolicy:
        """Returns the typed policy."""
        policy = self._policy
        self._check_name()
        policy.meta = check_meta(policy.node.meta, self._sink)
        apply_options(policy, self._sink)
        self._collect_aliases(policy.node.body.statements)
        policy.shape, _ = self._body(policy.node.body, {}, None)
        last = last_steps(policy.shape)
        final = tuple(dict.fromkeys(code for number in sorted(last) for code in policy.steps[number].step.codes))
        for node, labels, steps in self._handlers:
            handler = self._handler(node, labels, final)
            if handler is not None:
                policy.handlers.append(TypedHandler(handler, node, steps))
        return policy

    def _check_name(self) -> None:
        name, span = self._policy.name, self._policy.node.name.span
        if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
            self._sink.report(
                "ER0104",
                span,
                "a policy's name is printable text",
                help=f"not empty, without control characters, at most {_MAX_NAME} characters",
            )

    # ---- statements

    def _collect_aliases(self, statements: tuple[ast.Stmt | None, ...]) -> None:
        for statement in statements:
            match statement:
                case ast.Step(alias=ast.Ident() as alias):
                    self._aliases.setdefault(alias.text, alias.span)
                case ast.Block(body=body):
                    self._collect_aliases(body.statements)
                case ast.Conditional(test=test, then=then, other=other):
                    self._collect_aliases((test, then, other))
                case ast.Unsupported(parts=parts):
                    self._collect_aliases(parts)

    def _body(self, body: ast.Body, bound: _Bound, block_steps_from: int | None) -> tuple[Shape, _Bound]:
        shapes: list[Shape] = []
        for statement in body.statements:
            shape, bound = self._statement(statement, bound)
            shapes.append(shape)
        steps = None
        if block_steps_from is not None:
            steps = tuple(range(block_steps_from, len(self._policy.steps)))
        for handler in body.handlers:
            if len(self._handlers) >= MAX_HANDLERS:
                self._too_many(handler.span, f"more than {MAX_HANDLERS} handlers")
                break
            self._handlers.append((handler, self._labels, steps))
        return Seq(tuple(shapes)), bound

    def _statement(self, node: ast.Stmt | None, bound: _Bound) -> tuple[Shape, _Bound]:
        match node:
            case ast.Step():
                return self._step(node, bound)
            case ast.Block():
                return self._block(node, bound)
            case ast.Conditional():
                return self._conditional(node, bound)
            case ast.Unsupported(parts=parts):
                after = dict(bound)
                for part in parts:
                    after.update(self._statement(part, bound)[1])
                bound = after
        return Seq(), bound

    def _conditional(self, node: ast.Conditional, bound: _Bound) -> tuple[Shape, _Bound]:
        test, with_test = self._step(node.test, bound)
        then, after_then = self._statement(node.then, with_test)
        other, after_other = self._statement(node.other, bound)
        joined = {
            alias: tuple(dict.fromkeys((*after_then.get(alias, ()), *after_other.get(alias, ()))))
            for alias in (*after_then, *after_other)
        }
        return Choice(test, then, other), joined

    def _block(self, node: ast.Block, bound: _Bound) -> tuple[Shape, _Bound]:
        outer, first = self._labels, len(self._policy.steps)
        if len(self._policy.blocks) >= MAX_STEPS:
            self._too_many(node.span, f"more than {MAX_STEPS} blocks")
            return Seq(), bound
        if node.label:
            label = plain_text(ast.Text(node.label.span, node.label.text, False))
            self._labels = (*outer, label)
        shape, bound = self._body(node.body, bound, first)
        if node.label:
            steps = tuple(range(first, len(self._policy.steps)))
            self._policy.blocks.append(TypedBlock(self._labels, node.label.span, steps))
        elif node.body.handlers:
            self._sink.report(
                "ER0409",
                node.body.handlers[0].span,
                "a handler cannot stand in a block without a label",
                help='write block "label" { ... } around it',
            )
        self._labels = outer
        return shape, bound

    def _step(self, node: ast.Step, bound: _Bound) -> tuple[One, _Bound]:
        number = len(self._policy.steps)
        if number >= MAX_STEPS:
            self._too_many(node.span, f"more than {MAX_STEPS} steps")
            return One(number - 1, node.repeat), bound
        codes = self._codes(node)
        known = {alias: AliasInfo(alias_codes) for alias, alias_codes in bound.items()}
        condition = self._typed(node.condition, codes, known) if codes else None
        if node.alias:
            bound = self._bind(node.alias, codes, bound)
        within = duration_ns(node.within, self._sink) if node.within else None
        line, column = self._sink.source.position(node.span.start)
        step = Step(
            codes=codes,
            condition=condition or And(()),
            text=self._one_line(node.span),
            place=Place(self._sink.source.name, line, column),
            alias=node.alias.text if node.alias else None,
            labels=self._labels,
            within_ns=within,
        )
        self._policy.steps.append(TypedStep(step, node))
        return One(number, node.repeat), bound

    def _too_many(self, span: Span, what: str) -> None:
        if not self._full:
            self._full = True
            self._sink.report("ER0402", span, f"{what} in one policy", help="split it into several")

    def _one_line(self, span: Span) -> str:
        text = " ".join(strip_comments(self._sink.source.snippet(span)).split())
        return text if len(text) <= _MAX_STEP_TEXT else text[: _MAX_STEP_TEXT - 3] + "..."

    def _codes(self, node: ast.Step) -> tuple[int, ...]:
        codes: dict[int, None] = {}
        for event in node.events:
            found = EVENT_BY_NAME.get(event.text)
            if found is not None:
                codes[found.code] = None
            elif event.text in PLANNED_EVENTS:
                self._sink.report(
                    "ER0211", event.span, f"the event `{event.text}` is not observed yet", help=_events_help()
                )
            else:
                close = near(event.text, EVENT_BY_NAME)
                help_text = f"did you mean `{close}`?" if close else _events_help()
                self._sink.report("ER0202", event.span, f"unknown event {quote(event.text)}", help=help_text)
        return tuple(codes)

    def _bind(self, alias: ast.Ident, codes: tuple[int, ...], bound: _Bound) -> _Bound:
        if alias.text in bound:
            self._sink.report(
                "ER0206",
                alias.span,
                f"the alias `{alias.text}` is taken",
                labels=(Label(self._aliases[alias.text], "first used here"),),
                help="steps that can both happen need different aliases",
            )
        elif alias.text in dotted_heads():
            self._sink.report(
                "ER0212",
                alias.span,
                f"the alias `{alias.text}` would hide the fields `{alias.text}.*`",
                help="choose another alias",
            )
        all_codes = (*self._alias_codes.get(alias.text, ()), *codes)
        self._alias_codes[alias.text] = tuple(dict.fromkeys(all_codes))
        return {**bound, alias.text: codes}

    def _typed(self, node: ast.Expr, codes: tuple[int, ...], known: Mapping[str, AliasInfo]) -> Expr | None:
        names = Names(codes, self._declared, known, self._aliases, self._macros)
        return ConditionChecker(self._sink, names).condition(node)

    # ---- handlers

    def _handler(self, node: ast.Handler, labels: tuple[str, ...], final: tuple[int, ...]) -> Handler | None:
        known = {alias: AliasInfo(codes) for alias, codes in self._alias_codes.items()}
        if node.step is not None:
            if node.step.text not in known:
                close = near(node.step.text, known)
                self._sink.report(
                    "ER0204",
                    node.step.span,
                    f"unknown step {quote(node.step.text)}",
                    help=f"did you mean `{close}`?" if close else "give the step a name with `as`",
                )
                return None
            codes = known[node.step.text].codes
            known[node.step.text] = replace(known[node.step.text], current=True)
        else:
            codes = final
        names = Names(codes, self._declared, known, self._aliases, self._macros)
        condition = ConditionChecker(self._sink, names).condition(node.condition) if node.condition else None
        actions = [self._action(action, names) for action in node.actions]
        if node.condition and condition is None:
            return None
        done = tuple(action for action in actions if action is not None)
        return Handler(done, node.step.text if node.step else None, condition, labels)

    def _action(self, node: ast.Action, names: Names) -> Action | None:
        match node.name:
            case "alert":
                return Alert(severity_of(node.severity, self._sink) if node.severity else None)
            case "kill":
                return Kill()
            case "capture":
                return self._capture(node)
            case "notify":
                return self._notify(node, names)
        return Log()

    def _notify(self, node: ast.Action, names: Names) -> Notify | None:
        self._notices += 1
        if self._notices > MAX_NOTICES:
            self._too_many(node.span, f"more than {MAX_NOTICES} times `notify`")
            return None
        return NotifyChecker(self._sink, names).notify(node)

    def _capture(self, node: ast.Action) -> Capture:
        duration = size = None
        if node.duration:
            duration = in_range(node.duration, *_CAPTURE_NS, "captures last from 100ms to 1h", self._sink)
        if node.size:
            size = in_range(node.size, *_CAPTURE_BYTES, "captures hold from 1KiB to 1GiB", self._sink)
        return Capture(duration or _DEFAULT_CAPTURE_NS, size or _DEFAULT_CAPTURE_BYTES)


def _events_help() -> str:
    return f"events are {', '.join(dict.fromkeys(event.name for event in EVENT_BY_NAME.values()))}"
