"""Of kills in the kernel, when tracerd is woken: by the process's end, and at once where that may be held up."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.layout import ER_KIND_URGENT, HEADER, TASK, Header, Task
from tests.support.inline_kills import Killing, plan_of, rule, text
from tests.support.live import Live
from tests.support.pace import patient

OPEN, EXIT = (EVENT_BY_NAME[name].code for name in ("open", "exit"))
PTRACE_SEIZE, PTRACE_DETACH, PTRACE_O_TRACEEXIT = 0x4206, 17, 0x40
_LIBC = ctypes.CDLL(None, use_errno=True)


def kinds(live: Live, pid: int) -> list[tuple[int, bool]]:
    """Returns what a process has in the ring, and whether it is urgent; takes it, and doesn't give it back."""
    ring, found = live.sensor.ring, []
    while (record := ring.next()) is not None:
        header = Header._make(HEADER.unpack_from(ring.data, record[0]))
        task = Task._make(TASK.unpack_from(ring.data, record[0] + HEADER.size))
        if task.pid == pid:
            found.append((header.kind & ~ER_KIND_URGENT, bool(header.kind & ER_KIND_URGENT)))
    return found


@contextmanager
def edges(live: Live) -> Iterator[select.epoll]:
    """What tells when the reader is woken, and not that there is something to be read."""
    with select.epoll() as found:
        found.register(live.sensor.ring.fd, select.EPOLLIN | select.EPOLLET)
        found.poll(0)
        yield found


def await_exit(live: Live, pid: int) -> list[tuple[int, bool]]:
    deadline = time.monotonic() + patient(20)
    found = kinds(live, pid)
    while not any(kind == EXIT for kind, _ in found) and time.monotonic() < deadline:
        time.sleep(0.01)
        found += kinds(live, pid)
    return found


def test_the_last_records_of_who_is_killed_are_urgent(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    with arena.held() as held:
        arena.live.drain()
        assert held.ends() == -signal.SIGKILL
        assert await_exit(arena.live, held.pid)[-2:] == [(OPEN, True), (EXIT, True)]
    arena.live.drain()


def test_the_end_of_who_is_killed_by_others_is_not_urgent(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        arena.live.await_exec(child.pid)
        child.kill()
        child.wait()
        assert await_exit(arena.live, child.pid)[-1] == (EXIT, False)
    arena.live.drain()


def test_the_end_wakes_a_reader_that_is_behind(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    with arena.held() as held, edges(arena.live) as woken:
        seen = kinds(arena.live, held.pid)
        assert seen  # and it isn't given back: from here on only what is urgent wakes
        woken.poll(0)
        held.go.touch()
        found: list[tuple[int, bool]] = []
        while woken.poll(patient(20)):
            found += kinds(arena.live, held.pid)
            if (EXIT, True) in found:
                break
        assert (EXIT, True) in found
    arena.live.drain()


def test_where_a_tracer_holds_up_the_end_the_reader_is_woken_by_the_kill(arena: Killing) -> None:
    arena.load(plan_of(rule("open", text(arena.decoy))))
    with arena.held() as held, edges(arena.live) as woken:
        assert _LIBC.ptrace(PTRACE_SEIZE, held.pid, None, ctypes.c_void_p(PTRACE_O_TRACEEXIT)) == 0
        arena.live.drain()
        woken.poll(0)
        held.go.touch()
        found: list[tuple[int, bool]] = []
        while woken.poll(patient(20)):
            found += kinds(arena.live, held.pid)
            arena.live.sensor.ring.release()
            if any(kind == OPEN for kind, _ in found):
                break
        assert os.waitpid(held.pid, 0)[1] >> 8 == signal.SIGTRAP | 6 << 8  # PTRACE_EVENT_EXIT: it is about to end
        assert [kind for kind, _ in found + kinds(arena.live, held.pid)][-1] == OPEN
        assert _LIBC.ptrace(PTRACE_DETACH, held.pid, None, None) == 0
        assert held.process.wait(patient(20)) == -signal.SIGKILL
    arena.live.drain()
