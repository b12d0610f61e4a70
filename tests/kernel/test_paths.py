"""bpf/include/execray/path.h: the true path, wherever one is easily wrong. Beside each stands what the system itself says of it.

The system's own word is /proc/PID/fd and stat(2). Where the kernel's object differs from them, the test says so: a chroot is
ignored, a deleted file keeps its path (with a flag), and overlayfs has a device of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from execray.schema.event import Event
from execray.schema.field import PATH_UNSURE
from tests.support.live import Live, Run
from tests.support.pace import patient
from tests.support.paths import fs_path, kernel_id

EVENTS = ["open", "write"]
#: In a probing child: a mount namespace of its own, mounts, and what the system says of a descriptor.
MOUNTS = """
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x1000, 0x4000, 0x40000, 2
AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = 0x1000, 1, 4
def ok(result):
    assert result >= 0, os.strerror(-result)
    return result
def own_namespace():
    ok(syscall(272, CLONE_NEWNS)); ok(syscall(165, buf(b"none"), buf(b"/"), 0, MS_REC | MS_PRIVATE, 0))
def mount(source, target, kind=b"", flags=0, data=b""):
    ok(syscall(165, buf(os.fsencode(source)), buf(os.fsencode(target)), buf(kind), flags, buf(data)))
def say(fd):
    found = os.fstat(fd)
    print(os.readlink(f"/proc/self/fd/{fd}"), found.st_dev, found.st_ino, flush=True)
def look(name, flags=0):
    fd = ok(syscall(257, -100, buf(os.fsencode(name)), flags, 0o600))
    say(fd)
    return fd
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a file `f` in `real`, on the machine's own filesystem."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("x")
    return tmp_path


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short enough for long names below it."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


def inside(live: Live, code: str, *args: object) -> Run:
    return live.python(MOUNTS + "\nown_namespace()\n" + code, *args)


def the_open(run: Run, raw: Path | str | bytes) -> Event:
    return run.one("open", rawpath=os.fsencode(raw))


def agrees(event: Event, line: str) -> None:
    """The event's path, device and inode are what the child read in /proc and stat(2)."""
    path, dev, ino = line.rsplit(" ", 2)
    assert event.get("path") == os.fsencode(path)
    ident = event.get("file.id")
    assert isinstance(ident, bytes)
    major, minor, inode, _ = map(int, ident.split(b":"))
    assert (os.makedev(major, minor), inode) == (int(dev), int(ino))
    assert not event.flags & (PATH_UNSURE | Flag.DELETED)


def test_under_a_chroot_the_path_is_the_one_outside(live: Live, here: Path) -> None:
    """The kernel's object differs: /proc shows the process its own view."""
    run = inside(live, f"os.chroot({str(here)!r}); os.chdir('/real'); os.open('/real/f', 0); os.open('f', 0)")
    for raw in ("/real/f", "f"):
        event = the_open(run, raw)
        assert event.get("path") == event.get("fspath") == fs_path(here / "real" / "f")
        assert event.get("file.id") == kernel_id(here / "real" / "f")
        assert not event.flags & PATH_UNSURE


def test_a_bind_mount_has_its_own_path_and_the_filesystems(live: Live, here: Path) -> None:
    (here / "bound").mkdir()
    (here / "one").write_text("")
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("real", "bound", flags=MS_BIND); mount("real/f", "one", flags=MS_BIND)
look("bound/f"); look("one"); look("bound")
""",
    )
    for raw, line, place in zip(("bound/f", "one", "bound"), run.stdout.splitlines(), ("f", "f", ""), strict=True):
        event = the_open(run, raw)
        agrees(event, line)
        assert event.get("path") == os.fsencode(here / raw)
        assert event.get("fspath") == fs_path(here / "real" / place)
        assert event.get("file.uid") == 0
    assert the_open(run, "one").get("file.id") == kernel_id(here / "real" / "f")


def test_a_program_in_a_bind_mount_has_the_filesystems_path(live: Live, here: Path) -> None:
    shutil.copy("/bin/true", here / "real" / "program")
    (here / "real" / "program").chmod(0o4751)
    os.chown(here / "real" / "program", 7, 8)
    (here / "real" / "program").chmod(0o4751)  # chown has taken the bit away
    (here / "bound").mkdir()
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("real", "bound", flags=MS_BIND)
os.execv("bound/program", ["p"])
""",
    )
    event = run.one("exec", filename=b"bound/program")
    assert event.get("exe") == os.fsencode(here / "bound" / "program")
    assert event.get("fspath") == fs_path(here / "real" / "program")
    assert event.get("prev.exe") == os.fsencode(os.path.realpath(sys.executable))
    assert (event.get("exe.file.uid"), event.get("exe.file.mode")) == (7, 0o4751)
    assert (event.get("exe.suid"), event.get("exe.memfd")) == (True, False)


def test_arguments_behind_the_longest_paths_are_cut_earlier_and_say_so(live: Live, short: Path) -> None:
    run = inside(
        live,
        f"""
import shutil
here = {str(short)!r}
parts = [letter * 250 for letter in "abcdefghijklmno"]
def deep(start):
    os.chdir(here); os.mkdir(start); os.chdir(start)
    for part in parts: os.mkdir(part); os.chdir(part)
    return os.path.join(here, start, *parts)
source, target = deep("s"), deep("t")
shutil.copy("/bin/true", source + "/program")
mount(source, target, flags=MS_BIND)
os.chdir(target)
os.execv(target + "/program", ["p", "x" * 20000])
""",
    )
    event = run.of("exec")[-1]
    exe, fspath, argv = (event.get(name) for name in ("exe", "fspath", "argv"))
    assert isinstance(exe, bytes) and isinstance(fspath, bytes) and isinstance(argv, tuple)
    assert exe == event.get("filename") and exe.endswith(b"/program") and len(exe) > 3750
    assert event.get("cwd") == exe.removesuffix(b"/program")
    assert fspath == exe.replace(b"/t/", b"/s/", 1)
    assert argv == (b"p", b"x" * 8190) and Flag.ARGV_TRUNCATED in event.flags
    assert not event.flags & PATH_UNSURE


def test_a_program_without_a_file_says_so(live: Live) -> None:
    run = live.python("""
        fd = os.memfd_create("thing"); os.write(fd, open("/bin/true", "rb").read())
        os.execv(f"/proc/self/fd/{fd}", ["true"])
    """)
    first, second = run.of("exec")
    assert (first.get("exe.memfd"), second.get("exe.memfd")) == (False, True)
    assert second.get("fspath") is None


def test_a_bind_mount_of_a_bind_mount(live: Live, here: Path) -> None:
    for name in ("a", "b"):
        (here / name).mkdir()
    (here / "real" / "sub").mkdir()
    (here / "real" / "sub" / "g").write_text("")
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("real", "a", flags=MS_BIND); mount("a/sub", "b", flags=MS_BIND)
look("b/g")
""",
    )
    event = the_open(run, "b/g")
    agrees(event, run.stdout.strip())
    assert event.get("fspath") == fs_path(here / "real" / "sub" / "g")


def test_a_tree_that_was_cloned_is_detached_until_it_is_mounted(live: Live, here: Path) -> None:
    """Linux 5.2. Until then /proc shows a path that begins at the clone's own root, as the event does, but with a flag."""
    (here / "moved").mkdir()
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
tree = ok(syscall(428, -100, buf(b"real"), OPEN_TREE_CLONE))
fd = ok(syscall(257, tree, buf(b"./f"), 0, 0)); say(fd)
ok(syscall(429, tree, buf(b""), -100, buf(b"moved"), MOVE_MOUNT_F_EMPTY_PATH))
fd = ok(syscall(257, tree, buf(b"f"), 0, 0)); say(fd)
""",
    )
    detached, moved = the_open(run, "./f"), the_open(run, "f")
    assert detached.get("path") == b"/f" and Flag.PATH_DETACHED in detached.flags
    assert detached.get("fspath") == moved.get("fspath") == fs_path(here / "real" / "f")
    assert detached.get("file.id") == moved.get("file.id") == kernel_id(here / "real" / "f")
    agrees(moved, run.stdout.splitlines()[1])
    assert moved.get("path") == os.fsencode(here / "moved" / "f")


def test_what_was_unmounted_lazily_looks_like_no_other_file(live: Live, here: Path) -> None:
    """A tmpfs with an `etc/shadow` of its own, unmounted while in use: its path would read /etc/shadow."""
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("none", "real", b"tmpfs")
os.mkdir("real/etc"); open("real/etc/shadow", "w").close()
top = os.open("real", 0)
ok(syscall(166, buf(b"real"), MNT_DETACH))
say(ok(syscall(257, top, buf(b"etc/shadow"), 0, 0)))
""",
    )
    event = the_open(run, "etc/shadow")
    assert event.get("path") == os.fsencode(run.stdout.split(" ")[0])
    assert Flag.PATH_DETACHED in event.flags
    assert event.get("file.id") != kernel_id(Path("/etc/passwd"))


def test_after_pivot_root_the_path_is_the_new_ones(live: Live, here: Path) -> None:
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("real", "real", flags=MS_BIND); os.mkdir("real/old")
mount("/proc", "real/old", flags=MS_BIND | MS_REC); ok(syscall(166, buf(b"real/old"), MNT_DETACH))
ok(syscall(155, buf(b"real"), buf(b"real/old")))
os.chdir("/")
ok(syscall(257, -100, buf(b"/f"), 0, 0)); ok(syscall(257, -100, buf(b"/old/etc/hostname"), 0, 0))
os.symlink("/old/proc", "/proc"); look("/f", os.O_WRONLY)
""",
    )
    first, writing = run.of("open", rawpath=b"/f")
    agrees(writing, run.stdout.strip())
    assert first.get("path") == b"/f" and first.get("fspath") == fs_path(here / "real" / "f")
    assert the_open(run, "/old/etc/hostname").get("path") == b"/old/etc/hostname"
    assert the_open(run, "/old/etc/hostname").get("file.id") == kernel_id(Path("/etc/hostname"))


def test_overlayfs_shows_its_own_path_and_device(live: Live, here: Path) -> None:
    """The kernel's object differs from stat(2): s_dev is the overlay's own."""
    for name in ("upper", "work", "merged", "disk"):
        (here / name).mkdir()
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
mount("none", "disk", b"tmpfs"); os.mkdir("disk/upper"); os.mkdir("disk/work")
mount("overlay", "merged", b"overlay", data=b"lowerdir=real,upperdir=disk/upper,workdir=disk/work")
look("merged/f"); look("merged/new", os.O_CREAT | os.O_WRONLY)
print(os.stat("merged").st_dev)
""",
    )
    lower, made, device = run.stdout.splitlines()
    for raw, line in (("merged/f", lower), ("merged/new", made)):
        event = the_open(run, raw)
        assert event.get("path") == os.fsencode(here / raw) == os.fsencode(line.split()[0])
        assert event.get("fspath") == os.fsencode("/" + raw.partition("/")[2])
        ident = event.get("file.id")
        assert isinstance(ident, bytes)
        major, minor, *_ = map(int, ident.split(b":"))
        assert os.makedev(major, minor) == int(device)
    assert the_open(run, "merged/new").get("created") is True


def test_another_mount_namespace_has_its_own_paths(live: Live, here: Path) -> None:
    """A process that enters another's namespace: the path there, beside the same file and place in the filesystem."""
    (here / "bound").mkdir()
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(here)!r})
r, w = os.pipe(); done, end = os.pipe()
if (pid := os.fork()) == 0:
    own_namespace(); mount("real", "bound", flags=MS_BIND)
    os.write(w, b"x"); os.read(done, 1); os._exit(0)
os.read(r, 1)
look("real/f")
ok(syscall(308, os.open(f"/proc/{{pid}}/ns/mnt", 0), CLONE_NEWNS))
os.chdir({str(here)!r}); look("bound/f"); os.write(end, b"x"); os.waitpid(pid, 0)
"""
    )
    outside, there = the_open(run, "real/f"), the_open(run, "bound/f")
    for event, line in zip((outside, there), run.stdout.splitlines(), strict=True):
        agrees(event, line)
    assert there.get("path") == os.fsencode(here / "bound" / "f")
    assert outside.get("fspath") == there.get("fspath") and outside.get("file.id") == there.get("file.id")
    assert outside.get("ns.mnt") != there.get("ns.mnt")


def test_hard_links_are_names_of_one_file(live: Live, here: Path) -> None:
    os.link(here / "real" / "f", here / "other")
    run = live.python(MOUNTS + f"os.chdir({str(here)!r}); look('real/f'); look('other')")
    first, second = the_open(run, "real/f"), the_open(run, "other")
    for event, line in zip((first, second), run.stdout.splitlines(), strict=True):
        agrees(event, line)
    assert first.get("path") != second.get("path") and first.get("fspath") != second.get("fspath")
    assert first.get("file.id") == second.get("file.id") == kernel_id(here / "other")


def test_a_directory_that_was_renamed_has_its_new_name(live: Live, here: Path) -> None:
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(here)!r}); top = os.open("real", 0); os.rename("real", "renamed")
say(ok(syscall(257, top, buf(b"./f"), 0, 0)))
"""
    )
    event = the_open(run, "./f")
    agrees(event, run.stdout.strip())
    assert event.get("path") == fs_path(here / "renamed" / "f")


def test_a_deleted_file_keeps_its_path_and_says_so(live: Live, here: Path) -> None:
    """The kernel's object differs: /proc appends ` (deleted)`."""
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(here)!r}); fd = os.open("real/f", os.O_RDWR); os.unlink("real/f"); look(f"/proc/self/fd/{{fd}}")
os.mkdir("gone"); os.chdir("gone"); os.rmdir({str(here / "gone")!r}); look(".")
"""
    )
    file, folder = run.of("open")[-2:]
    path, _ = run.stdout.splitlines()
    assert os.fsdecode(fs_bytes(file)) + " (deleted)" == path.rsplit(" ", 2)[0]
    assert Flag.DELETED in file.flags and Flag.DELETED in folder.flags
    assert folder.get("path") == os.fsencode(here / "gone")
    assert not file.flags & PATH_UNSURE


def fs_bytes(event: Event) -> bytes:
    path = event.get("path")
    assert isinstance(path, bytes) and path == event.get("fspath")
    return path


def test_a_file_made_without_a_name_has_none_until_it_is_linked(live: Live, here: Path) -> None:
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(here)!r})
fd = look(b"real", os.O_TMPFILE | os.O_WRONLY)
ok(syscall(265, -100, buf(f"/proc/self/fd/{{fd}}".encode()), -100, buf(b"named"), 0x400)); os.write(fd, b"x")
"""
    )
    made, written = the_open(run, b"real"), run.one("write", len=1)
    assert os.fsdecode(fs_bytes(made)) + " (deleted)" == run.stdout.strip().rsplit(" ", 2)[0]
    assert re.fullmatch(os.fsencode(here / "real") + rb"/#\d+", fs_bytes(made))
    assert Flag.DELETED in made.flags and made.get("created") is True
    assert made.get("file.id") == written.get("file.id") == kernel_id(here / "named")


def test_an_inode_number_that_is_used_again_is_another_file(live: Live, here: Path) -> None:
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(here)!r})
for _ in range(200):
    fd = look("again", os.O_CREAT | os.O_WRONLY); os.close(fd); os.unlink("again")
"""
    )
    ids = [event.get("file.id") for event in run.of("open", rawpath=b"again")]
    inodes = [int(line.rsplit(" ", 1)[1]) for line in run.stdout.splitlines()]
    assert len(ids) == 200 == len(set(ids))
    assert len(set(inodes)) < 200, "this filesystem uses no inode number twice"


def test_what_has_no_place_in_a_tree_has_no_fspath(live: Live) -> None:
    run = live.python(
        MOUNTS
        + """
r, w = os.pipe(); a, b = socket.socketpair(); m = os.memfd_create("loader")
for fd in (w, a.fileno(), m):
    say(fd); os.write(fd, b"x" * fd)
    print(fd, flush=True)
"""
    )
    lines = run.stdout.splitlines()
    for said, fd in zip(lines[::2], lines[1::2], strict=True):
        event = run.one("write", fd=int(fd), len=int(fd))
        name, _, inode = said.rsplit(" ", 2)
        path, ident = event.get("path"), event.get("file.id")
        # /proc has a memfd as a deleted file in a root of its own
        assert isinstance(path, bytes) and os.fsdecode(path) == name.removeprefix("/").removesuffix(" (deleted)")
        assert isinstance(ident, bytes) and ident.split(b":")[2] == inode.encode()
        assert event.get("fspath") is None and not event.flags & PATH_UNSURE


def test_forty_levels_through_ten_mounts(live: Live, here: Path) -> None:
    run = inside(
        live,
        f"""
os.chdir({str(here)!r})
at = {str(here)!r}
for level in range(40):
    at += f"/{{level:02d}}"; os.mkdir(at)
    if level % 4 == 3:
        mount("none", at, b"tmpfs")
os.close(os.open(at + "/f", os.O_CREAT | os.O_WRONLY)); look(at + "/f")
""",
    )
    event = run.of("open")[-1]
    agrees(event, run.stdout.strip())
    assert event.get("fspath") == b"/f"


@pytest.mark.parametrize(("size", "whole"), [(4094, True), (4095, True), (4096, False), (4200, False)])
def test_names_up_to_4095_bytes_are_whole_and_longer_ones_say_so(
    live: Live, short: Path, size: int, whole: bool
) -> None:
    """Deeper than PATH_MAX a file is reached from its directory only, and the kernel itself can't name it."""
    parts, left = [], size - len(str(short)) - 1
    while left > 250:
        parts.append("n" * 200)
        left -= 201
    parts.append("l" * left)
    full = "/".join([str(short), *parts])
    assert len(full) == size
    run = live.python(
        MOUNTS
        + f"""
os.chdir({str(short)!r})
for part in {parts[:-1]!r}:
    os.mkdir(part); os.chdir(part)
os.close(ok(syscall(257, -100, buf({parts[-1].encode()!r}), os.O_CREAT | os.O_WRONLY, 0o600)))
"""
    )
    event = the_open(run, parts[-1])
    path = event.get("path")
    assert isinstance(path, bytes)
    assert (Flag.PATH_TRUNCATED in event.flags) is not whole
    assert path == full.encode() if whole else full.encode().endswith(path)


def test_a_path_is_one_that_was_or_says_that_it_was_torn(live: Live) -> None:
    """A directory deep down moves to and fro while a file in it is opened; on tmpfs, where that is fast."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    deep = "/".join([str(folder), *["d" * 8] * 60])
    code = f"""
        os.makedirs({deep!r} + "/one/m"); os.mkdir({deep!r} + "/two"); os.chdir({deep!r})
        open("one/m/f", "w").close()
        top = os.open("one/m", 0)
        child = os.fork()
        while child == 0:
            os.rename("one/m", "two/n"); os.rename("two/n", "one/m")
        for _ in range(800):
            os.close(os.open("f", 0, dir_fd=top))
        os.kill(child, 9); os.waitpid(child, 0)
    """
    truth = {os.fsencode(deep) + b"/one/m/f", os.fsencode(deep) + b"/two/n/f"}
    told: set[object] = set()
    torn: list[Event] = []
    end = time.monotonic() + patient(25)
    try:
        while time.monotonic() < end and not (torn and told == truth):
            events = live.python(code).of("open", rawpath=b"f")
            torn += [event for event in events if Flag.PATH_TORN in event.flags]
            told |= {event.get("path") for event in events if Flag.PATH_TORN not in event.flags}
            shutil.rmtree(folder)
            folder.mkdir()
    finally:
        shutil.rmtree(folder)
    assert told == truth
    assert torn, "nothing was ever renamed meanwhile"
