"""Data classes without the methods that `dataclass` would compile."""

from __future__ import annotations

import dataclasses

from execray.schema.records import compared, record


@compared(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    note: str = dataclasses.field(default="", compare=False)


@compared(frozen=True, slots=True)
class Other:
    x: int
    y: int = 0


@compared(frozen=True, slots=True)
class Empty:
    pass


@record
class Node:
    name: str


def test_compared_ones_are_equal_by_the_fields_that_count() -> None:
    assert Point(1, 2, "here") == Point(1, 2, "there") != Point(2, 1)
    assert len({Point(1), Point(1, note="again"), Point(2), Empty(), Empty()}) == 3
    others: tuple[object, ...] = (Other(1), (1, 0))
    assert all(Point(1) != other for other in others)


def test_compared_ones_are_data_classes() -> None:
    assert dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
    assert not hasattr(Point(1), "__dict__")
    match Point(4, 5):
        case Point(x, y):
            assert (x, y) == (4, 5)


def test_records_are_equal_by_identity_only() -> None:
    node = Node("a")
    assert node == node and node != Node("a")  # noqa: PLR0124


def test_both_show_their_fields() -> None:
    assert repr(Point(1, 2, "n")) == "Point(x=1, y=2, note='n')"
    assert repr(Node("a")) == "Node(name='a')"
    assert repr(Empty()) == "Empty()"
