"""What the kernel tests of a policy, and what is left to user space, in words: for `policy explain`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import islice
from typing import Final

from execray.gate.addresses import V4_PLACES, addresses_at
from execray.gate.plan import ADDRESSES, Input
from execray.schema.catalog import EVENT_BY_CODE
from execray.schema.row import FILE_NAMES_NAME
from policyd.engine.conditions import fields_of
from policyd.engine.planning import ACTOR, SlotKey, slot_of
from policyd.engine.table import PolicyTable
from policyd.gate.needs import Mask, PathNeed
from policyd.gate.spans import EVERY, Spans, outside
from policyd.gate.ways import Asked, asked_of, has_path, input_of, is_gated
from policyd.program import CompiledPolicy, Step

_SHOWN: Final = 3
_LEAST, _MOST = EVERY[0]


def kernel_lines(policy: CompiledPolicy) -> list[str]:
    """Returns for each step and kind of event what is tested where; a line that begins with a space goes on with another."""
    table = PolicyTable(policy, 0)
    lines: list[str] = []
    for number, step in enumerate(policy.steps):
        for code in step.codes:
            name = f"{'`' + step.alias + '`' if step.alias else f'step {number + 1}'} on {EVENT_BY_CODE[code].name}"
            lines += _step_lines(table, number, code, name)
    return lines


def _step_lines(table: PolicyTable, number: int, code: int, name: str) -> Iterator[str]:
    if not is_gated(code):
        yield f"{name}: never dropped in the kernel"
        return
    ways = [asked_of(way, code) for way in table.plans[number, code].ways]
    if not ways:
        yield f"{name}: can't be met, always dropped"
        return
    told = list(dict.fromkeys(map(_asked, ways)))
    yield f"{name}: in the kernel {'; or '.join(told)}"
    rest = _in_user_space(table.policy.steps[number], code)
    if rest:
        yield f" in user space {', '.join(rest)}"
    if any(asked.is_anything for asked in ways):
        yield f" so every {EVENT_BY_CODE[code].name} is sent"


def _asked(asked: Asked) -> str:
    parts = [] if asked.path is None else [_path(asked.path)]
    parts += [_spans(which, wanted) for which, wanted in asked.numbers]
    parts += [_mask(which, mask) for which, mask in asked.masks]
    if asked.names is not None:
        parts.append(
            "comm " + " or ".join(_text(name) for name in sorted(asked.names)[:_SHOWN]) + _more(len(asked.names))
        )
    return ", ".join(parts) if parts else "nothing"


def _path(need: PathNeed) -> str:
    if need.named:
        return "the file is known as one of these paths"
    if need.open:
        return "there is a path"
    atoms = sorted(need.atoms, key=lambda atom: (atom[0].name, atom[1]))
    if not atoms:
        return "no path is like that"
    return " or ".join(f"{part.value} {_text(text)}" for part, text in atoms[:_SHOWN]) + _more(len(atoms))


def _more(count: int) -> str:
    return f" or {count - _SHOWN} more" if count > _SHOWN else ""


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _spans(which: Input, wanted: Spans) -> str:
    name = _name(which)
    if which is Input.CREATED:  # it is 0 or 1
        return name if any(low <= 1 <= high for low, high in wanted) else f"not {name}"
    if which in ADDRESSES:
        return _addresses(name, wanted)
    told = [
        f"{name} = {low}"
        if low == high
        else f"{name} >= {low}"
        if high == _MOST
        else f"{name} <= {high}"
        if low == _LEAST
        else f"{name} {low} to {high}"
        for low, high in wanted[:_SHOWN]
    ]
    return (" or ".join(told) if told else f"{name} is never that") + _more(len(wanted))


def _addresses(name: str, wanted: Spans) -> str:
    others = outside(wanted)
    shown, how = (others, "not in") if len(others) < len(wanted) else (wanted, "in")
    told = [_range(low, high) for low, high in shown[:_SHOWN]]
    return (f"{name} {how} {' or '.join(told)}" if told else f"{name} is never that") + _more(len(shown))


def _range(low: int, high: int) -> str:
    """The addresses from one place to another: where they are one, as a network."""
    ends = addresses_at(low)[0], addresses_at(high)[1]
    first: ipaddress.IPv4Address | ipaddress.IPv6Address
    last: ipaddress.IPv4Address | ipaddress.IPv6Address
    if V4_PLACES[0] <= low and high <= V4_PLACES[1]:
        first, last = (ipaddress.IPv4Address(end & 0xFFFFFFFF) for end in ends)
    else:
        first, last = map(ipaddress.IPv6Address, ends)
    if first == last:
        return str(first)
    networks = list(islice(ipaddress.summarize_address_range(first, last), 2))
    return str(networks[0]) if len(networks) == 1 else f"{first} to {last}"


def _mask(which: Input, mask: Mask) -> str:
    bits, is_set = mask
    return f"{_name(which)} {'with a bit' if is_set else 'without a bit'} of {bits:#o}"


def _name(which: Input) -> str:
    return which.name.lower().replace("_", ".")


def _in_user_space(step: Step, code: int) -> list[str]:
    """Returns the fields of which the kernel tests nothing."""
    kind = EVENT_BY_CODE[code]
    found = []
    for ref in fields_of(step.condition):
        slot = slot_of(ref, kind)
        known = slot is not None and (
            input_of(slot, code) is not None
            or slot in (SlotKey(ACTOR, "comm"), SlotKey(code, FILE_NAMES_NAME))
            or (slot == SlotKey(code, "path") and has_path(code))
        )
        if not known and (slot is not None or ref.alias is not None or ref.name.startswith("ancestor")):
            found.append(f"{ref.alias}.{ref.name}" if ref.alias else ref.name)
    return list(dict.fromkeys(found))
