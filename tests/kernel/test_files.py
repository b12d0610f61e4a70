"""bpf/include/execray/calls/files.h: open, write and chmod, by descriptor and by name."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path
from typing import Final

import pytest

from execray.schema.catalog import EVENT_BY_NAME, NO_CONTENT, Content, Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, sleeper
from tests.support.pace import patient
from tests.support.paths import kernel_id

EVENTS = ["open", "write", "chmod"]
E = CONSTANTS["E"]
O = CONSTANTS["O_"]  # noqa: E741


# open


def test_open_gives_the_path_the_kernel_used(live: Live, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "secret").write_text("x")
    (tmp_path / "link").symlink_to(real)
    raw = os.fsencode(tmp_path / "link" / ".." / "real" / "." / "secret")
    run = live.python(f"print(syscall(257, -100, buf({raw!r}), os.O_RDONLY, 0))")
    event = run.one("open", rawpath=raw)
    assert event.get("path") == os.fsencode(real / "secret")
    assert event.get("ret") == int(run.stdout)
    assert event.get("file.id") == kernel_id(real / "secret")
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
        opened, end = [], time.monotonic() + {patient(20)}  # on a busy machine the two may hardly run at once
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


def test_the_callers_spelling_is_left_out_where_the_path_is_known_and_nobody_asked(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "link").symlink_to("f")
    here = os.fsencode(tmp_path)
    codes = [EVENT_BY_NAME[name].code for name in ("open", "create", "chmod")]
    with Live([]) as live:
        for wanted in (NO_CONTENT, Content.SPELLING):
            assert not live.sensor.want(codes, int(wanted))
            run = live.python(
                """
                os.chdir(sys.argv[1])
                os.close(os.open("link", os.O_RDONLY)); syscall(257, -100, buf(b"none"), 0, 0)
                os.close(os.open("new", os.O_CREAT | os.O_WRONLY)); os.unlink("new"); os.chmod("link", 0o600)
            """,
                tmp_path,
            )
            asked = bool(wanted)
            opened = run.one("open", path=here + b"/f")
            assert opened.get("rawpath") == (b"link" if asked else None) and not opened.flags
            assert run.one("create", path=here + b"/new").get("rawpath") == (b"new" if asked else None)
            assert run.one("open", rawpath=b"none").get("path") is None  # there is nothing else to know it by
            assert run.one("chmod", rawpath=b"link")


def test_the_callers_spelling_is_kept_of_a_file_that_has_no_path() -> None:
    with Live([]) as live:
        assert not live.sensor.want([EVENT_BY_NAME["open"].code], int(NO_CONTENT))
        event = live.python("os.open('/proc/self/ns/net', os.O_RDONLY)").one("open", rawpath=b"/proc/self/ns/net")
        assert event.get("path") is None and event.get("file.id") is not None


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


ABOUT: Final = """
other = int(sys.argv[1]); mine = os.getpid()
def mem(path, flags=os.O_RDONLY):
    fd = os.open(path, flags)
    print(path)
    return fd
tid = []
thread = threading.Thread(target=lambda: (tid.append(threading.get_native_id()), time.sleep(20)), daemon=True)
thread.start()
while not tid:
    time.sleep(0.01)
"""


def test_a_file_below_proc_says_which_process_it_is_about(live: Live, tmp_path: Path) -> None:
    """By the inode: the number in the name may be a thread's, or one of another pid namespace, and `self` is nobody's."""
    with sleeper() as target:
        run = live.python(
            f"""{ABOUT}
here = {str(tmp_path)!r}
assert not syscall(272, 0x20000)  # a mount namespace of its own
libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
os.mkdir(here + "/proc")
assert not libc.mount(b"proc", (here + "/proc").encode(), b"proc", 0, None)
os.mknod(here + "/bound")
os.symlink(f"/proc/{{other}}/mem", here + "/link")
for path in ("self", "thread-self", f"self/task/{{tid[0]}}", str(tid[0]), str(mine)):
    mem(f"/proc/{{path}}/mem")
print("other")
assert not libc.mount(f"/proc/{{other}}/mem".encode(), (here + "/bound").encode(), None, 0x1000, None)
for path in (f"/proc/self/../{{other}}/mem", f"/proc/{{other}}/task/{{other}}/mem", here + f"/proc/{{other}}/mem",
             here + "/link", here + "/bound", f"/proc/{{other}}", f"/proc/self/fd/{{mem(here + '/link', os.O_PATH)}}"):
    mem(path)
print("nobody")
for path in ("/proc/meminfo", "/proc", "/proc/sys/kernel/pid_max", "/dev/null"):
    mem(path)
""",
            target.pid,
        )
    mine, others, nobody = (part.split() for part in run.stdout.replace("nobody", "other").split("other\n"))
    opens = [event for event in run.of("open") if event.get("ret") != -2]
    told = {name: next(e for e in opens if e.get("rawpath") == os.fsencode(name)) for name in (*mine, *others, *nobody)}
    assert {told[name].get("target.id") for name in mine} == {told[mine[0]].actor.id}
    assert {told[name].get("target.pid") for name in others} == {target.pid} and len(others) == 8
    assert {told[name].get("target.id") for name in nobody} == {None} and len(nobody) == 4
