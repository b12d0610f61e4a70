"""What a process may see and be: others' memory, fanotify, sessions, Linux AIO, and ids that no call has changed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.kinds import CONSTANTS
from execray.schema.layout import CREDS, Creds
from tests.support.live import NAP, PRELUDE, Live
from tests.support.pace import patient

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

    def believed_to_have(self, **facts: int) -> None:
        """What the sensor has on record of it becomes something else, as if its credentials had been rewritten since."""
        creds, key = self._live.sensor._maps["er_creds"], struct.pack("<I", self.pid)
        self._live.drain()
        known = Creds._make(CREDS.unpack(creds.lookup(key) or b""))
        creds.update(key, CREDS.pack(*known._replace(**facts)))

    def go(self, *names: str) -> list[tuple[object, ...]]:
        """Returns these fields of the changes that were told of it and its children."""
        assert self._child.stdin
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        found = [event for event in self._live.collect(self.pid) if event.type.name == "cred_change"]
        names = names or ("call", "old.uid", "old.euid", "new.uid", "new.euid")
        return [tuple(event.get(name) for name in names) for event in found]

    def rest(self) -> str:
        """Returns what it printed."""
        return self._child.communicate(timeout=patient(10))[0]

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
        ("syscall(104); syscall(108)", b"getgid"),
        ("syscall(108)", b"getegid"),
        ("syscall(120, buf(bytes(4)), buf(bytes(4)), buf(bytes(4)))", b"getresgid"),
        ("syscall(125, buf(struct.pack('<Ii', 0x20080522, 0)), buf(bytes(24)))", b"capget"),
        ("os.execv('/bin/true', ['true'])", b"exec"),
        ("os.fork() or os._exit(0); os.wait(); os.fork() or os._exit(0); os.wait()", b"fork"),
    ],
)
def test_ids_that_no_call_gave_are_told_once(live: Live, waiting: list[Waiting], code: str, call: bytes) -> None:
    waiting.append(child := Waiting(live, code))
    child.believed_to_have(uid=1234, euid=1234)
    assert child.go() == [(call, 1234, 1234, 0, 0)]


@pytest.mark.parametrize(
    "code", ["syscall(102)", "os.execv('/bin/true', ['true'])", "os.fork() or os._exit(0); os.wait()"]
)
def test_groups_that_no_call_gave_are_told(live: Live, waiting: list[Waiting], code: str) -> None:
    waiting.append(child := Waiting(live, code))
    child.believed_to_have(gid=1234, egid=1234)
    assert child.go("old.uid", "new.uid", "old.gid", "old.egid", "new.gid", "new.egid") == [(0, 0, 1234, 1234, 0, 0)]


@pytest.mark.parametrize("code", ["syscall(104)", "os.fork() or os._exit(0); os.wait()"])
def test_capabilities_that_no_call_gave_are_told(live: Live, waiting: list[Waiting], code: str) -> None:
    waiting.append(child := Waiting(live, code))
    child.believed_to_have(cap_effective=1, cap_permitted=3)
    status = Path(f"/proc/{child.pid}/status").read_text()
    effective, permitted = (int(status.split(f"Cap{kind}:\t")[1].split("\n")[0], 16) for kind in ("Eff", "Prm"))
    names = ("old.euid", "new.euid", "caps.old", "caps.old_permitted", "caps.new", "caps.new_permitted")
    assert child.go(*names) == [(0, 0, 1, 3, effective, permitted)]


@pytest.mark.parametrize(
    "code",
    [
        "syscall(106, 0); syscall(102)",  # setgid
        "syscall(272, 0x20000); syscall(102)",  # another mount namespace
        "syscall(126, buf(struct.pack('<Ii', 0x20080522, 0)), buf(b'\\xff' * 24)); syscall(102)",  # a capset that fails or not
    ],
)
def test_a_call_that_gives_something_else_covers_nothing(live: Live, waiting: list[Waiting], code: str) -> None:
    waiting.append(child := Waiting(live, code))
    child.believed_to_have(uid=1234, euid=1234)
    assert child.go() == [(b"getuid", 1234, 1234, 0, 0)]


@pytest.mark.parametrize(
    "code",
    [
        "os.setresuid(5, 5, 0); syscall(102); os.setresuid(0, 0, 0); syscall(107); syscall(105, 7); syscall(102)",
        "t = threading.Thread(target=lambda: (syscall(117, 9, 9, 9), syscall(102))); t.start(); t.join(); syscall(102)",
        "syscall(272, 0x10000000); syscall(102)",  # a user namespace of its own
        "syscall(122, 9); syscall(102)",
        "syscall(106, 9); syscall(104); syscall(114, 8, 7); syscall(108); syscall(119, 6, 5, 4); syscall(104)",  # setgid ...
        "syscall(126, buf(struct.pack('<Ii', 0x20080522, 0)), buf(bytes(24))); syscall(102)",  # capset
        "syscall(117, 9, 9, 9); syscall(102); os.execv('/bin/true', ['true'])",
        "syscall(117, -1, 9, 9); syscall(102); os.execv('/usr/bin/id', ['id'])",  # capabilities come with what is real
        "syscall(123, 9); syscall(104); syscall(116, 0, 0); syscall(104)",  # setfsgid, setgroups
    ],
)
def test_ids_that_a_call_gave_are_not(live: Live, waiting: list[Waiting], code: str) -> None:
    waiting.append(child := Waiting(live, code))
    assert child.go() == []


def test_a_user_namespace_entered_gives_what_it_gives(live: Live, waiting: list[Waiting]) -> None:
    with subprocess.Popen(["unshare", "--user", "sleep", NAP]) as owner:
        try:
            live.await_exec(owner.pid)
            ours = os.stat("/proc/self/ns/user").st_ino
            deadline = time.monotonic() + patient(10)
            while os.stat(f"/proc/{owner.pid}/ns/user").st_ino == ours and time.monotonic() < deadline:
                os.sched_yield()
            waiting.append(
                child := Waiting(
                    live,
                    "os.setresuid(5, 5, 0); syscall(102); os.setresuid(0, 0, 0);"
                    f"fd = os.open('/proc/{owner.pid}/ns/user', 0); print(syscall(308, fd, 0)); syscall(102)",
                )
            )
            assert (child.go(), child.rest()) == ([], "0\n")
        finally:
            owner.kill()


def test_a_program_that_gives_ids_by_its_file_changes_nothing_by_itself(live: Live, waiting: list[Waiting]) -> None:
    program = Path("/var/tmp") / f"execray-{os.getpid()}"
    shutil.copy("/usr/bin/id", program)
    try:
        program.chmod(0o4755)
        waiting.append(child := Waiting(live, f"os.setresuid(77, 77, 77); os.execv({str(program)!r}, ['id', '-u'])"))
        assert (child.go(), child.rest()) == ([], "0\n")
    finally:
        program.unlink()


def test_ids_that_change_while_calls_begin_to_be_followed_were_changed_by_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Live(["setgid", "cred_change"])
    learn = live.sensor._scan.renew_creds
    code = PRELUDE + "input(); print(syscall(119, 4, 5, 6), flush=True); input(); os.getgid()"
    command = [sys.executable, "-I", "-S", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def learn_and_change() -> None:
            learn()
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "0\n"

        monkeypatch.setattr(live.sensor._scan, "renew_creds", learn_and_change)
        try:
            with live:
                child.communicate("\n")
                seen = [event for event in live.drain() if event.get("pid") == child.pid]
        finally:
            child.kill()
    assert "exit" in {event.type.name for event in seen}
    assert not [event for event in seen if event.type.name == "cred_change"]
