"""Log lines: one line each, whatever is in them; read back; never waited for."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray import logs
from execray.logs import (
    MAX_VALUE_BYTES,
    KeyValueFormatter,
    LineHandler,
    Pace,
    escape,
    in_journal,
    parse_line,
)

JOURNAL = KeyValueFormatter("enforcer", journal=True)
_KEYS = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(
    lambda key: key not in ("level", "daemon", "event", "time")
)
#: Text as the daemons get it: from bytes, which need not be UTF-8.
_TEXTS = st.binary(max_size=200).map(os.fsdecode) | st.text(max_size=100)


def record(
    event: str = "bad order", level: int = logging.WARNING, name: str = "enforcer", **kv: object
) -> logging.LogRecord:
    return with_values(kv, event, level, name)


def with_values(
    kv: Mapping[str, object], event: str = "bad order", level: int = logging.WARNING, name: str = "enforcer"
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "f", 1, event, None, None)
    made.kv = kv
    return made


@settings(deadline=None)
@given(_TEXTS)
def test_escaped_value_stays_one_word_on_one_line(text: str) -> None:
    escaped = escape(text)
    assert escaped and escaped.isprintable()
    assert re.fullmatch(r'[^ "\\=]+|"([^"\\]|\\.)*"', escaped)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _TEXTS, max_size=5), st.booleans())
def test_any_bytes_in_values_give_one_line_that_parses_back(kv: dict[str, str], journal: bool) -> None:
    line = KeyValueFormatter("enforcer", journal=journal).format(with_values(kv))
    assert line.encode().decode() == line  # as it is written
    assert len(line.splitlines()) == 1 and line.isprintable()
    found = parse_line(line)
    assert found.pop("time", "").endswith("Z") is not journal
    assert found == {"level": "warning", "daemon": "enforcer", "event": "bad order", **kv}


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_shown_as_the_text_they_are(raw: bytes) -> None:
    assert parse_line(JOURNAL.format(record(reason=raw)))["reason"] == raw.decode("utf-8", "surrogateescape")


@settings(deadline=None)
@given(_TEXTS)
def test_traceback_of_an_error_with_any_text_is_one_value(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        made = record("bug", logging.CRITICAL)
        made.exc_info = sys.exc_info()
    line = JOURNAL.format(made)
    assert len(line.splitlines()) == 1 and line.startswith("<2>")
    found = parse_line(line)
    assert found["event"] == "bug" and found["trace"].startswith("Traceback (most recent call last):\n")


def test_line_cannot_be_forged_by_attacker_text() -> None:
    line = JOURNAL.format(record("bad order", reason='x"\n<3>level=error event="all is lost', uid=7))
    assert line.splitlines() == [line]
    assert line == (
        r'<4>level=warning daemon=enforcer event="bad order" reason="x\"\n<3>level=error event=\"all is lost" uid=7'
    )


@settings(deadline=None)
@given(st.characters(), st.integers(MAX_VALUE_BYTES - 20, 3 * MAX_VALUE_BYTES))
def test_long_value_is_cut_so_that_journald_does_not_split_the_line(char: str, count: int) -> None:
    line = JOURNAL.format(with_values({f"k{letter}": char * count for letter in "abcdefgh"}))
    assert len(line.encode("utf-8", "backslashreplace")) < 48 * 1024  # LineMax= of journald.conf
    assert all(
        (char * count).startswith(value.removesuffix("…")) for key, value in parse_line(line).items() if key[0] == "k"
    )


@pytest.mark.parametrize(
    "line", ["", "no pairs", "a=b\nc=d", "a=b  c=d", 'a="b', 'a="b"c', "a=b a=c", 'a="b"\n', "<9>a=b", "A=b"]
)
def test_what_is_no_log_line_is_not_read_as_one(line: str) -> None:
    if line == "":
        assert parse_line(line) == {}
        return
    with pytest.raises(ValueError, match="no log line"):
        parse_line(line)


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_journal_gets_the_priority_and_no_time(level: str, priority: int) -> None:
    line = JOURNAL.format(record(level=getattr(logging, level.upper())))
    assert line == f'<{priority}>level={level} daemon=enforcer event="bad order"'


def test_key_without_a_value_is_left_out() -> None:
    assert "tcpdump" not in JOURNAL.format(record("started", tcpdump=None))


def test_what_a_library_says_is_text_and_no_event() -> None:
    line = JOURNAL.format(record('Task exception was never retrieved\nevent="bug"', logging.ERROR, "asyncio"))
    found = parse_line(line)
    assert (found["event"], found["logger"], found["text"].splitlines()[1]) == ("library", "asyncio", 'event="bug"')


def test_own_parts_log_under_the_daemons_name() -> None:
    assert "daemon=enforcer" in JOURNAL.format(record("notify failed", name="execray"))


# --- pace -------------------------------------------------------------------------------------------------------------


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(JOURNAL.format(record))


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Lines, list[float]]]:
    """A root handler behind a Pace, and its clock."""
    clock = [0.0]
    monkeypatch.setattr(logs, "monotonic", lambda: clock[0])
    lines = Lines()
    lines.addFilter(Pace())
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [lines]
    root.setLevel("INFO")
    try:
        yield lines, clock
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_flood_of_one_event_is_held_back_and_told(paced: tuple[Lines, list[float]]) -> None:
    lines, clock = paced
    log = logging.getLogger("policyd")
    for _ in range(logs.BURST + 500):
        log.info("policy log")
    log.warning("kill")  # another event has its own budget
    assert len(lines.lines) == logs.BURST + 1
    clock[0] = logs.WINDOW_S + 1
    log.info("stopped")
    assert [parse_line(line).get("of") for line in lines.lines[-2:]] == ["policy log", None]
    assert parse_line(lines.lines[-2])["count"] == "500"
    log.info("policy log")
    assert len(lines.lines) == logs.BURST + 4


# --- whoever reads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_reader_that_does_not_read_is_not_waited_for_and_is_told_what_it_missed(kind: str) -> None:
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        reader, writer = ours.detach(), theirs.detach()
    handler = LineHandler(writer)
    handler.setFormatter(JOURNAL)
    try:
        began = monotonic()
        count = 0
        while not handler.lost or count < 3000:
            handler.emit(record(reason="x" * 200, uid=count))
            count += 1
        assert monotonic() - began < 5  # once PATIENCE_S, not for each line
        lost = handler.lost
        os.set_blocking(reader, False)
        data = b""
        while len(data) < 1 << 24:
            try:
                data += os.read(reader, 1 << 16)
            except BlockingIOError:
                break
        handler.emit(record(uid="last"))
        data += os.read(reader, 1 << 16)
    finally:
        os.close(reader)
        os.close(writer)
    lines = [parse_line(line) for line in data.decode().splitlines()]
    assert lines[-1]["uid"] == "last"
    assert (lines[-2]["event"], int(lines[-2]["count"])) == ("lines lost", lost)
    assert [int(line["uid"]) for line in lines[:-2]] == list(range(count - lost))  # whole, in order, none missing


def test_reader_that_is_gone_ends_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = LineHandler(writer)
    handler.setFormatter(JOURNAL)
    handler.emit(record())
    os.close(writer)
    assert handler.lost == 1


# --- set up -----------------------------------------------------------------------------------------------------------


def test_journal_is_known_by_its_device_and_inode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert in_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")  # a parent's, and we are redirected
        assert not in_journal(file.fileno())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not in_journal(file.fileno())


def run(code: str, tmp_path: Path, *, journal: bool) -> list[str]:
    """What a program's stderr has, where that is the journal or isn't."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        found = os.fstat(file.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}" if journal else ""}
        subprocess.run([sys.executable, "-c", code], stderr=file, env=environment, check=False, timeout=30)
    return path.read_text().splitlines()


def test_bug_that_ends_a_daemon_is_one_line(tmp_path: Path) -> None:
    code = "from execray.logs import setup_logging\nsetup_logging('policyd', 'info')\nraise ValueError('a\\nlevel=info event=x')"
    (line,) = run(code, tmp_path, journal=True)
    found = parse_line(line)
    assert line.startswith("<2>") and (found["daemon"], found["event"]) == ("policyd", "bug")
    assert found["trace"].endswith("ValueError: a\nlevel=info event=x")


@pytest.mark.parametrize("journal", [True, False])
def test_operators_error_is_a_log_line_in_the_journal_and_two_lines_elsewhere(tmp_path: Path, journal: bool) -> None:
    code = "from execray.logs import give_up\nfrom execray.errors import OperatorError\n"
    code += "give_up('policyd', OperatorError('no\\nway', 'try'))"
    lines = run(code, tmp_path, journal=journal)
    if journal:
        assert lines == [r'<3>level=error daemon=policyd event="gave up" reason="no\nway" hint=try']
    else:
        assert lines == [r"error: no\nway", "hint: try"]


def test_values_of_every_kind_are_text() -> None:
    for value in (1, 1.5, True, Path("/a b"), OSError(2, "No such file"), ["x"]):
        assert parse_line(JOURNAL.format(record(reason=value)))["reason"] == str(value)
    assert json.loads(parse_line(JOURNAL.format(record(reason=json.dumps({"a": '"'}))))["reason"]) == {"a": '"'}
