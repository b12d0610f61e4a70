"""The event stream's frames: round trips, growth, and bad bytes."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.errors import PeerError
from execray.schema.catalog import ACTOR_SLOTS, CATALOG_VERSION, EVENTS, LOST, EventType
from execray.schema.kinds import Kind
from execray.wire.frames import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Ack,
    Batch,
    Decoder,
    Error,
    Frame,
    Heartbeat,
    Hello,
    Settle,
    Subscribe,
    Taken,
    check_hello,
    decode_body,
    encode,
)

STRINGS = (b"/bin/sh", b"a\xff\x00b", b"\x7f\x00\x00\x01")


def slot(kind: Kind) -> Any:
    """A value as the stream carries it."""
    if kind.is_text:
        return 0
    return {Kind.TEXTS: (0, 1), Kind.PROCESS: (7, 8), Kind.BOOL: True}.get(kind, 5)


def actor(parent: int | None = None) -> tuple[Any, ...]:
    return (parent, *(slot(field.kind) for field in ACTOR_SLOTS))


def row(event: EventType, at: int = 0) -> tuple[Any, ...]:
    return (event.code, 10, at, 7, 0, *(slot(field.kind) for field in event.slots))


def batch(*rows: tuple[Any, ...], actors: tuple[Any, ...] = ()) -> Batch:
    return Batch(3, 100, STRINGS, actors or (actor(), actor(0)), rows)


FRAMES: list[Frame] = [
    Hello("tracerd", {"boot_id": "b", "pid": 7}),
    Subscribe((1, 2), 3, (59, 101), b"plan", (b"/etc/shadow",), (1,), b"rules", (2,), False),
    batch(*(row(event) for event in EVENTS), (LOST, 11, "ring", 5, 9)),
    Ack(2**40),
    Heartbeat(12, {"lost": {"ring": 0}, "rate": 1.5}),
    Error("no"),
    Settle(7, (1, 2**64 - 1, 64, 0)),
    Taken(2),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_frame_survives_the_wire(frame: Frame) -> None:
    assert list(Decoder().feed(encode(frame))) == [frame]


def test_golden_bytes() -> None:
    assert encode(Ack(5)) == b"\x00\x00\x00\x03\x92\x04\x05"
    assert encode(Error("x")) == b"\x00\x00\x00\x04\x92\x06\xa1x"
    hello = msgpack.packb([1, PROTOCOL_VERSION, CATALOG_VERSION, "policyd", {}])
    assert encode(Hello("policyd", {})) == struct.pack(">I", len(hello)) + hello


def test_text_of_the_kernel_is_bin_whatever_its_bytes() -> None:
    body = encode(FRAMES[2])[4:]
    assert msgpack.packb(b"a\xff\x00b") in body


@given(st.lists(st.integers(1, 200), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_frames(cuts: list[int]) -> None:
    raw = b"".join(encode(frame) for frame in FRAMES)
    decoder, at = Decoder(), 0
    found: list[Frame] = []
    for cut in cuts:
        found += decoder.feed(raw[at : at + cut])
        at += cut
    found += decoder.feed(raw[at:])
    assert found == FRAMES


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_of_the_catalogue_is_resolved(event: EventType) -> None:
    resolved = batch(row(event, 1)).event(0)
    assert (resolved.id, resolved.type, resolved.time_ns, resolved.tid) == (100, event, 10, 7)
    assert resolved.actor.parent is not None and resolved.actor.parent.parent is None
    for field in event.slots:
        value = resolved.get(field.name)
        if field.kind.is_text:
            assert value == STRINGS[0]
        elif field.kind is Kind.TEXTS:
            assert value == STRINGS[:2]
        elif field.kind is Kind.PROCESS:
            assert value == (7, 8)


def test_missing_values_stay_missing() -> None:
    event = EVENTS[0]
    resolved = batch((event.code, 10, 0, 7, 0, *([None] * len(event.slots)))).event(0)
    assert all(resolved.get(field.name) is None for field in event.slots)


def test_longer_frames_of_a_later_release_are_understood() -> None:
    assert decode_body(msgpack.packb([4, 5, "later"])) == Ack(5)
    assert decode_body(msgpack.packb([5, 6, {}, 7])) == Heartbeat(6, {})


@pytest.mark.parametrize(
    "body",
    [
        [],
        [0],
        [99],
        ["4", 5],
        [True, 5],
        [4],
        [4, "5"],
        [4, True],
        [2, [1, "x"], True],
        [2, [1], 1],
        [1, 1, 1, b"policyd", {}],
        [5, 1, []],
        [3, 1, 1, ["not bin"], [], []],
        [3, 1, 1, [], [[None]], []],
        [3, 1, 1, [], [], [[1, 2, 0, 4, 5]]],
        [3, 1, 1, [], [], [[200, 2, 0, 4, 5]]],
        [3, 1, 1, [], [], [["1", 2, 0, 4, 5]]],
        [3, 1, 1, [], [], [7]],
        {"tag": 1},
        7,
        None,
    ],
    ids=repr,
)
def test_malformed_frame_is_refused(body: object) -> None:
    with pytest.raises(PeerError):
        decode_body(msgpack.packb(body))


def test_actor_outside_the_table_is_refused() -> None:
    for at in (2, -1):
        with pytest.raises(PeerError):
            decode_body(encode(batch(row(EVENTS[0], at)))[4:])


def test_actors_that_refer_to_each_other_or_to_nobody_are_refused() -> None:
    for actors in ((actor(1), actor(0)), (actor(0),), (actor(5),)):
        with pytest.raises(PeerError):
            batch(row(EVENTS[0]), actors=actors).event(0)


def test_frame_over_the_bound_is_refused_before_it_is_held() -> None:
    with pytest.raises(PeerError, match="is over"):
        list(Decoder().feed(struct.pack(">I", MAX_FRAME_BYTES + 1)))
    with pytest.raises(PeerError, match="is over"):
        list(Decoder(100).feed(struct.pack(">I", 101)))
    with pytest.raises(ValueError, match="is over"):
        encode(Error("x" * MAX_FRAME_BYTES))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(PeerError):
        decode_body(b"\x91" * 5000)


@given(st.binary(max_size=300))
def test_random_bytes_give_frames_or_a_peer_error(raw: bytes) -> None:
    for decode in (lambda: decode_body(raw), lambda: list(Decoder().feed(raw))):
        try:
            decode()
        except PeerError:
            continue


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([1, 2, 4, 5, 6]), st.lists(values, max_size=5))
def test_elements_of_any_type_give_a_frame_or_a_peer_error(tag: int, elements: list[object]) -> None:
    """What a stranger may send tracerd; batches come from root only, and their rows are checked as far as bounds go."""
    try:
        frame = decode_body(msgpack.packb([tag, *elements], use_bin_type=True))
    except PeerError:
        return
    assert decode_body(encode(frame)[4:]) == frame


def test_hello_of_another_role_or_version_is_refused_in_words() -> None:
    good = Hello("tracerd", {})
    assert check_hello(good, "tracerd") is good
    for frame, words in (
        (Ack(1), "expected a hello, got Ack"),
        (Hello("tracerd", {}, protocol=2), "stream protocol 2, and this is 6"),
        (Hello("tracerd", {}, catalog=99), f"event catalogue 99, and this is {CATALOG_VERSION}"),
        (Hello("x" * 99, {}), "expected tracerd, got"),
    ):
        with pytest.raises(PeerError, match=words):
            check_hello(frame, "tracerd")
