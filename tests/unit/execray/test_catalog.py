"""The event catalogue is complete: every row has what the kernel, the decoder, the language and the page need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from execray.process import ProcessKey, start_ticks_of
from execray.schema import layout, reference
from execray.schema.catalog import (
    ACTOR_FIELDS,
    ACTOR_SLOTS,
    EVENT_BY_NAME,
    EVENTS,
    FIRST_ADDED_NUMBER,
    Content,
    Flag,
    all_fields,
)
from execray.schema.event import DERIVE, Actor, Event, Value, actor_get
from execray.schema.kinds import CONSTANTS, Kind
from execray.schema.numbers import compat_numbers
from policyd.compiler.names import PLANNED_EVENTS
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.heartbeat import _PROBES
from tracerd.processes import ProcessTable
from tracerd.sensor import hooks_of
from tracerd.shapes import table_of

ROOT = Path(__file__).parents[3]


def test_kernel_and_catalogue_number_the_same_events() -> None:
    kernel = {name.removeprefix("ER_EVENT_").lower(): code for name, code in layout.ER_EVENT.items()}
    del kernel["invalid"], kernel["scan"]
    assert kernel.pop("own") == FIRST_ADDED_NUMBER
    assert kernel == {event.name: event.code for event in EVENTS}


def test_kernel_and_catalogue_name_the_same_flags() -> None:
    assert {name.removeprefix("ER_F_"): bit for name, bit in layout.ER_FLAG.items()} == {f.name: int(f) for f in Flag}


def test_kernel_and_catalogue_number_the_same_bytes() -> None:
    assert {name.removeprefix("ER_CONTENT_"): bit for name, bit in layout.ER_CONTENT.items()} == {
        kind.name: int(kind) for kind in Content
    }


def test_every_event_has_a_decoder_a_hook_and_a_probe() -> None:
    decoder = Decoder(ProcessTable(16), BatchBuilder())
    assert set(decoder._handlers) == {event.code for event in EVENTS}
    assert all(hooks_of(event) for event in EVENTS)
    assert set(_PROBES) | {"fork", "exit"} == {event.name for event in EVENTS}


def test_calls_have_the_numbers_of_the_kernels_headers() -> None:
    folder = Path("/usr/include/x86_64-linux-gnu/asm")
    if not folder.exists():
        pytest.skip("needs the headers of x86-64")
    native, compat, x32 = (_numbers(folder / f"unistd_{abi}.h") for abi in ("64", "32", "x32"))
    for event in EVENTS:
        for call in event.system_calls:
            if call.native is not None and call.name in native:
                assert native[call.name] == call.native, call.name
                assert x32[call.name] == (call.native if call.x32 is None else call.x32), call.name
            for number in call.compat:
                names = [name for name, found in compat.items() if found == number]
                assert not names or any(_stem(name) == _stem(call.name) for name in names), (call.name, names)


def test_32_bit_numbers_are_those_of_the_kernels_headers() -> None:
    folder = Path("/usr/include/x86_64-linux-gnu/asm")
    if not folder.exists():
        pytest.skip("needs the headers of x86-64")
    native, compat = (_numbers(folder / f"unistd_{abi}.h") for abi in ("64", "32"))
    for name, number in native.items():
        if name in compat:
            assert compat[name] in compat_numbers(number), name
        for other in compat_numbers(number):
            names = [known for known, found in compat.items() if found == other]
            assert not names or any(_stem(known) == _stem(name) for known in names) or name in _RENAMED, (name, names)


#: Calls whose 32-bit forms have other names altogether.
_RENAMED = frozenset(("mmap", "umount2", "newfstatat", "select"))


def _numbers(header: Path) -> dict[str, int]:
    return {
        name: int(number)
        for name, number in re.findall(
            r"^#define __NR_(\w+) \(?(?:__X32_SYSCALL_BIT \+ )?(\d+)\)?$", header.read_text(), re.MULTILINE
        )
    }


def _stem(name: str) -> str:
    """Of a family that has more than one width in the 32-bit ABI."""
    return re.sub(r"(_time64|16|32|64|2)$", "", name)


def test_no_call_is_more_than_two_events() -> None:
    assert any(table_of(event.code for event in EVENTS))


def test_every_event_has_a_kernel_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "kernel").glob("test_*.py"))
    for event in EVENTS:
        assert f'"{event.name}"' in tests, event.name


def test_names_are_said_once() -> None:
    for event in EVENTS:
        own = [name for field in event.fields for name in (field.name, *field.aliases)]
        actor = [name for field in ACTOR_FIELDS for name in (field.name, *field.aliases)]
        assert len(own + actor) == len(set(own + actor)), event.name


def test_what_is_seen_is_not_announced_for_later() -> None:
    assert not PLANNED_EVENTS & set(EVENT_BY_NAME)


def test_fields_refer_to_what_exists() -> None:
    for event, field in all_fields():
        assert field.doc.endswith("."), field.name
        assert not field.constants or field.constants in CONSTANTS
        assert bool(field.derived) == (field.name in DERIVE), field.name
        if field.derived:
            slots = ACTOR_SLOTS if event is None else (*event.slots, *ACTOR_SLOTS)
            assert field.derived in {slot.name for slot in slots}


def test_one_field_name_means_one_kind() -> None:
    kinds: dict[str, Kind] = {}
    for _, field in all_fields():
        if field.name == "path":  # a path, but for connect an address that may hold anything
            continue
        assert kinds.setdefault(field.name, field.kind) is field.kind, field.name


def test_every_field_of_an_event_can_be_read() -> None:
    actor = Actor(tuple(_value(field.kind) for field in ACTOR_SLOTS), None)
    for event in EVENTS:
        made = Event(1, 2, event, Actor(actor.slots, actor), 7, Flag(0), tuple(_value(f.kind) for f in event.slots))
        for name in event.by_name:
            assert made.get(name) is not None, name
        for field in ACTOR_FIELDS:
            assert actor_get(actor, field.name) is not None
            assert made.get(f"parent.{field.name}") is not None
        assert made.to_json()["event"] == event.name


def _value(kind: Kind) -> Value:
    if kind.is_number:
        return 1
    values: dict[Kind, Value] = {
        Kind.BOOL: True,
        Kind.TEXTS: (b"a",),
        Kind.PROCESS: (1, 2),
        Kind.IP: b"\x7f\0\0\1",
    }
    return values.get(kind, b"x")


def test_aliases_of_the_seed_files() -> None:
    assert EVENT_BY_NAME["openat"].name == "open" and EVENT_BY_NAME["execve"].name == "exec"
    assert EVENT_BY_NAME["open"].by_name["pathname"].name == "path"
    assert EVENT_BY_NAME["write"].by_name["buf"].name == "content"
    assert EVENT_BY_NAME["write"].by_name["length"].name == "len"


def test_the_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/reference/events.md").read_text() == "\n".join(reference.page()) + "\n", "make docs"


def test_process_key_reads_what_it_prints() -> None:
    key = ProcessKey(4711, 123_456_789_012, "boot")
    assert ProcessKey.parse(str(key), "boot") == key
    assert key.start_ticks == 12345
    assert start_ticks_of(1) > 0


def test_a_process_is_as_old_as_the_time_since_its_start_and_of_no_age_where_that_is_unknown() -> None:
    def age(time_ns: int, start_ns: int) -> Value:
        actor = Actor(((7, start_ns), *(None for _ in ACTOR_SLOTS[1:])), None)
        return Event(1, time_ns, EVENT_BY_NAME["exit"], actor, 7, Flag(0), (0, 0)).get("proc.age")

    assert [age(5_000, 2_000), age(2_000, 2_000), age(1_999, 2_000), age(5_000, 0)] == [3_000, 0, 0, None]


def test_a_creators_age_is_the_time_since_it_began() -> None:
    def made(start_ns: int, by: Actor | None) -> Actor:
        return Actor(((7, start_ns), *(None for _ in ACTOR_SLOTS[1:])), by)

    event = Event(1, 5_000, EVENT_BY_NAME["exit"], made(4_000, made(3_000, made(500, None))), 7, Flag(0), (0, 0))
    names = ("proc.age", "parent.proc.age", "ancestor[1].proc.age", "ancestor[2].proc.age")
    assert [event.get(name) for name in names] == [1_000, 2_000, 4_500, None]
