"""bpf/sys.bpf.c: system calls as they return, through both entry points."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from execray.schema.event import Event, value_to_json
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, sleeper

E = CONSTANTS["E"]
O = CONSTANTS["O_"]  # noqa: E741
EVENTS = ["exec", "open", "write", "chmod", "connect", "ptrace", "setuid"]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live(EVENTS, content=True) as sensor:
        yield sensor


def shown(event: Event, name: str) -> object:
    return value_to_json(event.type.by_name[name], event.get(name))


# open


def test_open_gives_the_path_the_kernel_used(live: Live, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "secret").write_text("x")
    (tmp_path / "link").symlink_to(real)
    raw = os.fsencode(tmp_path / "link" / ".." / "real" / "." / "secret")
    run = live.python(f"print(syscall(257, -100, buf({raw!r}), os.O_RDONLY, 0))")
    event = run.one("open", rawpath=raw)
    found = (real / "secret").stat()
    assert event.get("path") == os.fsencode(real / "secret")
    assert event.get("ret") == int(run.stdout)
    assert shown(event, "file.id") == f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}:{found.st_ino}"
    assert (event.get("flags"), event.get("access"), event.get("created")) == (os.O_RDONLY, 1, False)


@pytest.mark.parametrize(
    "call",
    [
        "syscall(2, path, os.O_CREAT | os.O_WRONLY, 0o640)",
        "syscall(85, path, 0o640)",
        "syscall(257, -100, path, os.O_CREAT | os.O_WRONLY, 0o640)",
        "syscall(437, -100, path, buf(struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o640, 0)), 24)",
    ],
    ids=["open", "creat", "openat", "openat2"],
)
def test_every_form_of_open_is_one_event(live: Live, tmp_path: Path, call: str) -> None:
    target = os.fsencode(tmp_path / "made")
    event = live.python(f"path = buf({target!r}); assert {call} >= 0").one("open", path=target)
    assert event.get("created") is True
    assert event.get("mode") == 0o640
    flags = event.get("flags")
    assert isinstance(flags, int) and flags & (O["O_CREAT"] | O["O_WRONLY"]) == O["O_CREAT"] | O["O_WRONLY"]
    assert event.get("access") == 2


def test_names_relative_to_a_descriptor_are_resolved(live: Live, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "f").write_text("")
    event = live.python(f"fd = os.open({str(tmp_path)!r}, 0); syscall(257, fd, buf(b'dir/f'), 0, 0)").one(
        "open", rawpath=b"dir/f"
    )
    assert event.get("path") == os.fsencode(tmp_path / "dir" / "f")


def test_a_failed_open_has_the_callers_name_and_the_error(live: Live) -> None:
    event = live.python("syscall(257, -100, buf(b'/nonexistent/x'), 0, 0)").one("open", rawpath=b"/nonexistent/x")
    assert event.get("ret") == -E["ENOENT"]
    assert event.get("path") is None and event.get("file.id") is None


def test_an_unreadable_name_is_unknown_and_not_empty(live: Live) -> None:
    event = live.python("syscall(257, -100, 1, 0, 0)").one("open", ret=-E["EFAULT"])
    assert event.get("rawpath") is None
    assert Flag.UNREADABLE in event.flags


def test_forty_levels_and_a_long_path_are_whole(live: Live, tmp_path: Path) -> None:
    deep = tmp_path
    for level in range(40):
        deep = deep / f"{level:02d}{'n' * 60}"
        deep.mkdir()
    (deep / "f").write_text("")
    event = live.python(f"open({str(deep / 'f')!r}).close()").one("open", path=os.fsencode(deep / "f"))
    assert Flag.PATH_TRUNCATED not in event.flags


def test_a_path_past_the_walk_is_cut_and_says_so(live: Live, tmp_path: Path) -> None:
    code = f"""
        os.chdir({str(tmp_path)!r})
        for _ in range(150):
            os.mkdir("d"); os.chdir("d")
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY))
    """
    event = live.python(code).one("open", rawpath=b"bottom")
    path = event.get("path")
    assert isinstance(path, bytes) and path.endswith(b"/d/d/bottom")
    assert Flag.PATH_TRUNCATED in event.flags
    shutil.rmtree(tmp_path / "d")


def test_mounts_are_crossed(live: Live) -> None:
    assert os.stat("/proc").st_dev != os.stat("/").st_dev
    run = live.python("open('/proc/sys/kernel/ostype').close()")
    assert run.one("open", path=b"/proc/sys/kernel/ostype")


def test_a_race_on_the_argument_does_not_change_the_path(live: Live, tmp_path: Path) -> None:
    (tmp_path / "forbidden").write_text("")
    (tmp_path / "harmless_").write_text("")
    code = f"""
        import mmap
        bad, good = {os.fsencode(tmp_path / "forbidden")!r}, {os.fsencode(tmp_path / "harmless_")!r}
        name = mmap.mmap(-1, 4096)  # shared with the child, which rewrites it all the time
        name[: len(bad)] = bad
        child = os.fork()
        while child == 0:
            name[: len(bad)] = good
            name[: len(bad)] = bad
        address = ctypes.addressof(ctypes.c_char.from_buffer(name))
        opened, end = [], time.monotonic() + 8
        while time.monotonic() < end and (len(opened) < 300 or len(set(opened)) < 2):
            fd = syscall(257, -100, address, 0, 0)
            if fd >= 0:
                opened.append(os.readlink(f"/proc/self/fd/{{fd}}")); os.close(fd)
        os.kill(child, 9); os.waitpid(child, 0)
        print("\\n".join(opened))
    """
    run = live.python(code)
    truth = run.stdout.split()
    told = [os.fsdecode(p) for e in run.of("open") if isinstance(p := e.get("path"), bytes)]
    assert [p for p in told if p.startswith(str(tmp_path))] == truth
    assert len(set(truth)) == 2, "the race never happened"


# write


def test_write_has_its_bytes_and_where_they_went(live: Live, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run = live.python(
        f"fd = os.open({str(target)!r}, os.O_CREAT | os.O_WRONLY); os.write(fd, b'root\\xff:x'); print(fd)"
    )
    event = run.one("write", content=b"root\xff:x")
    assert event.get("path") == os.fsencode(target)
    assert (event.get("fd"), event.get("len"), event.get("ret")) == (int(run.stdout), 7, 7)


def test_long_content_is_cut_at_256_bytes_and_says_so(live: Live, tmp_path: Path) -> None:
    run = live.python(f"os.write(os.open({str(tmp_path / 'o')!r}, os.O_CREAT | os.O_WRONLY), b'a' * 300)")
    event = run.one("write", len=300)
    assert event.get("content") == b"a" * 256
    assert Flag.CONTENT_TRUNCATED in event.flags
    exact = live.python(f"os.write(os.open({str(tmp_path / 'o')!r}, os.O_WRONLY), b'a' * 256)").one("write", len=256)
    assert Flag.CONTENT_TRUNCATED not in exact.flags


@pytest.mark.parametrize("call", ["os.pwrite(fd, b'hello', 0)", "os.writev(fd, [b'hello', b'more'])"])
def test_other_forms_of_write(live: Live, tmp_path: Path, call: str) -> None:
    run = live.python(f"fd = os.open({str(tmp_path / 'o')!r}, os.O_CREAT | os.O_WRONLY); {call}")
    assert run.one("write", content=b"hello").get("path") == os.fsencode(tmp_path / "o")


def test_pipes_and_sockets_are_named_as_proc_names_them(live: Live) -> None:
    run = live.python("""
        r, w = os.pipe(); a, b = socket.socketpair()
        print(os.readlink(f"/proc/self/fd/{w}"), os.readlink(f"/proc/self/fd/{a.fileno()}"), flush=True)
        os.write(w, b"to the pipe"); os.write(a.fileno(), b"to the socket")
    """)
    pipe, sock = run.stdout.split()
    assert run.one("write", content=b"to the pipe").get("path") == pipe.encode()
    assert run.one("write", content=b"to the socket").get("path") == sock.encode()


def test_a_memfd_has_its_name(live: Live) -> None:
    run = live.python("os.write(os.memfd_create('loader'), b'in memory')")
    assert run.one("write", content=b"in memory").get("path") == b"memfd:loader"


def test_what_was_written_is_read_also_where_the_buffer_ends_sooner(live: Live, tmp_path: Path) -> None:
    run = live.python(f"""
        import mmap
        pages = mmap.mmap(-1, 8192); pages[4090:4096] = b"secret"
        fd = os.open({str(tmp_path / "o")!r}, os.O_CREAT | os.O_WRONLY)
        os.lseek(fd, 4090, 0)  # the file is written page by page, and old kernels take all of a page or nothing
        at = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + 4090
        assert libc.mprotect(ctypes.c_void_p(at + 6), 4096, 0) == 0  # nothing behind the first page can be read
        print(syscall(1, fd, at, 1 << 20))
    """)
    assert int(run.stdout) == 6
    assert run.one("write", len=1 << 20).get("content") == b"secret"


def test_bytes_leave_in_many_ways(live: Live, tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"from a file")
    out = os.fsencode(tmp_path / "to")
    run = live.python(f"""
        a, b = socket.socketpair()
        a.send(b"by send"); a.sendmsg([b"", b"by ", b"sendmsg"])
        source = os.open({str(tmp_path / "from")!r}, 0)
        target = os.open({out!r}, os.O_CREAT | os.O_RDWR)
        print(os.copy_file_range(source, target, 11), os.sendfile(target, source, 0, 10))
        r, w = os.pipe(); os.write(w, b"spliced")
        print(os.splice(r, target, 6))
    """)
    assert run.stdout.split() == ["11", "10", "6"]
    assert run.one("write", content=b"by send").get("len") == 7
    assert run.one("write", content=b"by ").get("len") == 10
    for length in (11, 10, 6):
        event = run.one("write", path=out, ret=length)
        assert event.get("len") == length and event.get("content") is None
        assert Flag.UNREADABLE in event.flags


def test_empty_buffers_of_a_writev_hide_nothing(live: Live, tmp_path: Path) -> None:
    run = live.python(f"""
        fd = os.open({str(tmp_path / "o")!r}, os.O_CREAT | os.O_WRONLY)
        os.writev(fd, [b"", b"", b"hidden", b"x"]); os.pwritev(fd, [b"", b"positioned"], 3)
    """)
    assert run.one("write", content=b"hidden").get("len") == 7
    assert run.one("write", content=b"positioned").get("len") == 10


def test_content_is_left_out_where_nobody_asked() -> None:
    with Live(["write"]) as live:
        run = live.python("os.write(1, b'private')")
        event = run.one("write", len=7)
        assert event.get("content") is None


# chmod


def test_chmod_in_its_forms(live: Live, tmp_path: Path) -> None:
    f = tmp_path / "f"
    f.write_text("")
    run = live.python(f"""
        name = buf({os.fsencode(f)!r})
        fd = os.open({str(f)!r}, 0)
        print(syscall(90, name, 0o701), syscall(91, fd, 0o702), syscall(268, -100, name, 0o703))
        print(syscall(452, -100, name, 0o704, 0))
    """)
    results = [int(r) for r in run.stdout.split()]
    assert results[:3] == [0, 0, 0]
    assert run.one("chmod", mode=0o701).get("rawpath") == os.fsencode(f)
    assert run.one("chmod", mode=0o702).get("path") == os.fsencode(f)
    assert run.one("chmod", mode=0o703).get("rawpath") == os.fsencode(f)
    assert run.one("chmod", mode=0o704).get("ret") == results[3]  # fchmodat2 needs Linux 6.6
    empty = live.python(f"fd = os.open({str(f)!r}, 0); syscall(452, fd, buf(b''), 0o705, 0x1000)").one(
        "chmod", mode=0o705
    )
    assert empty.get("path") == os.fsencode(f)


# connect


def test_connect_has_both_ends_as_the_socket_knows_them(live: Live) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = live.python(f"s = socket.create_connection(('127.0.0.1', {port})); print(s.getsockname()[1], s.fileno())")
    event = run.one("connect", dst__port=port)
    source, fd = run.stdout.split()
    assert (shown(event, "dst.ip"), shown(event, "src.ip")) == ("127.0.0.1", "127.0.0.1")
    assert (event.get("src.port"), event.get("fd"), event.get("ret")) == (int(source), int(fd), 0)
    assert event.get("family") == socket.AF_INET


def test_connect_over_ipv6_and_a_refused_one(live: Live) -> None:
    with socket.socket(socket.AF_INET6) as idle:
        idle.bind(("::1", 0))
        port = idle.getsockname()[1]
        run = live.python(f"s = socket.socket(socket.AF_INET6); print(s.connect_ex(('::1', {port})))")
    event = run.one("connect", dst__port=port)
    assert int(run.stdout) == E["ECONNREFUSED"] == -int(str(event.get("ret")))
    assert shown(event, "dst.ip") == "::1"


def test_connect_to_unix_sockets(live: Live, tmp_path: Path) -> None:
    run = live.python(f"""
        for name in ({str(tmp_path / "nobody")!r}, "\\0execray-test-abstract"):
            socket.socket(socket.AF_UNIX).connect_ex(name)
    """)
    assert run.one("connect", path=os.fsencode(tmp_path / "nobody")).get("ret") == -E["ENOENT"]
    assert run.one("connect", path=b"\0execray-test-abstract").get("family") == socket.AF_UNIX


def test_a_connected_socket_is_believed_before_the_callers_memory(live: Live) -> None:
    """The address says AF_UNIX by the time the call returns: the socket knows better."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        run = live.python(f"""
            import mmap
            shared = mmap.mmap(-1, 4096)
            real = struct.pack("<H", 2) + struct.pack(">H", {port}) + bytes([127, 0, 0, 1]) + bytes(8)
            fake = struct.pack("<H", 1) + b"/run/log" + bytes(6)
            shared[:16] = real
            address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
            child = os.fork()
            while child == 0:
                shared[:16] = fake
                shared[:16] = real
            reached, end = 0, time.monotonic() + 8
            while reached < 50 and time.monotonic() < end:
                s = socket.socket()
                reached += syscall(42, s.fileno(), address, 16) == 0
                s.close()
            os.kill(child, 9); os.waitpid(child, 0)
        """)
    reached = [e for e in run.of("connect") if e.get("ret") == 0]
    assert reached
    assert {(e.get("family"), e.get("dst.port")) for e in reached} == {(socket.AF_INET, port)}


# ptrace


def test_ptrace_names_the_target_and_its_real_parent(live: Live) -> None:
    with sleeper() as target:
        run = live.python(
            "print(syscall(101, 16, int(sys.argv[1]), 0, 0)); os.waitpid(int(sys.argv[1]), 0x40000000)", target.pid
        )
    event = run.one("ptrace", request=CONSTANTS["PTRACE_"]["PTRACE_ATTACH"])
    assert event.get("ret") == int(run.stdout.split()[0]) == 0
    assert event.get("target.pid") == event.get("target.tid") == target.pid
    parent = event.get("target.real_parent.id")
    assert isinstance(parent, tuple) and parent[0] == os.getpid()
    assert event.get("target.exe") == os.fsencode(os.path.realpath("/bin/sleep"))
    assert event.get("target.uid") == 0


def test_ptrace_on_nobody_and_traceme_have_no_target(live: Live) -> None:
    run = live.python("syscall(101, 16, 0x7ffffff0, 0, 0); syscall(101, 0, 0, 0, 0)")
    assert run.one("ptrace", request=16).get("target.id") is None
    assert run.one("ptrace", request=16).get("ret") == -E["ESRCH"]
    assert run.one("ptrace", request=0).get("target.id") is None


@pytest.mark.parametrize("pid", range(1, 4000, 571))
def test_ptrace_finds_any_pid_or_none(live: Live, pid: int) -> None:
    """PEEKUSER on a process that isn't traced fails, but the target must be looked up right whatever its number."""
    run = live.python(f"print(os.path.exists('/proc/{pid}')); syscall(101, 3, {pid}, 0, 0)")
    found = run.one("ptrace", request=3).get("target.tid")
    assert found == (pid if run.stdout.strip() == "True" else None)


# setuid


def test_setuid_has_old_and_new_ids(live: Live) -> None:
    run = live.python("""
        print(syscall(117, 1234, 1234, 0), syscall(117, 0, 0, 0), syscall(113, 77, 88), syscall(105, 99))
    """)
    assert run.stdout.split() == ["0", "0", "0", str(-E["EPERM"])]
    calls = [
        tuple(e.get(n) for n in ("call", "old.uid", "old.euid", "new.uid", "new.euid", "ret")) for e in run.of("setuid")
    ]
    assert calls == [
        (b"setresuid", 0, 0, 1234, 1234, 0),
        (b"setresuid", 1234, 1234, 0, 0, 0),
        (b"setreuid", 0, 0, 77, 88, 0),
        (b"setuid", 77, 88, 99, 99, -E["EPERM"]),
    ]


def test_minus_one_leaves_an_id_as_it_is(live: Live) -> None:
    run = live.python("syscall(113, -1, 55); syscall(113, -1, 0)")
    first, second = run.of("setuid")
    assert (first.get("new.uid"), first.get("new.euid")) == (0, 55)
    assert (second.get("old.euid"), second.get("new.uid"), second.get("ret")) == (55, 0, 0)


def test_ids_before_the_sensor_came_are_known_from_the_scan() -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import ctypes, sys; c = ctypes.CDLL(None); c.syscall(117, 4321, 4321, 0); print('ready', flush=True);"
            "sys.stdin.readline(); c.syscall(105, 0)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        with Live(["setuid"]) as live:
            child.stdin.write("go\n")
            child.stdin.flush()
            (event,) = [e for e in live.collect(child.pid) if e.type.name == "setuid"]
        assert (event.get("old.uid"), event.get("old.euid")) == (4321, 4321)
        assert Flag.OLD_CREDS_UNKNOWN not in event.flags
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_ids_that_changed_while_nobody_listened_are_learned_anew() -> None:
    """A daemon that gave up root before anybody asked for set*id calls must not look like root still."""
    code = (
        "import ctypes, sys; c = ctypes.CDLL(None); print('ready', flush=True); sys.stdin.readline();"
        "c.syscall(117, 1000, 1000, 0); print('gave up', flush=True); sys.stdin.readline(); c.syscall(105, 0)"
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        with Live(["fork"]) as live:
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "gave up\n"
            live.want(["setuid"])
            child.stdin.write("go\n")
            child.stdin.flush()
            (event,) = [e for e in live.collect(child.pid) if e.type.name == "setuid"]
        assert event.get("old.uid") == 1000
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_thread_has_ids_of_its_own(live: Live) -> None:
    run = live.python("""
        def change():
            syscall(117, 500, 500, 0)
        thread = threading.Thread(target=change); thread.start(); thread.join()
        syscall(117, 600, 600, 0)
    """)
    assert run.one("setuid", new__uid=500).get("old.uid") == 0
    assert run.one("setuid", new__uid=600).get("old.uid") == 0


# the 32-bit entry point

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
	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}
int main(int argc, char **argv)
{
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
    if prebuilt := os.environ.get("EXECRAY_INT80"):  # where there is no compiler: tests/vm
        return Path(prebuilt)
    folder = tmp_path_factory.mktemp("int80")
    (folder / "int80.c").write_text(INT80)
    subprocess.run(["gcc", "-O1", "-w", "-o", folder / "int80", folder / "int80.c"], check=True)
    return folder / "int80"


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
    assert run.one("setuid").get("new.euid") == 32
    assert run.one("exec", filename=b"through int 0x80").get("ret") == -E["ENOENT"]


def test_openat2_tells_the_access_that_was_granted(live: Live, tmp_path: Path) -> None:
    """Its flags lie in the caller's memory, which may say something else once the file is open."""
    target = os.fsencode(tmp_path / "f")
    (tmp_path / "f").write_bytes(struct.pack("QQQ", os.O_RDWR | os.O_TRUNC, 0, 0))
    run = live.python(f"""
        import mmap
        with open({target!r}, "r+b") as f:
            how = mmap.mmap(f.fileno(), 24)
            print(syscall(437, -100, buf({target!r}), ctypes.addressof(ctypes.c_char.from_buffer(how)), 24), flush=True)
            os._exit(0)
    """)
    event = [e for e in run.of("open", path=target) if e.get("ret") == int(run.stdout)][-1]
    assert event.get("access") == 3


# the hooks themselves


def test_only_wanted_events_leave_the_kernel() -> None:
    with Live(["open"]) as live:
        run = live.python(
            "os.write(1, b'x'); os.chmod('/proc/self/nothing', 0) if False else None; open('/dev/null').close()"
        )
        assert run.of("open") and not run.of("write")
        assert not live.sensor.want([], False)
        assert not live.sensor.hooks()["open"]["attached"]
        assert not live.python("open('/dev/null').close()").of("open")


def test_a_flood_past_the_ring_is_counted_exactly() -> None:
    with Live(["open"], ring_bytes=1 << 16) as live:
        live.drain()
        sent, dropped = live.sensor.counter("SENT"), live.sensor.counter("DROPPED")
        code = "import os\nfor _ in range(5000): os.close(os.open('/dev/null', 0))\n"
        done = threading.Event()

        def flood() -> None:
            subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        assert done.wait(30)
        thread.join()
        sent, dropped = live.sensor.counter("SENT") - sent, live.sensor.counter("DROPPED") - dropped
        events = live.drain()
        assert dropped > 0
        assert len(events) == sent
        assert sent + dropped >= 5000
