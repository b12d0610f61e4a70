"""The event `syscall`: calls by their numbers, and only those that somebody named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from tests.support.live import Live

GETPRIORITY, UMASK, GETTID = 140, 95, 186


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live([], content=False) as sensor:
        codes = [EVENT_BY_NAME[name].code for name in ("syscall", "mkdir", "mmap")]
        assert not sensor.sensor.want(codes, False, [GETPRIORITY, UMASK, 83, 9])
        yield sensor


def test_calls_by_number_have_their_arguments(live: Live) -> None:
    run = live.python("print(syscall(140, 0, -1), syscall(95, 0o27)); syscall(186); syscall(140, 7, 1, 2, 3, 4, -5)")
    first, second = run.of("syscall", nr=GETPRIORITY)
    assert (first.get("arg0"), first.get("arg1"), str(first.get("ret"))) == (0, -1, run.stdout.split()[0])
    assert [second.get(f"arg{n}") for n in range(6)] == [7, 1, 2, 3, 4, -5]
    assert run.of("syscall", nr=UMASK, arg0=0o27)
    assert not run.of("syscall", nr=GETTID)


def test_a_call_that_is_another_event_too_is_both(live: Live, tmp_path: Path) -> None:
    run = live.python(
        "assert syscall(83, buf(sys.argv[1].encode()), 0o700) == 0; libc.syscall(9, 0, 4096, 1, 0x22, -1, 0)",
        tmp_path / "d",
    )
    assert run.one("mkdir", ret=0).get("mode") == 0o700
    assert run.one("syscall", nr=83).get("arg1") == 0o700
    # mmap is an event only where it makes code; by its number it always is
    assert run.of("syscall", nr=9, arg2=1) and not run.of("mmap", prot=1)
