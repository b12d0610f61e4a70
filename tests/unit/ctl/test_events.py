"""One line for each event, that nothing in the event can break out of."""

from __future__ import annotations

import time
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.ctl import events
from execray.ctl.events import EventTypes, User
from execray.schema.catalog import EVENTS

NOW_NS = time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def record(event: str = "open", **fields: Any) -> dict[str, Any]:
    actor = {"proc.id": "4711-1000", "uid": 0, "euid": 0, "comm": "cat", "exe": "/usr/bin/cat", "argv": ["cat", "x"]}
    return {"event": event, "id": 7, "time_ns": NOW_NS, "tid": 4711, **actor, **fields}


def shown(capsys: pytest.CaptureFixture[str], *records: dict[str, Any]) -> list[str]:
    words = events._Words()
    for one in records:
        words.show(one)
    return capsys.readouterr().out.splitlines()


def test_a_line_says_when_whose_which_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    before = time.strftime("%H:%M:%S")
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    (line,) = shown(capsys, {**record(path="/etc/shadow", flags=0, ret=3), "time_ns": now_ns})
    when, rest = line[:12], line[12:]
    assert before <= when[:8] <= time.strftime("%H:%M:%S") or before > time.strftime("%H:%M:%S")  # around midnight
    assert rest == "  root      cat[4711]              open /etc/shadow (O_RDONLY) -> 3"


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({"event": "exec", "filename": "/bin/cat", "ret": 0}, "exec /bin/cat: cat x -> 0"),
        ({"event": "fork", "child.id": "99-5"}, "fork: child 99"),
        (
            {"event": "ptrace", "request": 16, "target.id": "99-5", "ret": -1},
            "ptrace PTRACE_ATTACH of pid 99 -> EPERM",
        ),
        ({"event": "exit", "exit_code": 0, "signal": 9}, "killed by SIGKILL"),
        ({"uid": 0, "euid": 4242, "path": "/x", "flags": 0, "ret": 1}, "open /x (O_RDONLY) -> 1"),
    ],
)
def test_what_a_record_leaves_to_be_computed_is_shown(
    capsys: pytest.CaptureFixture[str], fields: dict[str, Any], end: str
) -> None:
    (line,) = shown(capsys, record(**fields))
    assert line.endswith(end)
    assert ("root>4242" in line) is ("euid" in fields)


@pytest.mark.parametrize(
    ("where", "count", "words"),
    [
        ("tail: too many a second", 1200, "1,200 events not shown: too many a second"),
        ("ring", 3, "3 events lost at `ring`"),
        ("restart of tracerd", 0, "an unknown number of events lost"),
    ],
)
def test_what_was_left_out_is_told(capsys: pytest.CaptureFixture[str], where: str, count: int, words: str) -> None:
    lost = {"event": "lost", "id": 3, "time_ns": NOW_NS, "where": where, "count": count, "since_ns": NOW_NS}
    (line,) = shown(capsys, lost)
    assert words in line


@given(st.data())
@settings(deadline=None)
def test_no_record_breaks_out_of_its_line(data: st.DataObject) -> None:
    junk = st.one_of(
        st.none(), st.integers(), st.text(max_size=30), st.lists(st.text(max_size=5), max_size=3), st.booleans()
    )
    names = sorted({field.name for event in EVENTS for field in (*event.by_name.values(), *event.fields)})
    fields = data.draw(st.dictionaries(st.sampled_from([*names, "time_ns", "where", "count"]), junk, max_size=8))
    kind = data.draw(st.sampled_from([*(event.name for event in EVENTS), "lost", "\x1b[2J"]))
    line = events._Words().line({**record(kind), **fields})
    assert line.isprintable()


def test_on_a_terminal_a_line_stays_on_one_line_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "columns", lambda: 80)
    (line,) = shown(capsys, record(path="/" + "x" * 150, flags=0, ret=3))
    assert len(line) == 80 and line.endswith("x… -> 3")


def test_types_are_names_with_commas() -> None:
    assert EventTypes().convert("open, exec,execve", None, None) == ["open", "exec", "execve"]
    with pytest.raises(click.UsageError, match="opne"):
        EventTypes().convert("open,opne", None, None)


def test_types_are_completed_one_by_one() -> None:
    context, option = click.Context(click.Command("events")), click.Option(["--type"])
    complete = EventTypes().shell_complete
    assert [item.value for item in complete(context, option, "ex")] == ["exec", "exit"]
    assert [item.value for item in complete(context, option, "exec,ex")] == ["exec,exit"]


def test_a_user_is_a_name_or_a_number() -> None:
    assert User().convert("root", None, None) == 0 and User().convert("54321", None, None) == 54321
    with pytest.raises(click.UsageError, match="no user"):
        User().convert("nobody-of-this-name", None, None)
