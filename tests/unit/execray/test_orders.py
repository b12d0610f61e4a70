"""Orders and outcomes as lines."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.errors import PeerError
from execray.guard import Reason
from execray.process import ProcessKey
from execray.wire.orders import (
    MAX_EXE_CHARS,
    MAX_FLOWS,
    MAX_ID_CHARS,
    MAX_LINE_BYTES,
    MAX_POLICY_CHARS,
    Action,
    CaptureSpec,
    Flow,
    Mode,
    Order,
    Outcome,
    Result,
    _decode_order,
    _plain_kill,
    decode_order,
    decode_outcome,
    encode_error,
    encode_order,
    encode_outcome,
)

BOOT = "0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00"
KILL = Order("o-1", Action.KILL, ProcessKey(4711, 123_456_789, BOOT), "dropper", "a-1", Mode.ENFORCE, 42)
FLOW = Flow("tcp", "192.0.2.1", 443, "198.51.100.7", 50000)
CAPTURE = dataclasses.replace(KILL, action=Action.CAPTURE, capture=CaptureSpec(5.0, 1 << 20, (FLOW,)))

text = st.text(st.characters(codec="utf-8") | st.sampled_from(["\udc80", "\udcff"]), max_size=64)


def as_json(order: Order) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(encode_order(order))
    return message


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def test_golden_bytes_of_a_kill_order() -> None:
    assert encode_order(KILL) == (
        b'{"v":1,"order_id":"o-1","action":"kill","process":{"pid":4711,"start_ns":123456789,'
        b'"boot_id":"0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00"},"policy":"dropper","alert_id":"a-1",'
        b'"mode":"enforce","issued_ns":42}\n'
    )


@given(order_id=text, policy=text, exe=text, seconds=st.floats(0, 100), flows=st.lists(st.just(FLOW), max_size=3))
def test_order_is_written_as_the_json_encoder_would(
    order_id: str, policy: str, exe: str, seconds: float, flows: list[Flow]
) -> None:
    kill = dataclasses.replace(KILL, order_id=order_id, policy=policy, exe=exe)
    for order in (
        kill,
        dataclasses.replace(kill, action=Action.CAPTURE, capture=CaptureSpec(seconds, 1, tuple(flows))),
    ):
        raw = encode_order(order)
        message = json.loads(raw)
        assert raw == json.dumps(message, separators=(",", ":")).encode() + b"\n"
        assert (message["order_id"], message["policy"], message.get("exe", "")) == (order_id, policy, exe)


def test_golden_bytes_of_an_outcome() -> None:
    outcome = Outcome("o-1", Result.REFUSED, "init", "pid 1 is never killed", "enforcer", 43)
    assert encode_outcome(outcome) == (
        b'{"v":1,"order_id":"o-1","result":"refused","code":"init","text":"pid 1 is never killed","by":"enforcer",'
        b'"time_ns":43,"took_ns":0,"dead":false}\n'
    )


@given(
    order_id=text.filter(bool),
    policy=text,
    exe=text,
    pid=st.integers(0, 2**31 - 1),
    start_ns=st.integers(0, 2**63 - 1),
    mode=st.sampled_from(Mode),
)
def test_order_survives_the_wire(order_id: str, policy: str, exe: str, pid: int, start_ns: int, mode: Mode) -> None:
    order = dataclasses.replace(
        KILL, order_id=order_id, policy=policy, exe=exe, process=ProcessKey(pid, start_ns, BOOT), mode=mode
    )
    encoded = encode_order(order)
    assert encoded.count(b"\n") == 1 and decode_order(encoded) == order


def test_capture_order_survives_the_wire() -> None:
    flows = (FLOW, Flow("udp", "2001:db8::1", 53))
    order = dataclasses.replace(CAPTURE, capture=CaptureSpec(0.5, 4096, flows))
    assert decode_order(encode_order(order)) == order


@pytest.mark.parametrize("result", Result)
def test_outcome_survives_the_wire(result: Result) -> None:
    outcome = Outcome("o", result, "code", "text \udcff", "policyd", 5, 6, True, "/x/y.pcap", 7, 8)
    assert decode_outcome(encode_outcome(outcome)) == outcome


def test_only_capturing_is_followed_by_another_outcome() -> None:
    assert [result for result in Result if not result.final] == [Result.CAPTURING]


def test_longest_order_fits_in_a_line() -> None:
    flow = Flow("tcp", "2001:db8:1111:2222:3333:4444:5555:6666", 65535, "2001:db8:1111:2222:3333:4444:5555:7777", 65535)
    order = Order(
        "\udcff" * MAX_ID_CHARS,
        Action.CAPTURE,
        ProcessKey(2**31 - 1, 2**63 - 1, BOOT),
        "\udcff" * MAX_POLICY_CHARS,
        "\udcff" * MAX_ID_CHARS,
        Mode.ENFORCE,
        2**63 - 1,
        "\udcff" * MAX_EXE_CHARS,
        CaptureSpec(86400.0, 1 << 40, (flow,) * MAX_FLOWS),
    )
    assert decode_order(encode_order(order)) == order


def test_program_with_an_endless_path_cannot_keep_its_own_order_from_being_sent() -> None:
    order = dataclasses.replace(KILL, exe="/" + "\udcff" * 5000, policy="p" * 1000)
    sent = decode_order(encode_order(order))
    assert (sent.exe, sent.policy) == ("", "p" * MAX_POLICY_CHARS)


def changed(**changes: object) -> dict[str, Any]:
    return as_json(KILL) | changes


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in as_json(KILL).items() if key != name}


@pytest.mark.parametrize(
    "message",
    [
        *(without(name) for name in as_json(KILL)),
        changed(extra=1),
        changed(v=2),
        changed(v=True),
        changed(v=1.0),
        changed(v="1"),
        changed(order_id=""),
        changed(order_id="x" * (MAX_ID_CHARS + 1)),
        changed(order_id=7),
        changed(order_id="\ud800"),
        changed(action="kill+capture"),
        changed(action=["kill"]),
        changed(action="capture"),
        changed(mode="shadow"),
        changed(policy=None),
        changed(issued_ns=-1),
        changed(issued_ns=1.5),
        changed(issued_ns=True),
        changed(issued_ns=2**63),
        changed(process=4711),
        changed(process={"pid": 4711}),
        changed(process={"pid": -1, "start_ns": 1, "boot_id": BOOT}),
        changed(process={"pid": "4711", "start_ns": 1, "boot_id": BOOT}),
        changed(process={"pid": 1, "start_ns": 1, "boot_id": BOOT, "tid": 1}),
        changed(process={"pid": 1, "start_ns": 1, "boot_id": "x" * 37}),
        changed(exe="x" * (MAX_EXE_CHARS + 1)),
        changed(capture={"seconds": 1, "max_bytes": 1}),
        [as_json(KILL)],
        None,
    ],
)
def test_order_that_is_not_exactly_right_is_refused(message: object) -> None:
    with pytest.raises(PeerError):
        decode_order(line(message))


@pytest.mark.parametrize(
    "capture",
    [
        {},
        {"seconds": 0, "max_bytes": 1},
        {"seconds": True, "max_bytes": 1},
        {"seconds": 1, "max_bytes": 0},
        {"seconds": 1, "max_bytes": 1, "filter": "port 80"},
        {"seconds": 1, "max_bytes": 1, "flows": {}},
        {"seconds": 1, "max_bytes": 1, "flows": [1]},
        {"seconds": 1, "max_bytes": 1, "flows": [{"proto": "tcp", "dst_ip": "::1", "dst_port": 1}] * (MAX_FLOWS + 1)},
        *(
            {
                "seconds": 1,
                "max_bytes": 1,
                "flows": [{"proto": "tcp", "dst_ip": "192.0.2.1", "dst_port": 1, "src_port": 1, **flow}],
            }
            for flow in (
                {"proto": "tcp or port 22"},
                {"dst_ip": "192.0.2.1 or host 192.0.2.2"},
                {"dst_ip": "fe80::1%eth0 or port 22"},
                {"dst_ip": ""},
                {"src_ip": "localhost"},
                {"src_ip": None},
                {"dst_port": 65536},
                {"dst_port": "80"},
                {"src_port": -1},
                {"comment": ""},
            )
        ),
    ],
)
def test_capture_that_is_not_exactly_right_is_refused(capture: object) -> None:
    with pytest.raises(PeerError):
        decode_order(line(as_json(KILL) | {"action": "capture", "capture": capture}))


def test_mapped_address_becomes_the_ipv4_one_that_is_on_the_wire() -> None:
    order = dataclasses.replace(CAPTURE, capture=CaptureSpec(1.0, 1, (Flow("tcp", "::ffff:192.0.2.1", 443),)))
    decoded = decode_order(encode_order(order)).capture
    assert decoded is not None and decoded.flows[0].dst_ip == "192.0.2.1"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00\n",
        b"{}\n",
        b"[" * 5000,
        b'{"v":1,"v":1}',
        b'{"v":1,"seconds":NaN}',
        b'{"v":' + b"9" * 5000 + b"}",
        b" " * (MAX_LINE_BYTES + 1),
    ],
)
def test_line_that_is_no_order_is_refused(raw: bytes) -> None:
    with pytest.raises(PeerError):
        decode_order(raw)


@given(st.binary(max_size=200))
def test_random_bytes_never_do_more_than_break_the_protocol(raw: bytes) -> None:
    for decode in (decode_order, decode_outcome):
        with pytest.raises(PeerError):
            decode(raw)


@given(st.data())
def test_order_with_any_value_replaced_is_refused_or_decodes(data: st.DataObject) -> None:
    message = as_json(CAPTURE)
    names = [(message, key) for key in message] + [(message["process"], key) for key in message["process"]]
    names += [(message["capture"], key) for key in message["capture"]]
    where, key = data.draw(st.sampled_from(names))
    where[key] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=5,
        )
    )
    try:
        order = decode_order(line(message))
    except PeerError:
        return
    assert decode_order(encode_order(order)) == order


def test_error_line_of_the_enforcer_is_raised_with_its_words() -> None:
    with pytest.raises(PeerError, match="the enforcer says: not permitted"):
        decode_outcome(encode_error("not permitted"))


def test_outcome_may_carry_fields_of_a_later_release() -> None:
    message = json.loads(encode_outcome(Outcome("o", Result.GONE, "", "", "enforcer", 1)))
    assert decode_outcome(line(message | {"later": [1]})).result is Result.GONE


WIRE_PAGE = (Path(__file__).parents[3] / "docs" / "wire.md").read_text(encoding="utf-8")


def test_examples_of_the_documentation_are_what_they_say() -> None:
    order, outcome = (" ".join(block.split()).encode() for block in re.findall(r"```json\n(.*?)```", WIRE_PAGE, re.S))
    assert decode_order(order).action is Action.KILL
    assert decode_outcome(outcome).result is Result.KILLED


def test_every_word_of_the_protocol_is_documented() -> None:
    words = {field.name for kind in (Order, Outcome, CaptureSpec, Flow) for field in dataclasses.fields(kind)}
    words |= {str(member.value) for kind in (Action, Mode, Result, Reason) for member in kind}
    assert {word for word in words if f"`{word}`" not in WIRE_PAGE} == set()


def judged_alike(raw: bytes) -> bool:
    """Whether the short way, where it takes a line, takes it for what the long way does; returns whether it took it."""
    found = _plain_kill(raw)
    assert found is None or found == _decode_order(raw)
    return found is not None


@given(
    order_id=text.filter(bool),
    policy=text,
    exe=text,
    pid=st.integers(0, 2**31 - 1),
    start_ns=st.integers(0, 2**63 - 1),
    mode=st.sampled_from(Mode),
    at=st.integers(0),
    insert=st.sampled_from(
        [b"", b" ", b"0", b"-", b".5", b'"', b"\\", b"\\u0041", b"\xc3\xa4", b"\x00", b"\t", b"\n", b",", b"9"]
    ),
    cut=st.integers(0, 3),
)
def test_short_way_takes_nothing_that_the_long_way_does_not(
    order_id: str, policy: str, exe: str, pid: int, start_ns: int, mode: Mode, at: int, insert: bytes, cut: int
) -> None:
    order = Order(order_id, Action.KILL, ProcessKey(pid, start_ns, BOOT), policy, order_id, mode, 42, exe)
    raw = encode_order(order)
    plain = all(char.isascii() and char.isprintable() and char not in '"\\' for char in order_id + policy + exe)
    assert judged_alike(raw) is plain
    at %= len(raw)
    judged_alike(raw[:at] + insert + raw[at + cut :])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"pid":4711', b'"pid":2147483648'),
        (b'"pid":4711', b'"pid":04711'),
        (b'"start_ns":123456789', b'"start_ns":9223372036854775808'),
        (b'"issued_ns":42', b'"issued_ns":9223372036854775808'),
        (b'"issued_ns":42', b'"issued_ns":42.0'),
        (b'"v":1', b'"v":2'),
        (b'"mode":"enforce"', b'"mode":"Enforce"'),
        (b'"order_id":"o-1"', b'"order_id":""'),
        (b'"order_id":"o-1"', b'"order_id":"%b"' % (b"x" * (MAX_ID_CHARS + 1))),
        (b'"policy":"dropper"', b'"policy":"%b"' % (b"x" * (MAX_POLICY_CHARS + 1))),
        (b'"action":"kill"', b'"action":"capture"'),
        (b'"issued_ns":42', b'"issued_ns":42,"exe":"%b"' % (b"x" * (MAX_EXE_CHARS + 1))),
        (b'"issued_ns":42', b'"issued_ns":42,"issued_ns":43'),
        (b"\n", b"\n\n"),
        (b"\n", b""),
    ],
)
def test_short_way_leaves_to_the_long_way_what_may_be_refused(old: bytes, new: bytes) -> None:
    raw = encode_order(KILL).replace(old, new)
    assert raw != encode_order(KILL) and _plain_kill(raw) is None


def test_short_way_takes_what_policyd_sends() -> None:
    for order in (KILL, dataclasses.replace(KILL, exe="/usr/bin/nc -l", mode=Mode.AUDIT)):
        assert judged_alike(encode_order(order))
    assert not judged_alike(encode_order(CAPTURE))
