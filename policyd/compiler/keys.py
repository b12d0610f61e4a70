"""Keys: which fields the steps of one partial share, for every step of a policy, and whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from execray.schema.catalog import ACTOR_FIELD_BY_NAME, EVENTS, Field
from execray.schema.event import creator_field
from execray.schema.kinds import Kind
from policyd.compiler import ast
from policyd.compiler.diagnostics import Label, Sink, quote
from policyd.compiler.names import SCOPES, Names, find_field
from policyd.compiler.source import Span
from policyd.compiler.typed import TypedPolicy, TypedStep
from policyd.compiler.values import ValueChecker, kind_words
from policyd.program import FieldRef, KeyKind

Key = tuple[FieldRef, ...]

#: A key has at most this many parts.
MAX_PARTS = 16
_PROCESS: Key = (FieldRef("proc.id", Kind.PROCESS),)


def _pids(fields: Mapping[str, Field]) -> dict[str, str]:
    return {
        name: field.derived
        for name, field in fields.items()
        if field.derived in fields and fields[field.derived].kind is Kind.PROCESS
    }


#: By a field that is a pid, the identity that it is of.
_IDENTITIES: Final = {
    name: identity
    for fields in (ACTOR_FIELD_BY_NAME, *(event.by_name for event in EVENTS))
    for name, identity in _pids(fields).items()
}


def check_keys(policy: TypedPolicy, names: Callable[[tuple[int, ...]], Names], sink: Sink) -> None:
    """Gives every step of the policy its key, and the policy its kind of key; reports what doesn't fit.

    names: what a key at a step of these events may refer to.
    """
    option = next((o for o in policy.node.options if o.name == "key"), None)
    written = option.keys if option is not None else None
    policy.key_text = _text(policy.steps, written, sink)
    if written is not None and _is_word(written, "tree"):
        policy.key = KeyKind.TREE
        _refuse_own_keys(policy.steps, sink)
        return
    keys: list[tuple[TypedStep, Key]] = []
    for index, typed in enumerate(policy.steps):
        own = typed.node.keys or written
        key = _PROCESS if own is None else _key(own, names(typed.step.codes), sink)
        if key is not None:
            keys.append((typed, key))
            policy.steps[index] = replace(typed, step=replace(typed.step, key=key))
    _compare(keys, sink)
    if len(keys) == len(policy.steps):
        keys = list(zip(policy.steps, _by_identity([key for _, key in keys]), strict=True))
        policy.steps = [replace(typed, step=replace(typed.step, key=key)) for typed, key in keys]
    if written is not None and not policy.steps:
        _key(written, names(()), sink)
    if all(key == _PROCESS for _, key in keys):
        policy.key = KeyKind.PROCESS
        policy.steps = [replace(typed, step=replace(typed.step, key=())) for typed in policy.steps]
    else:
        policy.key = KeyKind.FIELDS


def _by_identity(keys: Sequence[Key]) -> list[Key]:
    """The keys of all steps, with processes where a part is a pid in every one: a pid may be another process's by then."""
    if len({len(key) for key in keys}) != 1 or not keys[0]:
        return list(keys)
    columns: list[Sequence[FieldRef]] = []
    for part in zip(*keys, strict=True):
        processes = [process for ref in part if (process := _identity(ref)) is not None]
        columns.append(processes if len(processes) == len(part) else part)
    return list(zip(*columns, strict=True))


def _identity(ref: FieldRef) -> FieldRef | None:
    """The process that a field names by its pid, or is itself."""
    of_creator = creator_field(ref.name)
    name = ref.name if of_creator is None else of_creator[1]
    if ref.kind is Kind.PROCESS:
        return ref
    identity = _IDENTITIES.get(name)
    return None if identity is None else FieldRef(ref.name.removesuffix(name) + identity, Kind.PROCESS)


def check_throttle_key(keys: ast.Keys, names: Names, sink: Sink) -> Key | None:
    """Returns the fields of the completing event that a throttle counts by; None where something was reported."""
    return _key(keys, names, sink)


def _is_word(keys: ast.Keys, word: str) -> bool:
    match keys.parts:
        case (ast.Name(text=text, index=None, negative=False),):
            return text == word
    return False


def _text(steps: Sequence[TypedStep], written: ast.Keys | None, sink: Sink) -> str:
    """The key as the author wrote it, on one line."""
    own = [typed.node.keys for typed in steps if typed.node.keys is not None]
    if not own:
        return "process" if written is None else " ".join(sink.source.snippet(written.span).split())
    default = "process" if written is None else sink.source.snippet(written.span)
    texts = [default if t.node.keys is None else sink.source.snippet(t.node.keys.span) for t in steps]
    return " then ".join(dict.fromkeys("by " + " ".join(text.split()) for text in texts))


def _refuse_own_keys(steps: Sequence[TypedStep], sink: Sink) -> None:
    for typed in steps:
        if typed.node.keys is not None:
            sink.report(
                "ER0316",
                typed.node.keys.span,
                "a step of a policy with `key tree` has no key of its own",
                help="leave `by` out, or write the policy without `key tree`",
            )


def _key(keys: ast.Keys, names: Names, sink: Sink) -> Key | None:
    """The fields that a key means at a step."""
    if len(keys.parts) > MAX_PARTS:
        help_text = f"at most {MAX_PARTS} fields make a key"
        sink.report("ER0316", keys.span, f"a key of {len(keys.parts)} parts is too long", help=help_text)
        return None
    checker = _KeyChecker(sink, names)
    parts = [checker.part(part) for part in keys.parts]
    good = [part for part in parts if part is not None]
    return tuple(ref for part in good for ref in part) if len(good) == len(parts) else None


class _KeyChecker(ValueChecker):
    """Resolves the parts of one key."""

    def part(self, node: ast.Operand) -> Key | None:
        """Returns the fields that one part of a key means."""
        if isinstance(node, ast.Bad):
            return None
        if not isinstance(node, ast.Name) or node.negative:
            self.sink.report("ER0316", node.span, "a key is made of fields", help="for example by path, uid")
            return None
        if node.index is None and node.text == "tree":
            self.sink.report(
                "ER0316", node.span, "`tree` is a key only for a whole policy, and alone", help="write key tree"
            )
            return None
        if node.index is None and node.text in SCOPES:
            return self._scope(node)
        return self._field_part(node)

    def _scope(self, node: ast.Name) -> Key | None:
        found = [find_field(self.names.codes, name) for name in SCOPES[node.text]]
        good = tuple(info.ref() for info in found if info is not None)
        if len(good) < len(found) and self.names.codes:
            self.sink.report(
                "ER0211", node.span, f"the key `{node.text}` is not observed yet", help="leave it out for now"
            )
            return None
        return good if len(good) == len(found) else None

    def _field_part(self, node: ast.Name) -> Key | None:
        before = self.sink.errors
        found = self.field(node)
        if found is None:
            return None
        info, ref = found
        if ref.alias is not None:
            self.sink.report(
                "ER0316", node.span, "a key is read from the event that meets the step", help="leave the alias out"
            )
        elif ref.kind is Kind.TEXTS:
            self.sink.report(
                "ER0316",
                node.span,
                f"{quote(info.name)} is a list, not a key",
                help=f"one element can be: {info.name}[0]",
            )
        return (ref,) if self.sink.errors == before else None


def _group(kind: Kind) -> str:
    return kind_words(Kind.INT if kind.is_number and kind is not Kind.DURATION else kind)


def _compare(keys: Sequence[tuple[TypedStep, Key]], sink: Sink) -> None:
    """Reports steps whose keys can't be equal: another number of parts, or parts of another kind."""
    if not keys:
        return
    first, wanted = keys[0]
    for typed, key in keys[1:]:
        if len(key) == len(wanted) and all(_group(a.kind) == _group(b.kind) for a, b in zip(wanted, key, strict=True)):
            continue
        sink.report(
            "ER0317",
            _key_span(typed),
            "the key of this step can't equal that of the first step",
            label=_in_words(key),
            labels=(Label(_key_span(first), _in_words(wanted)),),
            help="the keys of all steps have equally many parts, of the same kinds",
        )


def _key_span(typed: TypedStep) -> Span:
    return typed.node.keys.span if typed.node.keys is not None else typed.node.events[0].span


def _in_words(key: Key) -> str:
    return ", ".join(kind_words(ref.kind) for ref in key) if key else "nothing, one key for the host"
