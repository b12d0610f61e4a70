"""Paths that are put together from a directory and a name, and how arguments become numbers."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.schema.calls import parse_call
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import PLAIN, Plain
from execray.schema.row import RET, EventType
from tracerd.plain import PlainDecoder, joined
from tracerd.records import BadRecord


@pytest.mark.parametrize(
    ("start", "name", "path", "sure"),
    [
        (b"/a", b"b", b"/a/b", True),
        (b"/", b"b", b"/b", True),
        (b"/", b"/b", b"/b", True),
        (b"/jail", b"/b", b"/jail/b", True),
        (b"/a", b"b/c", b"/a/b/c", False),
        (b"/a", b"b/", b"/a/b", False),
        (b"/a/b", b"..", b"/a", False),
        (b"/a", b".", b"/a", False),
        (b"/jail", b"/../../b", b"/jail/b", False),
        (b"/a", b"../../../b", b"/b", False),
        (b"/a", b"..b", b"/a/..b", True),
        (b"", b"b", None, True),
    ],
)
def test_a_name_is_put_behind_where_it_begins(start: bytes, name: bytes, path: bytes | None, sure: bool) -> None:
    assert joined(start, name, False) == (path, sure)


def test_a_name_that_the_call_follows_is_never_sure() -> None:
    assert joined(b"/a", b"b", True) == (b"/a/b", False)


@given(st.lists(st.sampled_from([b"a", b"..", b".", b"", b"b.c"]), min_size=1, max_size=8))
def test_dots_are_folded_as_posixpath_does(parts: list[bytes]) -> None:
    name = b"/".join(parts)
    folded = posixpath.normpath(b"/x/y/" + name)
    assert joined(b"/x/y", name.lstrip(b"/"), False)[0] == folded.replace(b"//", b"/")


def decode(line: str, *arguments: int, ret: int = 0) -> list[object]:
    fields = (*EVENT_BY_NAME["chown"].fields[2:4], RET)  # new.uid, new.gid
    event = EventType(99, "test", "", fields)
    raw = PLAIN.pack(*(value % (1 << 64) for value in (*arguments, *(0,) * (6 - len(arguments)))), ret, *(0,) * 10)
    fields_of = PLAIN.unpack(raw)
    decoder = PlainDecoder(event, parse_call(line))
    return decoder.decode(Plain._make(fields_of), raw, 0, lambda text: None)[0]


@pytest.mark.parametrize(
    ("line", "arguments", "expected"),
    [
        ("t 1 1 new.uid new.gid", (0xFFFFFFFF, 7), [-1, 7, 0]),
        ("t 1 1 new.uid:u new.gid:q", (0xFFFFFFFF, -2), [0xFFFFFFFF, -2, 0]),
        ("t 1 1 new.uid:m new.gid:h", (0xFFFFFFFF, 0xFFFF), [None, None, 0]),
        ("t 1 1 new.uid:m new.gid:h", (5, 6), [5, 6, 0]),
        ("t 1 1 new.uid:w new.gid", (1, 2, 3), [1 | 2 << 32, 3, 0]),
        ("t 1 1 new.uid&15 new.gid=none", (0x1F,), [15, None, 0]),
        ("t 1 1 _ new.uid=9 new.gid=1&4", (0x1F,), [9, 4, 0]),
    ],
)
def test_numbers_are_as_their_words_say(line: str, arguments: tuple[int, ...], expected: list[object]) -> None:
    assert decode(line, *arguments) == expected


def test_a_restart_of_the_call_is_eintr() -> None:
    assert decode("t 1 1 new.uid new.gid", ret=-512)[-1] == -4


def test_a_field_that_a_line_says_nothing_of_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"says nothing of new\.gid"):
        decode("t 1 1 new.uid")


def test_a_record_shorter_than_its_texts_is_refused() -> None:
    (call,) = (call for call in EVENT_BY_NAME["mkdir"].system_calls if call.name == "mkdir")
    record = Plain._make((0,) * len(Plain._fields))._replace(len0=10)
    with pytest.raises(BadRecord):
        PlainDecoder(EVENT_BY_NAME["mkdir"], call).decode(record, bytes(PLAIN.size), 0, lambda text: None)
