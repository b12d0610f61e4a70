"""What a process may see and be: others' memory, fanotify, sessions, Linux AIO, and ids that no call has changed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.kinds import CONSTANTS
from execray.schema.layout import CREDS
from tests.support.live import PRELUDE, Live

EVENTS = ["fanotify_init", "fanotify_mark", "setsid", "procread", "io_submit", "setgid", "setuid", "dup", "cred_change"]
E = CONSTANTS["E"]
FAN = CONSTANTS["FAN_"] | CONSTANTS["FAN_MARK_"] | CONSTANTS["FAN_CL"]


def test_fanotify_says_what_is_watched(live: Live, tmp_path: Path) -> None:
    run = live.python(
        """
        fd = syscall(300, 4, 0o400000)
        os.chdir(sys.argv[1])
        print(fd, syscall(301, fd, 0x11, 0x10020, -100, buf(b".")), syscall(301, fd, 1, 0x20, -100, buf(b"none")))
        """,
        tmp_path,
    )
    made, marked, failed = map(int, run.stdout.split())
    init = run.one("fanotify_init")
    assert (init.get("ret"), init.get("flags")) == (made, FAN["FAN_CLASS_CONTENT"])
    assert init.get("event_flags") == CONSTANTS["O_"]["O_NOFOLLOW"]
    first, second = run.of("fanotify_mark")
    assert (first.get("ret"), second.get("ret")) == (marked, failed)
    assert first.get("path") == os.fsencode(tmp_path) and second.get("rawpath") == b"none"
    assert first.get("flags") == FAN["FAN_MARK_ADD"] | FAN["FAN_MARK_MOUNT"]
    assert first.get("mask") == FAN["FAN_OPEN_PERM"] | FAN["FAN_OPEN"]


def test_sessions_and_groups(live: Live) -> None:
    run = live.python("""
        pid = os.fork()
        if pid == 0:
            os.setsid(); print(os.getpid(), os.getsid(0), syscall(109, 0, 0), flush=True); os._exit(0)
        os.waitpid(pid, 0)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0); print(os.getpid(), os.getpgid(0), flush=True); os._exit(0)
        os.waitpid(pid, 0)
    """)
    (leader, session, refused), (member, group) = (map(int, line.split()) for line in run.stdout.splitlines())
    began, failed, grouped = run.of("setsid")
    assert (began.get("call"), began.get("ret"), began.get("pgid")) == (b"setsid", leader, None)
    assert isinstance(found := began.get("session.id"), tuple) and found[0] == session
    assert (failed.get("call"), failed.get("ret"), failed.get("target.nr")) == (b"setpgid", refused, 0)
    assert isinstance(found := grouped.get("pgrp.id"), tuple) and found[0] == group == member


def test_ids_for_files_and_further_groups(live: Live) -> None:
    run = live.python("""
        print(syscall(122, 33), syscall(123, 44), syscall(116, 1, buf(struct.pack("I", 55))))
        print(*(line.split()[4] for line in open("/proc/self/status") if line.startswith(("Uid", "Gid"))))
    """)
    fsuid, fsgid = map(int, run.stdout.splitlines()[1].split())
    event = run.one("setuid")
    assert [event.get(name) for name in ("call", "fsuid", "new.euid", "ret")] == [b"setfsuid", fsuid, None, 0]
    by_id, by_list = run.of("setgid")
    assert (by_id.get("call"), by_id.get("fsgid"), by_list.get("call")) == (b"setfsgid", fsgid, b"setgroups")


def test_a_descriptor_copied_by_fcntl(live: Live, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    run = live.python(
        """
        fd = os.open(sys.argv[1], os.O_RDONLY)
        print(syscall(72, fd, 0, 50), syscall(72, fd, 1030, 60)); assert syscall(72, fd, 1, 0) >= 0 and syscall(72, fd, 3, 0) >= 0
        """,
        tmp_path / "f",
    )
    found = [event for event in run.of("dup") if event.get("path") == os.fsencode(tmp_path / "f")]
    assert [event.get("newfd") for event in found] == [int(word) for word in run.stdout.split()] == [50, 60]


def test_both_ways_to_read_anothers_memory(live: Live) -> None:
    code = "import ctypes, sys; b = ctypes.create_string_buffer(b'abcd'); print(ctypes.addressof(b), flush=True);"
    run = live.python(f"""
        import subprocess
        run = [sys.executable, "-I", "-S", "-c", {code!r} + "sys.stdin.readline()"]
        child = subprocess.Popen(run, stdin=-1, stdout=-1, text=True)
        at = int(child.stdout.readline()); here = buf(bytes(4))
        local = buf(struct.pack("QQ", ctypes.addressof(here), 4)); remote = buf(struct.pack("QQ", at, 4))
        assert syscall(310, child.pid, local, 1, remote, 1, 0) == 4 and here.raw[:4] == b"abcd"
        with open(f"/proc/{{child.pid}}/mem", "rb", buffering=0) as file:
            assert os.pread(file.fileno(), 4, at) == b"abcd"
        child.communicate("\\n"); print(child.pid)
    """)
    by_call, by_file = run.of("procread")
    pid = int(run.stdout)
    assert (by_call.get("call"), by_call.get("target.pid"), by_call.get("ret")) == (b"process_vm_readv", pid, 4)
    assert (by_file.get("call"), by_file.get("target.pid"), by_file.get("len")) == (b"pread64", pid, 4)


def test_linux_aio_is_told_and_its_writes_are_not(live: Live, tmp_path: Path) -> None:
    live.want([*EVENTS, "write"])
    try:
        run = live.python(
            """
            fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); data = buf(b"by AIO"); context = buf(bytes(8))
            print(syscall(206, 1, context))
            # struct iocb: data, key, rw_flags, opcode (1: pwrite), priority, fd, buf, nbytes, offset ...
            cb = buf(struct.pack("QIIHhIQQqQII", 0, 0, 0, 1, 0, fd, ctypes.addressof(data), 6, 0, 0, 0, 0))
            (which,) = struct.unpack("Q", context.raw[:8])
            print(syscall(209, which, 1, buf(struct.pack("Q", ctypes.addressof(cb)))))
            """,
            tmp_path / "f",
        )
    finally:
        live.want(EVENTS)
    setup, submitted = map(int, run.stdout.split())
    if setup == -E["ENOSYS"]:
        pytest.skip("the kernel has no Linux AIO")
    event = run.one("io_submit")
    assert (event.get("count"), event.get("ret")) == (1, submitted) == (1, 1)
    assert (tmp_path / "f").read_bytes() == b"by AIO"
    assert not [e for e in run.of("write") if e.get("path") == os.fsencode(tmp_path / "f")]


# --- ids that no call has changed -----------------------------------------------------------------------------------------


class Waiting:
    """A child that waits for a line before it does what it has to."""

    def __init__(self, live: Live, code: str) -> None:
        source = PRELUDE + "print('ready', flush=True); sys.stdin.readline()\n" + code
        self._live = live
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._child.stdout and self._child.stdout.readline() == "ready\n"
        self.pid = self._child.pid

    def believed_to_be(self, uid: int) -> None:
        """What the sensor has on record of it becomes another id, as if its credentials had been rewritten since."""
        live = self._live
        live.drain()
        process = live.table.find(self.pid)
        assert process is not None
        live.sensor._maps["er_creds"].update(struct.pack("<I", self.pid), CREDS.pack(process.start_ns, uid, uid))

    def go(self) -> list[tuple[object, ...]]:
        """Returns the changes that were told of it and its children."""
        assert self._child.stdin
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        found = [event for event in self._live.collect(self.pid) if event.type.name == "cred_change"]
        names = ("call", "old.uid", "old.euid", "new.uid", "new.euid")
        return [tuple(event.get(name) for name in names) for event in found]

    def rest(self) -> str:
        """Returns what it printed."""
        return self._child.communicate(timeout=10)[0]

    def close(self) -> None:
        self._child.kill()
        for file in (self._child.stdin, self._child.stdout):
            if file is not None:
                file.close()
        self._child.wait()


@pytest.fixture
def waiting(live: Live) -> Iterator[list[Waiting]]:
    made: list[Waiting] = []
    yield made
    for child in made:
        child.close()


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("syscall(102); syscall(107)", b"getuid"),
        ("syscall(107)", b"geteuid"),
        ("syscall(118, buf(bytes(4)), buf(bytes(4)), buf(bytes(4)))", b"getresuid"),
        ("os.execv('/bin/true', ['true'])", b"exec"),
        ("os.fork() or os._exit(0); os.wait()", b"fork"),
    ],
)
def test_ids_that_no_call_gave_are_told_once(live: Live, waiting: list[Waiting], code: str, call: bytes) -> None:
    waiting.append(child := Waiting(live, code))
    child.believed_to_be(1234)
    assert child.go() == [(call, 1234, 1234, 0, 0)]


@pytest.mark.parametrize(
    "code",
    [
        "os.setresuid(5, 5, 0); syscall(102); os.setresuid(0, 0, 0); syscall(107); syscall(105, 7); syscall(102)",
        "t = threading.Thread(target=lambda: (syscall(117, 9, 9, 9), syscall(102))); t.start(); t.join(); syscall(102)",
        "syscall(272, 0x10000000); syscall(102)",  # a user namespace of its own
        "syscall(122, 9); syscall(102)",
    ],
)
def test_ids_that_a_call_gave_are_not(live: Live, waiting: list[Waiting], code: str) -> None:
    waiting.append(child := Waiting(live, code))
    assert child.go() == []


def test_a_program_that_gives_ids_by_its_file_changes_nothing_by_itself(live: Live, waiting: list[Waiting]) -> None:
    program = Path("/var/tmp") / f"execray-{os.getpid()}"
    shutil.copy("/usr/bin/id", program)
    try:
        program.chmod(0o4755)
        waiting.append(child := Waiting(live, f"os.setresuid(77, 77, 77); os.execv({str(program)!r}, ['id', '-u'])"))
        assert (child.go(), child.rest()) == ([], "0\n")
    finally:
        program.unlink()
