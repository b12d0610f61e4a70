"""Alerts reach the file whole and once, and no sink can hold up another."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import pty
import resource
import signal
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.schema.catalog import ACTOR_FIELDS, EVENTS
from execray.schema.kinds import Kind
from policyd.sinks.base import SECRET, Alert, alert_line, without_secrets
from policyd.sinks.fanout import Fanout, Lane
from policyd.sinks.journal import JournalSink, encode, entry
from policyd.sinks.jsonl import MAX_UNWRITTEN, AlertFile, id_of, read_newest_first
from policyd.sinks.stdout import StdoutSink
from tests.support.sample_alert import sample_alert

LOG = logging.getLogger("test")


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [sample_alert(f"{number:016x}") for number in range(start, start + count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.jsonl"


@pytest.fixture
def file(path: Path) -> Iterator[AlertFile]:
    opened = AlertFile(path, max_bytes=1 << 20, keep=3)
    yield opened
    opened.close()


def test_each_alert_is_one_line_and_the_file_is_not_for_everyone(file: AlertFile, path: Path) -> None:
    alerts = numbered(3)
    file.write_all(alerts)
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == alerts
    assert stat.S_IMODE(path.stat().st_mode) & 0o027 == 0
    assert file.stats.written == 3


def test_a_line_break_in_attacker_text_makes_no_second_line(file: AlertFile, path: Path) -> None:
    alert = sample_alert()
    alert["process"]["command_line"] = 'x\n{"execray":{"alert_id":"forged"}}\r\x1b[2J\u2028'
    file.write_all([alert])
    lines = path.read_bytes().splitlines()
    assert len(lines) == 1
    assert lines[0].isascii() and not any(byte < 0x20 for byte in lines[0])
    assert json.loads(lines[0])["process"]["command_line"] == alert["process"]["command_line"]


def test_a_name_that_is_not_utf8_round_trips(file: AlertFile, path: Path) -> None:
    name = b"/tmp/a\xff".decode("utf-8", "surrogateescape")
    alert = sample_alert()
    alert["process"]["executable"] = name
    file.write_all([alert])
    (read,) = read_newest_first(path, 3, 10)
    assert read["process"]["executable"].encode("utf-8", "surrogateescape") == b"/tmp/a\xff"


def test_rotation_keeps_so_many_files_and_the_newest_alerts(path: Path) -> None:
    one = len(alert_line(sample_alert()))
    file = AlertFile(path, max_bytes=one * 4, keep=2)
    file.write_all(numbered(20))
    file.close()
    files = sorted(found.name for found in path.parent.iterdir())
    assert files == ["alerts.jsonl", "alerts.jsonl.1", "alerts.jsonl.2"]
    assert all(found.stat().st_size <= one * 4 for found in path.parent.iterdir())
    read = [id_of(alert) for alert in read_newest_first(path, 2, 100)]
    assert read == [f"{number:016x}" for number in reversed(range(8, 20))]
    assert file.rotations == 4


def test_an_alert_larger_than_the_limit_is_still_written(path: Path) -> None:
    file = AlertFile(path, max_bytes=10, keep=1)
    file.write_all(numbered(2))
    file.close()
    assert [id_of(alert) for alert in read_newest_first(path, 1, 9)] == [f"{1:016x}", f"{0:016x}"]


def test_ids_on_file_are_known_after_a_restart(file: AlertFile, path: Path) -> None:
    file.write_all(numbered(5))
    again = AlertFile(path, max_bytes=1 << 20, keep=3)
    assert again.holds(f"{3:016x}") and not again.holds(f"{5:016x}")
    again.close()


def test_a_line_cut_off_by_a_crash_is_removed_and_not_remembered(path: Path) -> None:
    whole, cut = alert_line(sample_alert("a" * 16)), alert_line(sample_alert("b" * 16))[:-20]
    path.write_bytes(whole + cut)
    file = AlertFile(path, max_bytes=1 << 20, keep=3)
    assert file.holds("a" * 16) and not file.holds("b" * 16)
    file.write_all([sample_alert("b" * 16)])
    file.close()
    assert [id_of(json.loads(line)) for line in path.read_bytes().splitlines()] == ["a" * 16, "b" * 16]


def test_a_file_without_any_line_end_becomes_empty(path: Path) -> None:
    path.write_bytes(b"x" * 200_000)
    AlertFile(path, max_bytes=1 << 20, keep=3).close()
    assert path.read_bytes() == b""


def test_lines_that_are_no_alerts_are_skipped_when_read(path: Path) -> None:
    path.write_bytes(b"not json\n[]\n{}\n" + alert_line(sample_alert()) + b"[" * 100_000 + b"\n")
    assert [id_of(alert) for alert in read_newest_first(path, 0, 9)] == [id_of(sample_alert())]


def test_lines_longer_than_one_read_come_back_whole(file: AlertFile, path: Path) -> None:
    alerts = [sample_alert(f"{n:016x}", note="x" * (70_000 * n)) for n in range(4)]
    file.write_all(alerts)
    assert list(read_newest_first(path, 3, 9)) == alerts[::-1]


def test_a_link_in_place_of_the_file_is_refused(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text("keep\n")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        AlertFile(path, max_bytes=1 << 20, keep=3)
    assert target.read_text() == "keep\n"


def test_a_file_moved_away_by_someone_else_is_made_anew(file: AlertFile, path: Path) -> None:
    file.write_all(numbered(1))
    path.rename(path.with_name("taken"))
    file.write_all(numbered(1, start=1))
    assert [id_of(alert) for alert in read_newest_first(path, 0, 9)] == [f"{1:016x}"]


FULL = 4096


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A limit on the size of files, FULL bytes: the nearest thing to a full disk that needs no disk.

    Not a fixture: one lasts until pytest has printed the test's result, to a file perhaps, which has the same limit.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_no_half_line_and_the_alert_is_written_later(file: AlertFile, path: Path) -> None:
    file.write_all(numbered(2))
    written = path.read_bytes()
    with full_disk(), pytest.raises(OSError) as caught:
        file.write_all([sample_alert("c" * 16, note="x" * FULL)])
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert path.read_bytes() == written
    assert file.unwritten == 1 and file.stats.failed == 1
    file.write_all(numbered(1, start=7))
    ids = [id_of(json.loads(line)) for line in path.read_bytes().splitlines()]
    assert ids[2:] == ["c" * 16, f"{7:016x}"]
    assert file.unwritten == 0 and file.stats.dropped == 0


def test_a_burst_past_the_bound_for_a_full_disk_is_written_whole_where_there_is_room(
    file: AlertFile, path: Path
) -> None:
    # Else whoever can raise alerts could push out the one before.
    alerts = numbered(3 * MAX_UNWRITTEN)
    file.write_all(alerts)
    assert (file.stats.written, file.stats.dropped, file.unwritten) == (len(alerts), 0, 0)
    found = [id_of(alert) for alert in read_newest_first(path, 3, len(alerts))]
    assert found[::-1] == [id_of(alert) for alert in alerts]


def test_what_waits_for_the_disk_is_bounded_and_the_rest_counted(file: AlertFile) -> None:
    with full_disk():
        with pytest.raises(OSError):
            file.write_all([sample_alert("d" * 16, note="x" * FULL)])
        with pytest.raises(OSError):
            file.write_all(numbered(MAX_UNWRITTEN + 9))
    # The large one is the first to be given up; then the small ones fit until the limit is reached.
    assert file.unwritten <= MAX_UNWRITTEN
    assert file.stats.dropped == 10


class Recorder:
    """A sink that keeps what it gets, and can be made to fail or to stand still."""

    name = "recorder"

    def __init__(self) -> None:
        self.got: list[Alert] = []
        self.fail = False
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    def write(self, alert: Alert) -> None:
        self.arrived.release()
        self.gate.wait(10)
        if self.fail:
            raise BrokenPipeError(errno.EPIPE, "the reader is gone")
        self.got.append(alert)

    def close(self) -> None:
        self.closed = True


async def test_a_sink_that_fails_is_counted_and_the_others_get_everything(path: Path) -> None:
    good, bad = Recorder(), Recorder()
    bad.fail = True
    fanout = Fanout(LOG)
    fanout.open(AlertFile(path, max_bytes=1 << 20, keep=3), [bad, good])
    await fanout.write(numbered(3))
    await fanout.close()
    assert len(good.got) == 3 and good.closed and bad.closed
    assert len(list(read_newest_first(path, 3, 9))) == 3


def test_a_sink_that_stands_still_drops_and_counts_past_its_bound() -> None:
    slow = Recorder()
    slow.gate.clear()
    lane = Lane(slow, LOG, max_waiting=2)
    lane.put(sample_alert())
    assert slow.arrived.acquire(timeout=10)
    for alert in numbered(5):
        lane.put(alert)
    assert lane.stats.dropped == 3
    slow.gate.set()
    lane.close(10)
    assert lane.stats.written == 3 and slow.closed


def test_closing_gives_up_on_a_sink_that_is_stuck() -> None:
    stuck = Recorder()
    stuck.gate.clear()
    lane = Lane(stuck, LOG, max_waiting=4)
    for alert in numbered(3):
        lane.put(alert)
    assert stuck.arrived.acquire(timeout=10)
    lane.close(0.05)
    assert not stuck.closed and lane.stats.dropped >= 2
    stuck.gate.set()


async def test_a_file_that_refuses_does_not_raise_and_is_shown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fanout = Fanout(LOG)
    fanout.open(AlertFile(path, max_bytes=1 << 20, keep=3), [])
    with full_disk():
        await fanout.write([sample_alert("e" * 16, note="x" * FULL)])
    status: Any = fanout.status()
    assert status["file"]["failed"] == 1 and status["file"]["unwritten"] == 1
    assert "alert file refused" in caplog.text
    await fanout.close()


def test_stdout_is_json_lines_for_a_pipe() -> None:
    read, write = os.pipe()
    try:
        StdoutSink(write).write(sample_alert())
        assert json.loads(os.read(read, 65536)) == sample_alert()
    finally:
        os.close(read)
        os.close(write)


def test_stdout_is_a_timeline_on_a_terminal() -> None:
    controller, terminal = pty.openpty()
    try:
        StdoutSink(terminal).write(sample_alert())
        shown = os.read(controller, 65536).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert "open /etc/shadow (O_RDONLY) -> 3" in shown and "\x1b[" in shown


def test_stdout_without_a_reader_is_an_error_to_count() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        with pytest.raises(BrokenPipeError):
            StdoutSink(write).write(sample_alert())
    finally:
        os.close(write)


@pytest.fixture
def journal() -> Iterator[tuple[socket.socket, Path]]:
    with tempfile.TemporaryDirectory(dir="/run") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = Path(folder) / "journal"
        sock.bind(str(path))
        sock.settimeout(10)
        yield sock, path


def fields_of(datagram: bytes) -> dict[str, bytes]:
    out = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        (length,) = struct.unpack_from("<Q", rest)
        out[name.decode()] = rest[8 : 8 + length]
        assert rest[8 + length : 9 + length] == b"\n"
        datagram = rest[9 + length :]
    return out


def test_journal_entry_has_the_alert_and_its_fields(journal: tuple[socket.socket, Path]) -> None:
    sock, path = journal
    sink = JournalSink(path)
    sink.write(sample_alert())
    fields = fields_of(sock.recv(1 << 20))
    sink.close()
    assert fields["EXECRAY_POLICY"] == b"credential_access" and fields["PRIORITY"] == b"3"
    assert json.loads(fields["EXECRAY_ALERT"]) == without_secrets(sample_alert())


def test_what_processes_wrote_and_their_arguments_stay_out_of_the_journal(
    journal: tuple[socket.socket, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever way an alert gets there."""
    text = json.dumps(sample_alert())
    assert "root:$6$" in text and "--now" in text
    sock, path = journal
    sink = JournalSink(path)
    sink.write(sample_alert())
    sink.close()
    with (tmp_path / "stdout").open("wb") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        StdoutSink(file.fileno()).write(sample_alert())
        monkeypatch.delenv("JOURNAL_STREAM")
        StdoutSink(file.fileno()).write(sample_alert())
    to_journal, to_file = (tmp_path / "stdout").read_text().splitlines()
    for said in (sock.recv(1 << 20).decode(), to_journal):
        assert "root:$6$" not in said and "--now" not in said and "/etc/shadow" in said
    assert json.loads(to_file) == sample_alert()


def test_every_name_for_arguments_and_content_is_known_as_secret() -> None:
    fields = [*ACTOR_FIELDS, *(field for event in EVENTS for field in event.fields)]
    secret = [f for f in fields if f.kind is not Kind.INT and "argv" in (f.name, f.derived)]
    secret += [f for f in fields if f.taken]
    names = {f.name for f in secret} | {f.ecs.rpartition(".")[2] for f in secret if f.ecs}
    assert names == SECRET


def test_journal_fields_cannot_be_forged_by_a_message_with_line_breaks() -> None:
    alert = sample_alert()
    alert["message"] = "x\nPRIORITY=7\n\udcff"
    fields = fields_of(encode(entry(alert)))
    assert fields["MESSAGE"] == rb"x\nPRIORITY=7\n\xff" and fields["PRIORITY"] == b"3"


def test_an_alert_too_big_for_a_datagram_is_sent_without_its_evidence(journal: tuple[socket.socket, Path]) -> None:
    sock, path = journal
    sink = JournalSink(path)
    sink.write(sample_alert(note="x" * 4_000_000))
    fields = fields_of(sock.recv(1 << 20))
    sink.close()
    assert "EXECRAY_ALERT" not in fields and fields["EXECRAY_ALERT_ID"]


def test_no_journal_is_an_error_to_count(tmp_path: Path) -> None:
    sink = JournalSink(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        sink.write(sample_alert())
    sink.close()
