"""The whole sensor as a process: its stream and control sockets, its peers, and what it does when they misbehave."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from execray.schema.catalog import EVENT_BY_NAME, LOST
from execray.wire.frames import (
    MAX_FRAME_BYTES,
    Ack,
    Batch,
    Decoder,
    Error,
    Frame,
    Heartbeat,
    Hello,
    Subscribe,
    Taken,
    encode,
)
from tests.support.arena import eventually
from tests.support.live import Live
from tests.support.tracerds import Tracerd, has, tells_of, touch


@pytest.fixture
def tracerd() -> Iterator[Tracerd]:
    daemon = Tracerd()
    try:
        yield daemon
    finally:
        daemon.close()


def test_events_come_numbered_and_complete(tracerd: Tracerd, tmp_path: Path) -> None:
    subscriber = tracerd.connect()
    assert subscriber.hello.facts["pid"] == tracerd.process.pid
    subscriber.subscribe("open")
    marks = [tmp_path / f"mark{i}" for i in range(3)]
    eventually(lambda: tracerd.status()["hooks"]["open"]["attached"])
    for mark in marks:
        touch(mark)
    batches = subscriber.until(tells_of(os.fsencode(marks[-1])))
    assert [b.seq for b in batches] == list(range(batches[0].seq, batches[0].seq + len(batches)))
    for before, after in itertools.pairwise(batches):
        assert after.first_id == before.first_id + len(before.events)
    events = [b.event(i) for b in batches for i, row in enumerate(b.events) if row[0] != LOST]
    opens = [e for e in events if e.get("name") == b"cat" and e.type.name == "open"]
    # There is no such file, so that there is no path, and only what the caller said.
    assert {os.fsencode(mark) for mark in marks} <= {e.get("rawpath") for e in opens}
    assert any(e.get("path") and not e.get("rawpath") for e in opens)  # of others nobody asked for it


def test_every_hook_shows_signs_of_life(tracerd: Tracerd) -> None:
    subscriber = tracerd.connect()
    subscriber.subscribe(*{event.name for event in EVENT_BY_NAME.values()})
    eventually(lambda: all(hook["live"] for hook in tracerd.status()["hooks"].values()))
    while not isinstance(frame := subscriber.next(), Heartbeat):
        pass
    assert set(frame.stats["lost"]) == {"ring", "skipped", "malformed", "stream"}
    for batch in subscriber.batches(0.5):
        assert not any(row[4] & 64 for row in batch.events if row[0] != LOST), "a heartbeat left tracerd"


def test_a_subscription_is_taken_when_it_says_so_and_the_very_next_call_counts(
    tracerd: Tracerd, tmp_path: Path
) -> None:
    subscriber = tracerd.connect()
    for number in range(1, 6):  # from none to one, and from one to the other
        subscriber.subscribe("open" if number % 2 else "chmod")
        while (frame := subscriber.next()) != Taken(number):
            assert isinstance(frame, Batch | Heartbeat)
        mark = tmp_path / f"mark{number}"
        mark.touch()
        mark.chmod(0o600)
        assert subscriber.until(has(os.fsencode(mark)))


def test_a_subscriber_that_does_not_read_is_told_later_how_many_were_taken(tracerd: Tracerd, tmp_path: Path) -> None:
    subscriber = tracerd.connect()
    subscriber.subscribe("open")
    assert subscriber.next() == Taken(1)
    flood = f"for n in range(30000):\n try: open({str(tmp_path)!r} + '/' + 'x' * 200 + str(n))\n except OSError: pass"
    subprocess.run([sys.executable, "-c", flood], check=True)
    eventually(lambda: tracerd.status()["buffer"]["bytes"] > 4 << 20)
    for _ in range(3):
        subscriber.subscribe("open")
    frames: list[Frame] = []
    while not frames or not isinstance(frames[-1], Taken) or frames[-1].count < 4:
        frames.append(subscriber.next())
    told = [frame.count for frame in frames if isinstance(frame, Taken)]
    assert told in ([2, 3, 4], [3, 4], [2, 4], [4])
    assert len([frame for frame in frames if isinstance(frame, Batch)]) > 1


def test_only_what_is_subscribed_is_attached(tracerd: Tracerd) -> None:
    assert not tracerd.status()["hooks"]["open"]["attached"]
    subscriber = tracerd.connect()
    subscriber.subscribe("write")
    eventually(lambda: tracerd.status()["hooks"]["write"]["attached"])
    subscriber.subscribe("fork")
    eventually(lambda: not tracerd.status()["hooks"]["write"]["attached"])


@pytest.mark.alone("compares how many events two sensors see, a whole machine's")
def test_at_rest_a_catch_all_subscription_stays_quiet(tracerd: Tracerd) -> None:
    """ExecRay must not watch itself: each batch written would be the next batch's event.

    Whatever else runs on the machine is no rest, so it is counted by a second sensor and taken off.
    """
    # what this test reads from the stream would be an event of each batch: it isn't registered
    every = {event.name for event in EVENT_BY_NAME.values()} - {"read"}
    subscriber = tracerd.connect()
    subscriber.subscribe(*every, content=True)
    subscriber.batches(0.5)
    ours = {os.getpid(), tracerd.process.pid}
    rates = []
    with Live(every, content=True) as world:
        for _ in range(5):
            world.drain()
            batches = subscriber.batches(1.0)
            others = sum(event.actor.id[0] not in ours for event in world.drain())
            # this test is the subscriber, and by that one of ExecRay's own: hidden by registering, not here
            told = [b.actors[row[2]][1][0] for b in batches for row in b.events if row[0] != LOST]
            assert tracerd.process.pid not in told
            rates.append(sum(pid != os.getpid() for pid in told) - others)
            for batch in batches:
                subscriber.send(Ack(batch.seq))
    assert min(rates) < 50, rates
    assert tracerd.status()["self_dropped"] > 0


def test_a_returning_subscriber_misses_nothing(tracerd: Tracerd, tmp_path: Path) -> None:
    subscriber = tracerd.connect()
    subscriber.subscribe("open")
    eventually(lambda: tracerd.status()["hooks"]["open"]["attached"])
    touch(tmp_path / "before")
    last = subscriber.until(has(os.fsencode(tmp_path / "before")))[-1]
    stream = subscriber.hello.facts["stream_id"]
    subscriber.close()
    eventually(lambda: not tracerd.status()["subscriber"])
    touch(tmp_path / "meanwhile")
    again = tracerd.connect(resume=[stream, last.seq])
    again.subscribe("open")
    batches = again.until(has(os.fsencode(tmp_path / "meanwhile")))
    assert batches[0].seq == last.seq + 1
    assert not any(row[0] == LOST for b in batches for row in b.events)


def test_past_the_bound_the_loss_is_said_exactly(tmp_path: Path) -> None:
    daemon = Tracerd(buffer_mib=1)
    try:
        subscriber = daemon.connect()
        subscriber.subscribe("open")
        eventually(lambda: daemon.status()["hooks"]["open"]["attached"])
        first = subscriber.batches(0.3)
        seen = first[-1].seq if first else -1
        subscriber.send(Ack(seen))
        subscriber.close()
        eventually(lambda: not daemon.status()["subscriber"])
        code = "import os\nfor i in range(60000):\n    os.close(os.open('/dev/null', 0))\n"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
        eventually(lambda: daemon.status()["lost"]["stream"] > 0)
        again = daemon.connect(resume=[subscriber.hello.facts["stream_id"], seen])
        again.subscribe("fork")  # no more opens, so that what was is all there is
        batches = again.batches(2.0)
        rows = [row for b in batches for row in b.events]
        lost = sum(row[3] for row in rows if row[0] == LOST and row[2] == "stream")
        status = daemon.status()
        assert rows[0][0] == LOST and rows[0][2] == "stream"
        assert lost == status["lost"]["stream"]
        # numbering goes on over the gap: the ids missing are just the rows that were dropped
        assert batches[1].first_id - batches[0].first_id == lost
        end = batches[-1].first_id + len(batches[-1].events)
        assert end - batches[0].first_id == lost + len([row for row in rows if row[0] != LOST]) > 60000
    finally:
        daemon.close()


@pytest.mark.parametrize(
    "junk",
    [
        os.urandom(4096),
        b"\xff\xff\xff\xff",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big") + b"x",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x02\x91\x09",
        encode(Hello("policyd", {}, protocol=999)),
        encode(Hello("policyd", {}, catalog=999)),
        encode(Hello("tracerd", {})),
        encode(Hello("policyd", {"resume": ["x"]})),
        encode(Ack(1)),
    ],
)
def test_bad_peers_are_told_why_and_cut_off(tracerd: Tracerd, junk: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(tracerd.dir / "tracerd" / "stream.sock"))
        sock.sendall(junk)
        said = b""
        try:
            while data := sock.recv(65536):
                said += data
        except ConnectionResetError:
            pass
    frames = list(Decoder().feed(said))
    assert isinstance(frames[0], Hello)
    assert isinstance(frames[-1], Error)
    assert tracerd.status()["bad_peers"] == 1
    tracerd.alive()


def test_a_silent_peer_is_cut_off(tracerd: Tracerd) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(6)
        sock.connect(str(tracerd.dir / "tracerd" / "stream.sock"))
        while sock.recv(65536):
            pass


def test_a_second_subscriber_is_refused(tracerd: Tracerd) -> None:
    first = tracerd.connect()
    first.subscribe("open")
    second = tracerd.connect()
    second.subscribe("open")
    while not isinstance(frame := second.next(), Error):
        pass
    assert "another subscriber" in frame.message
    assert tracerd.status()["subscriber"]
    first.close()


def test_strangers_may_neither_subscribe_nor_ask(tracerd: Tracerd) -> None:
    folder = tracerd.dir / "tracerd"
    for closed in (tracerd.dir, folder):
        closed.chmod(0o755)
    for name in ("stream.sock", "ctl.sock"):
        (folder / name).chmod(0o666)  # the mode of the socket is one lock, the peer's credentials are another
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]);"
        "sys.stdout.buffer.write(s.recv(65536))"
    )
    said = [
        subprocess.run(
            ["/usr/bin/python3", "-I", "-S", "-c", code, folder / name],
            user=65534,
            capture_output=True,
            check=True,
        ).stdout
        for name in ("stream.sock", "ctl.sock")
    ]
    (frame,) = Decoder().feed(said[0])
    assert isinstance(frame, Error)
    assert b"not permitted" in said[1]
    assert tracerd.status()["refused_peers"] == 1


def test_nothing_stays_in_the_kernel_after_a_sigkill(tracerd: Tracerd) -> None:
    with tracerd.control() as control:
        assert control.call("doctor")["objects"]
    held = _programs_of(tracerd.process.pid)
    assert {name for number, name in _programs().items() if number in held} >= {"er_exec", "er_fork", "er_exit"}
    tracerd.process.kill()
    tracerd.process.wait()
    # the kernel may have some of others besides
    eventually(lambda: not held & _programs().keys())
    tracerd.start()
    again = _programs_of(tracerd.process.pid)
    assert {name for number, name in _programs().items() if number in again} >= {"er_exec", "er_fork", "er_exit"}


def _programs() -> dict[int, str]:
    """The programs in the kernel, by their number."""
    out = subprocess.run(["bpftool", "--json", "prog", "show"], capture_output=True, text=True, check=True).stdout
    return {found["id"]: found.get("name", "") for found in json.loads(out)}


def _programs_of(pid: int) -> set[int]:
    """The numbers of those that a process holds, by itself or by what it has attached."""
    found: set[int] = set()
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # what it has closed meanwhile
            found |= {int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", file.read_text(), re.MULTILINE)}
    return found


def test_without_root_the_error_says_what_is_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracerd.cli", "--runtime-dir", tmp_path, "--object-dir", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_watched_paths_are_named_and_the_others_counted(tracerd: Tracerd, tmp_path: Path) -> None:
    secret, link = (tmp_path.resolve() / name for name in ("secret", "link"))
    secret.write_text("x")
    link.hardlink_to(secret)
    subscriber, code = tracerd.connect(), EVENT_BY_NAME["open"].code
    paths = (os.fsencode(secret), b"/proc/1/status")
    subscriber.send(Subscribe((code,), 0, paths=paths))
    eventually(
        lambda: bool(tracerd.status()["paths"]["resolved"] == 1 and tracerd.status()["hooks"]["open"]["attached"])
    )
    touch(link)

    def named(batch: Batch) -> list[object]:
        opened = [batch.event(at) for at, row in enumerate(batch.events) if row[0] == code]
        return [event.get("file.names") for event in opened if event.get("path") == os.fsencode(link)]

    assert named(subscriber.until(lambda batch: bool(named(batch)))[-1]) == [(os.fsencode(secret),)]
    with tracerd.control() as control:
        doctor: dict[str, Any] = control.call("doctor")
    assert [item["path"] for item in doctor["paths"]["by_name_only"]] == ["/proc/1/status"]
    changes = tracerd.status()["paths"]["changes"]
    secret.unlink()
    eventually(lambda: bool(tracerd.status()["paths"]["changes"] > changes))
    report = tracerd.status()["paths"]
    assert (report["watched"], report["resolved"], report["stuck_at"]) == (2, 0, "")
