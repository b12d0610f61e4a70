"""When tracerd reads its ring: records gather after a look, and one of an urgent kind ends that."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_GATHERED
from execray.wire.frames import Ack, Batch, Settle, Subscribe
from policyd.compiler import compile_source
from policyd.engine.table import PolicyTable
from policyd.gate.plan import build_plan
from tests.support.arena import eventually
from tests.support.tracerds import Subscriber, Tracerd

pytestmark = pytest.mark.alone("measures how late events come, and other tests' events would be company for its own")

OPEN, CHMOD, KILL, RENAME = (EVENT_BY_NAME[name].code for name in ("open", "chmod", "kill", "rename"))
REST_S = 0.3  # no longer: in a second what other programs do may be enough company
#: For what shall not wait for its end: a busy processor may need some tenths of a second to bring it.
LONG_REST_S = 0.9


@contextmanager
def watching(
    rest_s: float, urgent: tuple[int, ...] = (), also: tuple[int, ...] = (), plan: bytes = b""
) -> Iterator[Subscriber]:
    """A subscriber to chmods, which are few on a busy host, of a tracerd of the test's own."""
    daemon = Tracerd(rest_ms=rest_s * 1000, heartbeat_s=60, gate="on" if plan else "off")
    try:
        subscriber = daemon.connect()
        subscriber.send(Subscribe((CHMOD, *also), 0, urgent=urgent, plan=plan))
        eventually(lambda: daemon.status()["hooks"]["chmod"]["attached"])
        if plan:
            # nothing is under way: what begins from now on is all there is
            subscriber.send(Settle(daemon.status()["gate"]["generation"], ()))
            eventually(lambda: daemon.status()["gate"]["settled"])
        yield subscriber
    finally:
        daemon.close()


def rows_of_ours(subscriber: Subscriber, code: int) -> Iterator[float]:
    """Yields for each event of our own how many seconds after its time it came."""
    while True:
        frame = subscriber.next()
        if not isinstance(frame, Batch):
            continue
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        subscriber.send(Ack(frame.seq))
        yield from ((now - row[1]) / 1e9 for row in frame.events if row[0] == code and row[3] == os.getpid())


def await_row(subscriber: Subscriber, code: int) -> float:
    return next(rows_of_ours(subscriber, code))


def test_events_gather_while_none_is_urgent(tmp_path: Path) -> None:
    with watching(REST_S) as subscriber:
        for _ in range(40):
            tmp_path.chmod(0o700)
            time.sleep(0.02)  # not to wait for something: the events shall come one by one
        late = list(islice(rows_of_ours(subscriber, CHMOD), 40))
    assert statistics.median(late) > REST_S / 10, late


def test_an_urgent_event_does_not_wait_for_others(tmp_path: Path) -> None:
    with watching(LONG_REST_S, urgent=(CHMOD,)) as subscriber:
        late = []
        for _ in range(9):
            tmp_path.chmod(0o700)
            late.append(await_row(subscriber, CHMOD))
    assert statistics.median(late) < LONG_REST_S / 2, late


def test_what_is_behind_others_is_found_to_be_urgent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with watching(LONG_REST_S, urgent=(CHMOD,), also=(RENAME,)) as subscriber:
        late = []
        for _ in range(9):
            (tmp_path / "file").rename(tmp_path / "file")
            tmp_path.chmod(0o700)
            late.append(await_row(subscriber, CHMOD))
    assert statistics.median(late) < LONG_REST_S / 2, late


def test_what_goes_on_with_a_sequence_does_not_wait_and_what_begins_one_does(tmp_path: Path) -> None:
    # the signal is always known: other sensors' probes, of which the path isn't, must not go on with what they began
    begin = tmp_path / "begin"
    begin.touch()
    text = f'policy "p" key process within 1m {{ open {{ path = "{begin}" }} kill {{ sig = 23 }} }}'
    found = compile_source(text, "p.policy")
    assert found.ok, found.diagnostics
    plan = build_plan([PolicyTable(policy, 0) for policy in found.policies]).raw
    with watching(LONG_REST_S, also=(OPEN, KILL), plan=plan) as subscriber:
        begin.read_bytes()
        await_row(subscriber, OPEN)
        ended, begun = [], []
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGURG)
            ended.append(await_row(subscriber, KILL))
            begin.read_bytes()
            begun.append(await_row(subscriber, OPEN))
    assert statistics.median(ended) < LONG_REST_S / 2, ended
    assert statistics.median(begun) > LONG_REST_S / 2, begun


def test_what_gathers_is_read_before_it_is_much(tmp_path: Path) -> None:
    with watching(LONG_REST_S) as subscriber:
        late = []
        for _ in range(5):
            for _ in range(2 * ER_GATHERED // 200):  # each record is longer than so many bytes
                tmp_path.chmod(0o700)
            late.append(await_row(subscriber, CHMOD))
    assert statistics.median(late) < LONG_REST_S / 2, late


def test_an_event_that_is_not_urgent_waits_for_the_rest_to_be_over(tmp_path: Path) -> None:
    # or the tests above show nothing
    with watching(REST_S) as subscriber:
        late = []
        for _ in range(9):
            tmp_path.chmod(0o700)
            late.append(await_row(subscriber, CHMOD))
    assert max(late[1:]) > REST_S / 2, late


@pytest.mark.parametrize("rest_s", [0.0, 0.001])
def test_nothing_is_left_in_the_ring(tmp_path: Path, rest_s: float) -> None:
    with watching(rest_s) as subscriber:
        for _ in range(300):  # each at another moment of the reader's turn
            tmp_path.chmod(0o700)
            assert await_row(subscriber, CHMOD) < 5  # there is no heartbeat that would read it


def test_kinds_that_nobody_knows_are_not_urgent(tmp_path: Path) -> None:
    with watching(0.001, urgent=(CHMOD, OPEN, -1, 64, 5000, 1 << 40)) as subscriber:
        tmp_path.chmod(0o700)
        assert await_row(subscriber, CHMOD) < 5


def test_what_gathered_is_sent_at_the_end(tmp_path: Path) -> None:
    daemon = Tracerd(rest_ms=REST_S * 1000, heartbeat_s=60, gate="off")
    try:
        subscriber = daemon.connect()
        subscriber.send(Subscribe((CHMOD,), 0))
        eventually(lambda: daemon.status()["hooks"]["chmod"]["attached"])
        tmp_path.chmod(0o700)
        await_row(subscriber, CHMOD)
        tmp_path.chmod(0o700)  # in the rest
        daemon.process.terminate()
        late: list[int] = []
        with suppress(EOFError):
            while True:
                frame = subscriber.next()
                rows = frame.events if isinstance(frame, Batch) else ()
                late += [row[1] for row in rows if row[0] == CHMOD and row[3] == os.getpid()]
        assert len(late) == 1
    finally:
        daemon.close()
