"""bpf/include/execray/syscalls.h: the 32-bit entry points of every call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from execray.schema.calls import Call
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.catalog import EVENTS as EVERY_EVENT
from execray.schema.event import Event
from execray.schema.kinds import CONSTANTS
from tests.support.built import build
from tests.support.live import Live, shown

EVENTS = ["exec", "open", "write", "chmod", "socket", "connect", "setuid"]
E = CONSTANTS["E"]

INT80 = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>
static long int80(long nr, long a, long b, long c, long d)
{
	long ret;
	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(-1L)
		: "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}
/* NUMBER:FIRST:SECOND of each call; the other arguments are -1. Prints the results, once all are made. */
static int numbers(int count, char **calls)
{
	static long results[512];
	int i;

	int80(172, 0x5eed, 0, 0, 0);                                  /* prctl: where it begins, and where it ends */
	for (i = 0; i < count; i++) {
		long nr = 0, a = 0, b = 0;
		sscanf(calls[i], "%ld:%ld:%ld", &nr, &a, &b);
		results[i] = int80(nr, a, b, -1, -1);
	}
	int80(172, 0x5eed, 0, 0, 0);
	for (i = 0; i < count; i++)
		printf("%ld\\n", results[i]);
	return 0;
}
int main(int argc, char **argv)
{
	if (argc > 2)
		return numbers(argc - 2, argv + 2);
	char *low = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	strcpy(low, argv[1]);
	strcpy(low + 4096, "through int 0x80");
	long fd = int80(5, (long)low, O_CREAT | O_WRONLY, 0600, 0);   /* open */
	int80(4, fd, (long)low + 4096, 16, 0);                        /* write */
	int80(15, (long)low, 0711, 0, 0);                             /* chmod */
	uint32_t *iov = (uint32_t *)(low + 8192);
	iov[0] = (uint32_t)(uintptr_t)(low + 4096);
	iov[1] = 7;
	int80(146, fd, (long)iov, 1, 0);                              /* writev */
	uint16_t *sa = (uint16_t *)(low + 12288);                     /* sockaddr_in 127.0.0.1:9, no listener */
	sa[0] = 2; sa[1] = 0x0900; *(uint32_t *)(sa + 2) = 0x0100007f;
	uint32_t *args = (uint32_t *)(low + 16384);
	args[0] = 2; args[1] = 1; args[2] = 0;
	long s = int80(102, 1, (long)args, 0, 0);                     /* socketcall(SYS_SOCKET) */
	args[0] = s; args[1] = (uint32_t)(uintptr_t)sa; args[2] = 16;
	int80(102, 3, (long)args, 0, 0);                              /* socketcall(SYS_CONNECT) */
	int80(208, 31, 32, 0, 0);                                     /* setresuid32 */
	int80(11, (long)low + 4096, 0, 0, 0);                         /* execve of a name that isn't there */
	return fd < 0;
}
"""


@pytest.fixture(scope="module")
def int80(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(INT80, tmp_path_factory.mktemp("int80") / "int80")


def test_32_bit_entry_points_are_the_same_events(live: Live, int80: Path, tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "compat")
    run = live.run([int80, tmp_path / "compat"])
    assert run.status == 0
    opened = run.one("open", path=target)
    assert Flag.COMPAT_ABI in opened.flags and opened.get("mode") == 0o600
    assert run.one("write", content=b"through int 0x80").get("path") == target
    assert run.one("write", content=b"through").get("len") == 7
    assert run.one("chmod", rawpath=target).get("mode") == 0o711
    assert shown(run.one("connect", dst__port=9), "dst.ip") == "127.0.0.1"
    made = run.one("socket")  # by socketcall
    assert (made.get("family"), made.get("type"), made.get("proto")) == (2, 1, 0) and Flag.COMPAT_ABI in made.flags
    assert run.one("setuid").get("new.euid") == 32
    assert run.one("exec", filename=b"through int 0x80").get("ret") == -E["ENOENT"]


#: What would do something with -1 for its first two arguments.
FIRST_TWO: Final = {"kill": (0x7FFFFFFF, 0), "init_module": (-1, 0), "fcntl": (-1, 0)}
#: These have no record of their own for what -1 is: of the calls that may make a file, only one that did is a `create`.
NOT_OF_ANY_CALL: Final = ("exec", "fork", "exit", "syscall", "procmem", "procread", "cred_change", "create")


#: Those of which a busy machine makes more than can be looked at together.
FREQUENT: Final = (("read",), ("write", "sendto"))
GROUPS: Final = (
    *FREQUENT,
    tuple(e.name for e in EVERY_EVENT if not any(e.name in names for names in (NOT_OF_ANY_CALL, *FREQUENT))),
)


@pytest.fixture(scope="module", params=GROUPS, ids=["read", "write", "the rest"])
def group(request: pytest.FixtureRequest) -> Iterator[tuple[Live, tuple[str, ...]]]:
    """A sensor of some of the events that are calls, and their names. The test's own are left out."""
    with Live([], ring_bytes=1 << 26) as sensor:
        me = sensor.table.find(os.getpid())
        assert me is not None
        sensor.sensor.hide(me.pid, me.start_ns)
        sensor.want({*request.param, "prctl"})
        yield sensor, request.param


def calls_of(names: tuple[str, ...], number: Callable[[Call], Iterable[int]]) -> list[tuple[int, str, list[str]]]:
    """(number, the call's name, the events that it is), once for each number."""
    found: dict[int, tuple[str, list[str]]] = {}
    for event in EVERY_EVENT:
        for call in event.system_calls if event.name in names else ():
            for one in number(call):
                found.setdefault(one, (call.name, []))[1].append(event.name)
    return [(one, name, events) for one, (name, events) in found.items()]


def between_marks(events: list[Event]) -> list[tuple[str, object]]:
    begin, end = (at for at, e in enumerate(events) if e.type.name == "prctl" and e.get("option") == 0x5EED)
    return [(e.type.name, e.get("ret")) for e in events[begin + 1 : end]]


def expected(calls: list[tuple[int, str, list[str]]], results: list[int]) -> list[tuple[str, object]]:
    assert len(calls) == len(results)
    return [(event, ret) for (_, _, events), ret in zip(calls, results, strict=True) for event in events]


def test_every_64_bit_call_of_the_catalogue_is_its_events(group: tuple[Live, tuple[str, ...]]) -> None:
    live, names = group
    calls = calls_of(names, lambda call: () if call.native is None else (call.native,))
    made = [(number, *FIRST_TWO.get(name, (-1, -1)), -1, -1, -1, -1) for number, name, _ in calls]
    run = live.python(f"""
        made = {made!r}
        syscall(157, 0x5eed, 0)
        results = [syscall(*call) for call in made]
        syscall(157, 0x5eed, 0)
        print(*results)
    """)
    assert between_marks(run.events) == expected(calls, [int(word) for word in run.stdout.split()])


def test_every_32_bit_call_of_the_catalogue_is_its_events(group: tuple[Live, tuple[str, ...]], int80: Path) -> None:
    live, names = group
    calls = calls_of(names, lambda call: call.compat)
    made = [":".join(map(str, (number, *FIRST_TWO.get(name, (-1, -1))))) for number, name, _ in calls]
    run = live.run([int80, "numbers", *made])
    assert between_marks(run.events) == expected(calls, [int(word) for word in run.stdout.split()])
    assert all(Flag.COMPAT_ABI in event.flags for event in run.of("prctl", option=0x5EED))


def test_32_bit_calls_by_number_have_the_64_bit_one(int80: Path) -> None:
    with Live([]) as live:
        assert not live.sensor.want([EVENT_BY_NAME["syscall"].code], False, [95])
        event = live.run([int80, "numbers", "60:63:0"]).one("syscall", nr=95, arg0=63)
    assert Flag.COMPAT_ABI in event.flags
