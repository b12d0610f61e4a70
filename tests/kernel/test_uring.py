"""bpf/uring.bpf.c: what is done through an io_uring is the event that the system call would be."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from tests.support.live import PRELUDE, RING, Live, Run, shown
from tests.support.pace import patient
from tracerd.rings import KEPT_NS, MAX_NAMES

EVENTS = ["open", "write", "read", "connect", "accept", "sendto", "socket", "unlink", "rename", "mkdir", "truncate"]
EVENTS += ["symlink", "link", "setxattr", "create"]
UNSEEN = True
pytestmark = pytest.mark.skipif(
    int(os.uname().release.split(".")[0]) < 6,
    reason="before Linux 6.0 the tracepoint doesn't say which operation it was",
)


def through_ring(live: Live, folder: Path, code: str) -> Run:
    return live.python(RING + "os.chdir(sys.argv[1])\n" + code, folder)


@pytest.mark.parametrize("flags", [0, 2], ids=["submitted", "polled by the kernel"])
def test_files_are_opened_read_and_written_by_name_of_what_they_are(live: Live, tmp_path: Path, flags: int) -> None:
    (tmp_path / "secret").write_text("0123456789")
    (tmp_path / "link").symlink_to("secret")
    run = through_ring(
        live,
        tmp_path,
        f"""
ring = Ring({flags})
fd = ring.do(18, -100, 0, buf(b"link"), 0, os.O_RDWR)
assert fd >= 0, fd
room = buf(bytes(4))
assert ring.do(22, fd, 0, room, 4) == 4 and room.raw[:4] == b"0123"
assert ring.do(23, fd, 0, buf(b"through a ring"), 14) == 14
assert ring.do(18, -100, 0, buf(b"nothing"), 0, 0) == -2
made = ring.do(18, -100, 0, buf(b"made"), 0o600, os.O_CREAT | os.O_RDWR)
print(fd, os.getpid(), made)
""",
    )
    fd, pid, made = map(int, run.stdout.split())
    secret = os.fsencode(tmp_path / "secret")
    rings = [e for e in run.events if Flag.IO_URING in e.flags]
    opened = next(e for e in rings if e.type.name == "open" and e.get("ret") == fd)
    assert (opened.get("path"), opened.get("rawpath"), opened.get("access")) == (secret, b"link", 3)
    assert opened.get("pid") == pid
    read = next(e for e in rings if e.type.name == "read")
    assert (read.get("path"), read.get("len"), read.get("ret"), read.get("content")) == (secret, 4, 4, b"0123")
    created = next(e for e in rings if e.type.name == "create")
    assert (created.get("path"), created.get("rawpath")) == (os.fsencode(tmp_path / "made"), b"made")
    assert (created.get("fd"), created.get("mode")) == (made, 0o600)
    written = next(e for e in rings if e.type.name == "write")
    assert (written.get("path"), written.get("content"), written.get("ret")) == (secret, b"through a ring", 14)
    failed = next(e for e in rings if e.type.name == "open" and e.get("ret") == -2)
    assert (failed.get("path"), failed.get("rawpath")) == (None, b"nothing") and Flag.UNREADABLE not in failed.flags


def test_sockets_are_made_connected_and_sent_through(live: Live, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = through_ring(
            live,
            tmp_path,
            f"""
ring = Ring()
s = ring.do(45, 2, 1, 0, 0)
if s < 0: s = socket.socket().detach()
address = buf(struct.pack("<H", 2) + struct.pack(">H", {port}) + bytes([127, 0, 0, 1]) + bytes(8))
assert ring.do(16, s, 16, address) == 0
assert ring.do(26, s, 0, buf(b"hello"), 5) == 5
t = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(t.getsockname())
print(ring.do(13, t.fileno()), c.getsockname()[1])
""",
        )
    taken, peer = map(int, run.stdout.split())
    (connected,) = [e for e in run.of("connect", dst__port=port) if Flag.IO_URING in e.flags]
    assert (shown(connected, "dst.ip"), connected.get("ret")) == ("127.0.0.1", 0)
    (sent,) = [e for e in run.of("sendto") if Flag.IO_URING in e.flags]
    assert (sent.get("dst.port"), sent.get("len"), sent.get("ret")) == (port, 5, 5)
    written = run.one("write", content=b"hello")
    assert Flag.IO_URING in written.flags
    (accepted,) = [e for e in run.of("accept") if Flag.IO_URING in e.flags]
    assert (accepted.get("ret"), accepted.get("src.port")) == (taken, peer)


@pytest.mark.parametrize("flags", [0, 2], ids=["submitted", "polled by the kernel"])
def test_names_are_those_that_the_kernel_took(live: Live, tmp_path: Path, flags: int) -> None:
    run = through_ring(
        live,
        tmp_path,
        f"""
ring = Ring({flags})
name, target = buf(b"a"), buf(b"elsewhere")
os.mkdir("d")
d = os.open("d", os.O_RDONLY)
print(ring.do(37, d, 0, name, 0o700))
name.raw = b"b\\0"
print(ring.do(38, d, name, target), ring.do(39, d, buf(b"{tmp_path}/c"), name, -100))
print(ring.do(35, d, buf(b"./e"), name, -100), ring.do(36, d, 0, buf(b"a"), 0, 0x200), ring.do(36, -100, 0, buf(b"none")))
""",
    )
    assert run.stdout.split() == ["0", "0", "0", "0", "0", "-2"]
    assert sorted(os.listdir(tmp_path)) == ["c", "d", "e"] and not os.listdir(tmp_path / "d")
    here = os.fsencode(tmp_path)
    rings = [e for e in run.events if Flag.IO_URING in e.flags and Flag.UNREADABLE not in e.flags]
    told = {(e.type.name, e.get("path"), e.get("ret")): e for e in rings}
    made = told["mkdir", here + b"/d/a", 0]
    assert (made.get("rawpath"), made.get("mode")) == (b"a", 0o700)
    assert told["symlink", here + b"/d/b", 0].get("target") == b"elsewhere"
    linked = told["link", here + b"/d/b", 0]
    assert (linked.get("newpath"), linked.get("rawnewpath")) == (here + b"/c", here + b"/c")
    moved = told["rename", here + b"/d/b", 0]
    assert (moved.get("newpath"), moved.get("rawnewpath")) == (here + b"/e", b"./e")
    assert told["unlink", here + b"/d/a", 0].get("directory") is True
    assert told["unlink", here + b"/none", -2].get("rawpath") == b"none"


def test_a_name_that_was_rewritten_since_is_the_one_that_was_meant(live: Live, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("x")
    run = through_ring(
        live,
        tmp_path,
        PUSH
        + """
ring = Ring()
name = buf(b"victim")
push(ring, 36, -100, name)
name.raw = b"other!\\0"
print(*completions(ring, 1))
""",
    )
    assert run.stdout == "0\n" and not os.listdir(tmp_path)
    assert run.one("unlink").get("path") == os.fsencode(tmp_path / "victim")


def test_names_of_attributes_are_told(live: Live, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    run = through_ring(
        live,
        tmp_path,
        """
ring = Ring()
value = ctypes.addressof(buf(b"v"))
def set(opcode, fd, name, path=0):
    tail, = struct.unpack_from("I", ring.sq, ring.tail)
    before, = struct.unpack_from("I", ring.cq, ring.cq_tail)
    at = tail % 8 * 64
    struct.pack_into("BBHiQQIIQQQQ", ring.sqes, at, opcode, 0, 0, fd, value, ctypes.addressof(name), 1, 0, 7, 0, path, 0)
    struct.pack_into("I", ring.sq, ring.array + tail % 8 * 4, tail % 8)
    struct.pack_into("I", ring.sq, ring.tail, tail + 1)
    syscall(426, ring.fd, 1, 1, 1, 0, 0)
    return struct.unpack_from("Qi", ring.cq, ring.cqes + before % 16 * 16)[1]
path = buf(b"a")
print(set(42, -1, buf(b"trusted.one"), ctypes.addressof(path)))
print(set(41, os.open("a", os.O_RDWR), buf(b"trusted.two")))
""",
    )
    results = [int(word) for word in run.stdout.split()]
    rings = [e for e in run.of("setxattr") if Flag.IO_URING in e.flags]
    assert [(e.get("attr"), e.get("ret")) for e in rings] == [
        (b"trusted.one", results[0]),
        (b"trusted.two", results[1]),
    ]
    assert [e.get("path") for e in rings] == [os.fsencode(tmp_path / "a")] * 2


def test_an_open_into_the_rings_own_table_is_none_of_a_descriptor(live: Live, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    run = through_ring(
        live,
        tmp_path,
        """
ring = Ring()
assert syscall(427, ring.fd, 2, buf(struct.pack("i", -1)), 1) == 0
name = buf(b"secret")
tail, = struct.unpack_from("I", ring.sq, ring.tail)
struct.pack_into("BBHiQQIIQHHI16x", ring.sqes, tail % 8 * 64, 18, 0, 0, -100, 0, ctypes.addressof(name), 0, 0o100, 7, 0, 0, 1)
struct.pack_into("I", ring.sq, ring.array + tail % 8 * 4, tail % 8)
struct.pack_into("I", ring.sq, ring.tail, tail + 1)
syscall(426, ring.fd, 1, 1, 1, 0, 0)
print(struct.unpack_from("Qi", ring.cq, ring.cqes)[1], os.readlink("/proc/self/fd/0"))
""",
    )
    assert run.stdout.split()[0] == "0"
    (opened,) = [e for e in run.of("open") if Flag.IO_URING in e.flags]
    assert (opened.get("path"), opened.get("rawpath"), opened.get("file.id")) == (None, b"secret", None)
    made = run.one("create", rawpath=b"secret")  # or not: nobody knows which file it was
    assert (made.get("path"), made.get("file.id")) == (None, None)
    assert Flag.UNREADABLE in opened.flags and Flag.UNREADABLE in made.flags


#: One more form of a request: with flags, a priority, and credentials that were registered before. Nobody waits for it.
PUSH = """
def push(ring, opcode, fd, addr, flags=0, priority=0, personality=0, length=0, op_flags=0):
    tail, = struct.unpack_from("I", ring.sq, ring.tail)
    struct.pack_into("BBHiQQIIQHH20x", ring.sqes, tail % 8 * 64, opcode, flags, priority, fd, 0,
        ctypes.addressof(addr) if addr else 0, length, op_flags, 7, 0, personality)
    struct.pack_into("I", ring.sq, ring.array + tail % 8 * 4, tail % 8)
    struct.pack_into("I", ring.sq, ring.tail, tail + 1)
    return syscall(426, ring.fd, 1, 0, 0, 0, 0)
def completions(ring, count):
    while struct.unpack_from("I", ring.cq, ring.cq_tail)[0] < count:
        syscall(426, ring.fd, 0, count, 1, 0, 0)
    return [struct.unpack_from("Qi", ring.cq, ring.cqes + n % 16 * 16)[1] for n in range(count)]
"""


#: More requests than names find room for, behind a read of a pipe that nobody writes to.
PARKED = f"""
os.chdir(sys.argv[1])
ring, (end, _), room, name = Ring(), os.pipe(), buf(bytes(8)), buf(b"none")
assert push(ring, 22, end, room, length=8) == 1
for _ in range({MAX_NAMES} + 50):
    assert push(ring, 36, -100, name, flags=2) == 1
print("parked", flush=True)
time.sleep(600)
"""


def test_names_that_nobody_came_for_make_room(live: Live, tmp_path: Path) -> None:
    """Requests behind one that doesn't end: their names are kept, counted when there is no more room, and given up in time."""
    rings = live.sensor._rings
    full = live.sensor.counter("NAMES_FULL")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PRELUDE + RING + PUSH + PARKED, str(tmp_path)], stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"parked\n"
            assert len(list(rings.map.keys())) == MAX_NAMES and live.sensor.counter("NAMES_FULL") > full
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            rings.sweep(now)
            assert len(list(rings.map.keys())) == MAX_NAMES
            rings.sweep(now + KEPT_NS)
            assert not list(rings.map.keys())
        finally:
            child.kill()


def test_a_request_that_asks_for_no_completion_is_not_told(live: Live, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    run = through_ring(
        live,
        tmp_path,
        PUSH
        + """
ring = Ring()
assert push(ring, 36, -100, buf(b"a"), flags=64) == 1
while os.path.exists("a"):
    pass
assert push(ring, 36, -100, buf(b"none")) == 1
print(*completions(ring, 1))
""",
    )
    assert run.stdout == "-2\n" and not os.listdir(tmp_path)
    assert [event.get("ret") for event in run.of("unlink")] == [-2]


def test_what_finds_no_room_for_its_completion_is_told_once_and_in_order(live: Live, tmp_path: Path) -> None:
    for name in ("one", "two", "gone"):
        (tmp_path / name).write_text(name * 3)
    run = through_ring(
        live,
        tmp_path,
        PUSH
        + f"""
ring = Ring()
for _ in range(15):
    assert push(ring, 0, -1, None) == 1
# the first takes the last place; all look the same, but for what they do
one, two = os.open("one", os.O_RDONLY), os.open("two", os.O_RDONLY)
room = buf(bytes(9))
tail, = struct.unpack_from("I", ring.sq, ring.tail)
for n, fd in enumerate((one, two, one, two)):
    at = (tail + n) % 8
    struct.pack_into("BBHiQQIIQ24x", ring.sqes, at * 64, 22, 0, 0, fd, 0, ctypes.addressof(room), 9, 0, 7)
    struct.pack_into("I", ring.sq, ring.array + at * 4, at)
struct.pack_into("I", ring.sq, ring.tail, tail + 4)
assert syscall(426, ring.fd, 4, 0, 0, 0, 0) == 4
assert push(ring, 18, -100, buf(b"two")) == 1
assert push(ring, 36, -100, buf(b"gone")) == 1
while os.path.exists("gone"):
    pass
time.sleep({patient(0.05)})  # the worker has unlinked it, and completes the request now
""",
    )
    rings = [e for e in run.events if Flag.IO_URING in e.flags]
    here = os.fsencode(tmp_path)
    told = [(e.type.name, e.get("path"), e.get("ret")) for e in rings if e.type.name != "open"]
    reads = [("read", here + b"/" + name, 9) for name in (b"one", b"two", b"one", b"two")]
    assert told == [*reads, ("unlink", here + b"/gone", 0)]
    assert [e.get("path") for e in rings if e.type.name == "open"] == [here + b"/two"]


def test_what_comes_of_one_request_again_and_again_is_not_told(live: Live, tmp_path: Path) -> None:
    run = through_ring(
        live,
        tmp_path,
        PUSH
        + """
ring = Ring()
server = socket.create_server(("127.0.0.1", 0))
assert push(ring, 13, server.fileno(), None, priority=1) == 1
clients = [socket.create_connection(server.getsockname()) for _ in range(2)]
taken = completions(ring, 2)
assert min(taken) >= 0, taken
assert os.write(taken[0], b"by what was taken") == 17
""",
    )
    assert not [event for event in run.of("accept") if isinstance(ret := event.get("ret"), int) and ret >= 0]
    assert run.one("write", content=b"by what was taken").get("path")


def test_a_file_opened_with_registered_credentials_says_so_by_the_id_for_files(live: Live, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)
    run = through_ring(
        live,
        tmp_path,
        PUSH
        + """
ring = Ring()
root = syscall(427, ring.fd, 9, 0, 0)
assert root > 0, root
os.setresgid(77, 77, 77); os.setresuid(77, 77, 77)
assert push(ring, 18, -100, buf(b"secret"), personality=root, op_flags=os.O_RDONLY) == 1
print(*completions(ring, 1))
try:
    os.open("secret", os.O_RDONLY)
except PermissionError:
    pass
""",
    )
    (fd,) = map(int, run.stdout.split())
    opened = run.one("open", path=os.fsencode(tmp_path / "secret"), ret=fd)
    assert [opened.get(name) for name in ("uid", "euid", "fsuid", "fsgid")] == [77, 77, 0, 0]
    refused = run.one("open", rawpath=b"secret", ret=-13)
    assert [refused.get(name) for name in ("uid", "euid", "fsuid")] == [77, 77, 77]
