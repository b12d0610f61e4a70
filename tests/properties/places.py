"""The automaton of a policy's text, found another way than the compiler's: a place is what is left to be met.

The compiler builds backwards, from the end of the text; here a place is the list of statements that still have to be met, and
its ways are found by looking at the first of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from tests.properties.texts import Benign, Block, Choice, Either, Policy, Statement, Step


@dataclass(frozen=True)
class Item:
    """A statement at its place in the tree. inside: the guarded blocks around it, by their paths."""

    path: tuple[int, ...]
    node: Statement
    inside: tuple[tuple[int, ...], ...]


#: What is left, and the step that may still repeat because it was the last one met and has `..`.
Left: TypeAlias = tuple[tuple[Item, ...], str]
Way: TypeAlias = tuple[str, Left]


@dataclass(frozen=True)
class Expected:
    """One state: steps by their aliases, the states they lead to, what repeats, and which guards it lies in."""

    ways: tuple[tuple[str, int], ...]
    repeats: tuple[str, ...]
    ends: str  # accept, benign or nothing
    inside: frozenset[tuple[int, ...]]
    perhaps: frozenset[tuple[int, ...]]  # of these, only what may be left out is left


def expected(policy: Policy) -> list[Expected]:
    """Returns the states in the order in which they are reached, the start first."""
    start: Left = (_items(policy.body, (), ()), "")
    order, number = [start], {start: 0}
    out = []
    for left in order:  # grows while it is read
        for _, target in _ways(left[0]):
            if target not in number:
                number[target] = len(order)
                order.append(target)
        repeats = _repeats(left) if left is not start else ()
        ways = tuple((alias, number[target]) for alias, target in _ways(left[0]))
        inside = frozenset(guard for item in left[0] if _end((item,)) != "accept" for guard in item.inside)
        perhaps = frozenset(guard for item in left[0] for guard in item.inside) - inside
        end = _end(left[0])
        out.append(Expected(ways, repeats, "benign" if isinstance(end, Item) else end, inside, perhaps))
    return out


def guards(policy: Policy) -> dict[tuple[int, ...], int]:
    """Returns how many `until` each guarded block has, by its path."""
    found: dict[tuple[int, ...], int] = {}

    def look(items: tuple[Item, ...]) -> None:
        for item in items:
            match item.node:
                case Block(untils=untils):
                    if untils:
                        found[item.path] = len(untils)
                    look(_inner(item))
                case Choice():
                    look(_branch(item, 1))
                    look(_branch(item, 2))
                case Either(bodies):
                    for at in range(len(bodies)):
                        look(_branch(item, at))

    look(_items(policy.body, (), ()))
    return found


def _items(
    statements: tuple[Statement, ...], path: tuple[int, ...], inside: tuple[tuple[int, ...], ...]
) -> tuple[Item, ...]:
    return tuple(Item((*path, at), node, inside) for at, node in enumerate(statements))


def _inner(item: Item) -> tuple[Item, ...]:
    """What is in a block."""
    assert isinstance(item.node, Block)
    inside = (*item.inside, item.path) if item.node.untils else item.inside
    return _items(item.node.body, item.path, inside)


def _branch(item: Item, at: int) -> tuple[Item, ...]:
    """One branch of a choice: of a conditional 1 or 2, of an `either` from 0."""
    match item.node:
        case Choice(then=then, other=other):
            node = then if at == 1 else other
            return () if node is None else (Item((*item.path, at), node, item.inside),)
        case Either(bodies):
            return (Item((*item.path, at), bodies[at], item.inside),)
    raise TypeError(item)


def _dots(step: Step) -> str:
    return step.modifiers[-1] if step.modifiers and step.modifiers[-1] in ("..", "...") else ""


def _after(step: Step, rest: tuple[Item, ...]) -> Left:
    # A match is complete on entering an accepting place, so nothing is left and nothing repeats there.
    end = _end(rest)
    if end == "accept":
        return (), ""
    if isinstance(end, Item):
        return (end,), ""
    return rest, step.alias if _dots(step) == ".." else ""


def _ways(left: tuple[Item, ...]) -> list[Way]:
    """The steps that are awaited, in text order."""
    if not left:
        return []
    head, rest = left[0], left[1:]
    match head.node:
        case Step() as step:
            return _ways(rest) if _dots(step) == "..." else [(step.alias, _after(step, rest))]
        case Block():
            return _ways((*_inner(head), *rest))
        case Choice(test=test):
            other = _branch(head, 2)
            decided = [(test.alias, _after(test, (*_branch(head, 1), *rest)))]
            return decided + (_deciding((*other, *rest)) if other else [])
        case Either(bodies):
            return [way for at in range(len(bodies)) for way in _deciding((*_branch(head, at), *rest))]
    return []  # benign


def _deciding(branch: tuple[Item, ...]) -> list[Way]:
    """The ways into a branch; an event that its leading `...` would only repeat decides for it, too."""
    return _ways(branch) + [(alias, (branch, "")) for alias in _repeats((branch, ""))]


def _repeats(left: Left) -> tuple[str, ...]:
    items, alias = left
    return ((alias,) if alias else ()) + _leading(items)


def _leading(items: tuple[Item, ...]) -> tuple[str, ...]:
    if not items or _end(items):
        return ()
    head, rest = items[0], items[1:]
    match head.node:
        case Step() as step if _dots(step) == "...":
            return (step.alias, *_leading(rest))
        case Block():
            return _leading((*_inner(head), *rest))
    return ()


def _end(left: tuple[Item, ...]) -> Item | Literal["accept", ""]:
    """`accept` where nothing is left that must be met; the `benign` where that comes first."""
    for item in left:
        match item.node:
            case Benign():
                return replace(item, inside=())
            case Block():
                end = _end(_inner(item))
                if end != "accept":
                    return end
            case Step() as step if _dots(step) == "...":
                continue
            case _:
                return ""
    return "accept"
