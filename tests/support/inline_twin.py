"""Says in Python what bpf/include/execray/inline.h says of a rule, from what the engine has of an event."""

from __future__ import annotations

from execray.gate.addresses import place_of
from execray.gate.inline import NumberKind, NumberTest, Part, Rule, TextTest
from execray.gate.plan import ADDRESSES, Input
from execray.schema.event import Event

_FIELDS = {
    Input.RET: "ret",
    Input.UID: "uid",
    Input.EUID: "euid",
    Input.FLAGS: "flags",
    Input.MODE: "mode",
    Input.FAMILY: "family",
    Input.PORT: "dst.port",
    Input.NEW_UID: "new.uid",
    Input.NEW_EUID: "new.euid",
    Input.OLD_UID: "old.uid",
    Input.OLD_EUID: "old.euid",
    Input.CREATED: "created",
    Input.DST_IP: "dst.ip",
    Input.SRC_IP: "src.ip",
}


def meets(rule: Rule, event: Event) -> bool:
    """Whether the event meets the rule; what is missing, or isn't wholly known, meets none."""
    if event.type.code != rule.code or event.flags:
        return False
    return all(_number(test, event) for test in rule.numbers) and all(_text(test, event) for test in rule.texts)


def _number(test: NumberTest, event: Event) -> bool:
    name = _FIELDS.get(test.input, {"ptrace": "request", "kill": "sig"}.get(event.type.name, ""))
    value = event.get(name)
    if test.input in ADDRESSES and isinstance(value, bytes):
        value = place_of(value)
    if not isinstance(value, int):
        return False
    met = test.low <= value <= test.high if test.kind is NumberKind.RANGE else value & test.low == test.high
    return met is not test.negate


def _text(test: TextTest, event: Event) -> bool:
    value = event.get("comm" if test.part is Part.COMM else "path")
    if not isinstance(value, bytes) or (test.part is not Part.COMM and not value.startswith(b"/")):
        return False
    met = {
        Part.EXACT: value == test.text,
        Part.STARTS: value.startswith(test.text),
        Part.ENDS: value.endswith(test.text),
        Part.COMM: value == test.text,
    }[test.part]
    return met is not test.negate
