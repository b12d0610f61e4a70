"""Tables of packages: what they add, and what is refused so that nothing of ours changes by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.extensions import extend_catalogue
from execray.schema import catalog
from execray.schema.catalog import EVENT_BY_CODE, EVENT_BY_NAME, EVENTS, FIRST_ADDED, FIRST_ADDED_NUMBER
from execray.schema.extension import BadTable, Table, add, code_of_name, digests, disagreements, read_table
from execray.schema.layout import HEADER, PLAIN, SHAPE, TASK, Header, Plain, Shape, Task
from execray.wire.frames import Decoder as FrameDecoder
from execray.wire.frames import encode
from policyd.compiler import Level, compile_source
from policyd.compiler.names import dotted_heads, find_field
from tests.support.plugin_folder import install
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.plain import _PATHS, plain_decoders
from tracerd.processes import ProcessTable
from tracerd.shapes import code_of, kernel_number, table_of

EVENT = """
[[event]]
name = "quotactl"
doc = "Quotas"
fields = [
    { name = "path" },
    { name = "quota.cmd", kind = "int", doc = "Which." },
    { name = "quota.device", kind = "text", doc = "Where." },
]
calls = ["quotactl 179 131 quota.cmd:u $quota.device"]
"""


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """The catalogue is one for each process: after a test it is as it was."""
    rows, names, codes, added = list(EVENTS), dict(EVENT_BY_NAME), dict(EVENT_BY_CODE), catalog._added
    yield
    EVENTS[:] = rows
    EVENT_BY_NAME.clear()
    EVENT_BY_NAME.update(names)
    EVENT_BY_CODE.clear()
    EVENT_BY_CODE.update(codes)
    catalog._added = added
    find_field.cache_clear()
    dotted_heads.cache_clear()


def table(text: str) -> Table:
    return read_table("api = 1\n" + text, "some 1.0", "/some")


def added(text: str = EVENT) -> None:
    add(table(text))
    find_field.cache_clear()
    dotted_heads.cache_clear()


def test_an_added_event_is_in_the_language() -> None:
    policy = 'path "p" { quotactl { quota.device = "/dev/sda" quota.cmd = 5 path startswith "/srv/" } }'
    added()
    done = compile_source(policy, "p.policy")
    assert len(done.policies) == 1 and not [found for found in done.diagnostics if found.level is Level.ERROR]
    assert EVENT_BY_NAME["quotactl"].code == code_of_name("quotactl") >= FIRST_ADDED


def test_its_record_becomes_an_event_that_the_stream_carries() -> None:
    added()
    event = EVENT_BY_NAME["quotactl"]
    number = kernel_number(event.code)
    assert number == FIRST_ADDED_NUMBER and code_of(number) == event.code and code_of(number + 1) == number + 1
    raw = table_of([event.code])
    assert Shape._make(SHAPE.unpack_from(raw, 179 * SHAPE.size)).event == number
    zeros: dict[str, Any] = {**dict.fromkeys(Task._fields, 0), "comm": b"x", "pid": 7, "tid": 7, "start_ns": 9}
    task = Task(**zeros)
    plain = Plain(*(0,) * len(Plain._fields))._replace(arg0=5, nr=179, ret=-3, len2=4)
    size = PLAIN.size + 4
    header = Header(*(0,) * len(Header._fields))._replace(len=size, kind=number, time_ns=11)
    record = bytearray(PLAIN.pack(*plain)) + b"/dev"
    HEADER.pack_into(record, 0, *header)
    TASK.pack_into(record, HEADER.size, *task)
    builder = BatchBuilder()
    decoder = Decoder(ProcessTable(16), builder)
    decoder.decode(memoryview(record), 0, size)
    (batch,) = FrameDecoder().feed(encode(builder.take()))
    found = batch.event(0)  # type: ignore[union-attr]  # a batch
    assert decoder.refused == 0 and found.type is event
    assert [found.get(name) for name in ("quota.cmd", "quota.device", "ret", "path")] == [5, b"/dev", -3, None]


def test_what_every_line_says_without_naming_it_is_what_the_decoder_can_read() -> None:
    from execray.schema.extension import SHARED

    assert set(SHARED) == set(_PATHS)


def test_a_line_more_for_an_event_of_ours() -> None:
    added('[[more]]\nevent = "umount"\ncalls = ["unmount9 700 - name~ flags"]\n')
    assert EVENT_BY_NAME["umount"].package == "some 1.0"
    assert 700 in plain_decoders(frozenset({EVENT_BY_NAME["umount"].code}))[EVENT_BY_NAME["umount"].code]


def test_every_event_of_ours_that_takes_further_calls_has_the_common_decoder() -> None:
    from execray.schema.extension import OWN_RECORDS

    decoder = Decoder(ProcessTable(16), BatchBuilder())
    own = {event.name for event in EVENTS if decoder._handlers[event.code][1] != decoder._plain}
    assert own <= OWN_RECORDS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "says nothing"),
        ("x = 1", "means nothing"),
        ("[[event", "not TOML"),
        ("event = 3", r"write \[\[event\]\]"),
        (EVENT.replace("quotactl", "open", 1), "there is an event `open`"),
        (EVENT.replace('"quotactl"', '"Big"', 1), "small letters"),
        (EVENT.replace('"quotactl"', '"openat"', 1), "there is an event `openat`"),
        (EVENT + EVENT, "there is an event `quotactl`"),
        (EVENT.replace("quota.cmd", "exe"), "`exe` is there already"),
        (EVENT.replace("quota.cmd", "pid"), "`pid` is there already"),
        (EVENT.replace("quota.cmd", "ret"), "means nothing"),
        (EVENT.replace("quota.cmd", "flags").replace('"int"', '"text"'), "`flags` is a bit set in other events"),
        (EVENT.replace('"int"', '"float"'), "the kinds are"),
        (EVENT.replace('doc = "Which."', 'doc = "Which.", constants = "NO_"'), "no constants NO_"),
        (EVENT.replace("$quota.device", "_"), "says nothing of quota.device"),
        (EVENT.replace("quotactl 179", "quotactl x"), "not a call"),
        (EVENT.replace(" 179 ", " 1179 "), "a number that no call has"),
        (EVENT.replace(" 131 ", " 600 "), "a number that no call has"),
        (EVENT.replace("quotactl 179 131", "chmod 90 15"), "says other things of its arguments"),
        (EVENT.replace(" 179 131", " 44 - "), "two events already"),
        (EVENT.replace("quota.cmd:u", "quota.cmd?4").replace(" 179 131", " 161 61"), "says other things"),
        (EVENT.replace("calls", 'object = "../x.bpf.o"\ncalls'), "no name of an object"),
        ('[[more]]\nevent = "open"\ncalls = ["x 700 - name"]', "no event that can have further calls"),
        ('[[more]]\nevent = "nothing"\ncalls = ["x 700 - name"]', "no event that can have further calls"),
        ('[[more]]\nevent = "umount"\ncalls = ["x 166 - name~ flags"]', "two events already|one of its calls already"),
    ],
)
def test_a_table_that_does_not_fit_changes_nothing(text: str, reason: str) -> None:
    before = list(EVENTS), dict(EVENT_BY_NAME)
    with pytest.raises(BadTable, match=reason):
        added(text)
    assert before == (EVENTS, EVENT_BY_NAME)


def test_another_version_of_the_interface_is_refused() -> None:
    with pytest.raises(BadTable, match="version 2 of the interface"):
        read_table("api = 2", "some 1.0", "/some")


def test_two_ends_that_differ_are_told_how() -> None:
    assert disagreements({}) == disagreements(None) == {}
    assert "restart policyd" in disagreements({"strange": "1"})["strange"]
    added()
    mine = digests()
    assert disagreements(mine) == {}
    assert "restart tracerd" in disagreements({})["quotactl"]
    assert "another version" in disagreements({"quotactl": "1"})["quotactl"]


def test_packages_are_found_by_their_entry_points_and_broken_ones_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for name, text in (("good", "api = 1\n" + EVENT), ("late", "api = 1\n" + EVENT), ("bad", "\xff")):
        install(folder, f"x{name}", "", {"execray.syscalls": {"x": name}, "other": {"y": "nothing"}})
        (folder / name).mkdir(mode=0o755)
        (folder / name / "execray.toml").write_text(text)
    install(folder, "none", "", {"execray.syscalls": {"x": "none"}})
    found = {outcome.package: outcome for outcome in extend_catalogue(folder)}
    assert found["xgood 1.0"].events == ("quotactl",) and not found["xgood 1.0"].refused
    assert "there is an event `quotactl` already" in found["xlate 1.0"].refused
    assert "No such file" in found["none 1.0"].refused and found["xbad 1.0"].refused


def test_nothing_is_taken_from_where_others_may_write(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "xgood", "", {"execray.syscalls": {"x": "good"}})
    (folder / "good").mkdir(mode=0o755)
    (folder / "good" / "execray.toml").write_text("api = 1\n" + EVENT)
    (folder / "good").chmod(0o777)
    (found,) = extend_catalogue(folder)
    assert "may be written by others" in found.refused and "quotactl" not in EVENT_BY_NAME
