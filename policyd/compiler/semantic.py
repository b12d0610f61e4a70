"""Names and types: walks a policy in text order, checks it against the catalogue, and makes the typed tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from policyd.compiler import ast
from policyd.compiler.aliases import Bound, codes_of, either_of, joined
from policyd.compiler.checker import ConditionChecker
from policyd.compiler.counts import check_times, refuse_modifiers
from policyd.compiler.declarations import declare_inside
from policyd.compiler.diagnostics import Label, Level, Sink
from policyd.compiler.keys import check_keys, check_throttle_key
from policyd.compiler.lexer import strip_comments
from policyd.compiler.literals import plain_text
from policyd.compiler.metadata import apply_options, check_meta, duration_ns
from policyd.compiler.names import (
    AliasInfo,
    Names,
    dotted_heads,
)
from policyd.compiler.outside import OutsideException
from policyd.compiler.reactions import Reactions
from policyd.compiler.scope import Scope
from policyd.compiler.source import Span
from policyd.compiler.typed import (
    Benign,
    Choice,
    Either,
    Guarded,
    One,
    Seq,
    Shape,
    TypedBlock,
    TypedHandler,
    TypedPolicy,
    TypedStep,
    TypedUntil,
    ends,
    first_benign,
    last_steps,
    nullable,
)
from policyd.program import And, Expr, Place, Step

#: A policy may have this many steps, and as many blocks.
MAX_STEPS = 1024
MAX_HANDLERS = 256
MAX_EXCEPTIONS = 256
_MAX_NAME = 200
_MAX_STEP_TEXT = 200


class PolicyChecker:
    """Checks one policy. Errors go to the sink; what is returned is complete only where there were none."""

    def __init__(self, node: ast.Policy, scope: Scope, sink: Sink, exceptions: Sequence[OutsideException] = ()) -> None:
        """exceptions: those from outside of the policy that are about it."""
        self._sink = sink
        self._scope = declare_inside(node, scope, sink)
        self._exceptions = exceptions
        line, column = sink.source.position(node.span.start)
        self._policy = TypedPolicy(node, plain_text(node.name), Place(sink.source.name, line, column))
        self._aliases: dict[str, Span] = {}  # all of the policy, with their first place
        self._known: dict[str, AliasInfo] = {}  # all of the policy met so far
        self._labels: tuple[str, ...] = ()
        self._full = False  # a bound was reached and reported
        self._handlers: list[tuple[ast.Handler, tuple[str, ...], tuple[int, ...] | None]] = []
        self._cancelling: list[
            tuple[int, ast.Until]
        ] = []  # the steps of `until`, to be typed once all aliases are known

    def check(self) -> TypedPolicy:
        """Returns the typed policy."""
        policy = self._policy
        self._check_name()
        policy.meta = check_meta(policy.node.meta, self._sink)
        apply_options(policy, self._sink)
        self._collect_aliases(policy.node.body.statements)
        policy.shape, _ = self._body(policy.node.body, {}, None)
        self._check_benign(policy.shape)
        policy.untils = self._untils(policy.node.body)
        self._type_untils()
        check_keys(policy, self._everything, self._sink)
        self._react()
        return policy

    def _everything(self, codes: tuple[int, ...]) -> Names:
        """What may be named where every step of the policy is known."""
        return self._names(codes, self._known)

    def _names(self, codes: tuple[int, ...], known: Mapping[str, AliasInfo]) -> Names:
        return Names(codes, self._scope, known, self._aliases)

    def _react(self) -> None:
        policy = self._policy
        last = last_steps(policy.shape)
        final = tuple(dict.fromkeys(code for number in sorted(last) for code in policy.steps[number].step.codes))
        reactions = Reactions(self._names, self._known, final, self._sink)
        for node, labels, steps in self._handlers:
            handler = reactions.handler(node, labels)
            if handler is not None:
                policy.handlers.append(TypedHandler(handler, node, steps))
        if len(policy.node.exceptions) > MAX_EXCEPTIONS:
            self._too_many(policy.node.exceptions[MAX_EXCEPTIONS].span, f"more than {MAX_EXCEPTIONS} exceptions")
        elif len(policy.node.exceptions) + len(self._exceptions) > MAX_EXCEPTIONS:
            self._too_many(policy.node.name.span, f"with those from outside, more than {MAX_EXCEPTIONS} exceptions")
        exemptions = [reactions.exemption(exception) for exception in policy.node.exceptions[:MAX_EXCEPTIONS]]
        exemptions += [reactions.outside(exception) for exception in self._exceptions[:MAX_EXCEPTIONS]]
        policy.exemptions += [exemption for exemption in exemptions if exemption is not None]
        for option in policy.node.options:
            if option.name == "throttle" and option.keys is not None:
                policy.throttle_by = check_throttle_key(option.keys, self._everything(final), self._sink)

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
                case ast.Either(branches=branches):
                    self._collect_aliases(branches)
                case ast.Unsupported(parts=parts):
                    self._collect_aliases(parts)

    def _body(self, body: ast.Body, bound: Bound, block_steps_from: int | None) -> tuple[Shape, Bound]:
        shapes: list[Shape] = []
        ended = False
        for statement in body.statements:
            if ended and not isinstance(statement, ast.Empty):
                self._never_reached(statement)
                ended = False  # once is enough
            shape, bound = self._statement(statement, bound)
            shapes.append(shape)
            ended = ended or ends(shape)
        steps = None
        if block_steps_from is not None:
            steps = tuple(range(block_steps_from, len(self._policy.steps)))
        for handler in body.handlers:
            if len(self._handlers) >= MAX_HANDLERS:
                self._too_many(handler.span, f"more than {MAX_HANDLERS} handlers")
                break
            self._handlers.append((handler, self._labels, steps))
        return Seq(tuple(shapes)), bound

    def _never_reached(self, statement: ast.Stmt) -> None:
        self._sink.report(
            "ER0406",
            statement.span,
            "this step is never reached",
            level=Level.WARNING,
            help="every way to it ends in `benign`",
        )

    def _statement(self, node: ast.Stmt | None, bound: Bound) -> tuple[Shape, Bound]:
        match node:
            case ast.Step():
                return self._step(node, bound)
            case ast.Block():
                return self._block(node, bound)
            case ast.Conditional():
                return self._conditional(node, bound)
            case ast.Either():
                return self._either(node, bound)
            case ast.Benign(span=span):
                return Benign(span), bound
            case ast.Unsupported(parts=parts):
                after = dict(bound)
                for part in parts:
                    after.update(self._statement(part, bound)[1])
                bound = after
        return Seq(), bound

    def _conditional(self, node: ast.Conditional, bound: Bound) -> tuple[Shape, Bound]:
        test, with_test = self._step(node.test, bound)
        then, after_then = self._statement(node.then, with_test)
        other, after_other = self._statement(node.other, bound)
        self._check_benign(other)
        return Choice(test, then, other), joined([(then, after_then), (other, after_other)], bound)

    def _either(self, node: ast.Either, bound: Bound) -> tuple[Shape, Bound]:
        ways = []
        for branch in node.branches:
            shape, after = self._statement(branch, bound)
            ways.append((shape, after))
            if nullable(shape):
                self._sink.report(
                    "ER0412",
                    branch.span,
                    "this branch of `either` can be met by nothing",
                    help="put a step into it; where it has one with `...`, write `..`",
                )
            self._check_benign(shape)
        return Either(tuple(shape for shape, _ in ways)), joined(ways, bound)

    def _check_benign(self, shape: Shape) -> None:
        found = first_benign(shape)
        if found is not None:
            self._sink.report(
                "ER0411",
                found.span,
                "`benign` needs a step before it that decides",
                help="write the harmless step first: open { ... } benign",
            )

    def _block(self, node: ast.Block, bound: Bound) -> tuple[Shape, Bound]:
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
        untils = self._untils(node.body)
        self._policy.block_untils += untils
        self._labels = outer
        return Guarded(shape, tuple(until.step for until in untils)) if untils else shape, bound

    def _untils(self, body: ast.Body) -> list[TypedUntil]:
        """Numbers the steps of a body's `until`; their conditions come later."""
        found = []
        for until in body.untils:
            if self._has_too_many_steps(until.span):
                break
            refuse_modifiers(until, self._sink)
            number = self._add_step(until.step, codes_of(until.step, self._sink), And(()), None)
            self._cancelling.append((number, until))
            found.append(TypedUntil(number, until.span))
        return found

    def _type_untils(self) -> None:
        for number, until in self._cancelling:
            typed = self._policy.steps[number]
            codes = typed.step.codes
            condition = self._typed(until.step.condition, codes, self._known) if codes else None
            step = replace(typed.step, condition=condition or And(()), alias=None, within_ns=None)
            self._policy.steps[number] = TypedStep(step, typed.node)

    def _step(self, node: ast.Step, bound: Bound) -> tuple[One, Bound]:
        if self._has_too_many_steps(node.span):
            return One(len(self._policy.steps) - 1, node.repeat), bound
        codes = codes_of(node, self._sink)
        condition = self._typed(node.condition, codes, bound) if codes else None
        names = self._names(codes, bound)
        number = self._add_step(node, codes, condition or And(()), names)
        if node.alias:
            bound = self._bind(node.alias, codes, bound)
        return One(number, node.repeat), bound

    def _has_too_many_steps(self, span: Span) -> bool:
        if len(self._policy.steps) < MAX_STEPS:
            return False
        self._too_many(span, f"more than {MAX_STEPS} steps")
        return True

    def _add_step(self, node: ast.Step, codes: tuple[int, ...], condition: Expr, names: Names | None) -> int:
        """Numbers a step. names: what its count may name, None where it can't count."""
        times = check_times(node, names, self._sink) if names is not None else None
        within = duration_ns(node.within, self._sink) if node.within and not node.times else None
        line, column = self._sink.source.position(node.span.start)
        step = Step(
            codes=codes,
            condition=condition,
            text=self._one_line(node.span),
            place=Place(self._sink.source.name, line, column),
            alias=node.alias.text if node.alias else None,
            labels=self._labels,
            within_ns=within,
            times=times,
        )
        self._policy.steps.append(TypedStep(step, node))
        return len(self._policy.steps) - 1

    def _too_many(self, span: Span, what: str) -> None:
        if not self._full:
            self._full = True
            self._sink.report("ER0402", span, f"{what} in one policy", help="split it into several")

    def _one_line(self, span: Span) -> str:
        text = " ".join(strip_comments(self._sink.source.snippet(span)).split())
        return text if len(text) <= _MAX_STEP_TEXT else text[: _MAX_STEP_TEXT - 3] + "..."

    def _bind(self, alias: ast.Ident, codes: tuple[int, ...], bound: Bound) -> Bound:
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
        self._known[alias.text] = either_of(self._known.get(alias.text), AliasInfo(codes))
        return {**bound, alias.text: AliasInfo(codes)}

    def _typed(self, node: ast.Expr, codes: tuple[int, ...], known: Mapping[str, AliasInfo]) -> Expr | None:
        return ConditionChecker(self._sink, self._names(codes, known)).condition(node)
