"""bpf/include/execray/calls/plain.h: what is done to files by name and by descriptor."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live
from tests.support.paths import kernel_id

EVENTS = ["rename", "unlink", "link", "symlink", "mkdir", "truncate", "mknod", "chown", "setxattr", "utimes", "chmod"]
E = CONSTANTS["E"]


@pytest.fixture
def here(tmp_path: Path) -> bytes:
    """A folder with a file `f` and a link `in` to the folder itself."""
    (tmp_path / "f").write_text("12345")
    (tmp_path / "in").symlink_to(".")
    return os.fsencode(tmp_path)


def test_rename_has_both_names_in_every_form(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        fd = os.open(".", 0)
        assert syscall(82, buf(b"f"), buf(b"a")) == 0
        assert syscall(264, fd, buf(b"a"), fd, buf(b"b")) == 0
        assert syscall(316, -100, buf(b"b"), fd, buf(b"c"), 1) == 0
        print(syscall(82, buf(b"nothing"), buf(b"d")))
    """)
    events = run.of("rename")
    assert [(e.get("path"), e.get("newpath")) for e in events] == [
        (here + b"/" + old, here + b"/" + new)
        for old, new in ((b"f", b"a"), (b"a", b"b"), (b"b", b"c"), (b"nothing", b"d"))
    ]
    assert [e.get("ret") for e in events] == [0, 0, 0, -E["ENOENT"]] and run.stdout.strip() == str(-E["ENOENT"])
    assert [e.get("flags") for e in events] == [0, 0, 1, 0]
    assert not any(Flag.PATH_UNRESOLVED in e.flags for e in events)
    assert os.listdir(here) != [] and os.path.exists(here + b"/c")


def test_a_name_that_may_pass_a_link_is_marked_as_not_resolved(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        syscall(87, buf(b"in/./f"))
        syscall(87, buf(b"/nowhere"))
        syscall(87, buf({here!r} + b"//x/../y"))
    """)
    through, root, folded = run.of("unlink")
    assert (through.get("path"), through.get("rawpath")) == (here + b"/in/f", b"in/./f")
    assert Flag.PATH_UNRESOLVED in through.flags and through.get("ret") == 0
    assert (root.get("path"), Flag.PATH_UNRESOLVED in root.flags) == (b"/nowhere", False)
    assert folded.get("path") == here + b"/y" and Flag.PATH_UNRESOLVED in folded.flags


def test_folders_that_are_removed_say_so(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        for name in (b"d1", b"d2"):
            assert syscall(83, buf(name), 0o1750) == 0
        assert syscall(258, -100, buf(b"d3"), 0o700) == 0
        print(oct(os.stat("d1").st_mode & 0o7777 | os.umask(0)))
        assert syscall(84, buf(b"d1")) == syscall(263, -100, buf(b"d2"), 0x200) == syscall(263, -100, buf(b"f"), 0) == 0
    """)
    assert [(e.get("path"), e.get("mode")) for e in run.of("mkdir")] == [
        (here + b"/d1", 0o1750),
        (here + b"/d2", 0o1750),
        (here + b"/d3", 0o700),
    ]
    assert [(e.get("path"), e.get("directory")) for e in run.of("unlink")] == [
        (here + b"/d1", True),
        (here + b"/d2", True),
        (here + b"/f", False),
    ]


def test_links_have_both_ends(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        assert syscall(86, buf(b"f"), buf(b"hard")) == 0
        assert syscall(265, -100, buf(b"f"), -100, buf(b"hard2"), 0x400) == 0
        assert syscall(88, buf(b"../somewhere"), buf(b"soft")) == 0
        assert syscall(266, buf(b"/etc/shadow"), -100, buf(b"soft2")) == 0
    """)
    assert [(e.get("path"), e.get("newpath")) for e in run.of("link")] == [
        (here + b"/f", here + b"/hard"),
        (here + b"/f", here + b"/hard2"),
    ]
    made = [(e.get("path"), e.get("target")) for e in run.of("symlink")]
    assert made == [(here + b"/soft", b"../somewhere"), (here + b"/soft2", b"/etc/shadow")]
    assert [os.readlink(path) for path, _ in made] == [target for _, target in made]  # type: ignore[type-var]


def test_truncate_by_name_and_by_descriptor(live: Live, here: bytes) -> None:
    run = live.python(f"""
        path = {here!r} + b"/f"
        assert syscall(76, buf(path), 3) == 0
        fd = os.open(path, os.O_WRONLY)
        assert syscall(77, fd, 1 << 33) == 0
    """)
    by_name, by_fd = run.of("truncate")
    assert (by_name.get("len"), by_fd.get("len")) == (3, 1 << 33) and os.path.getsize(here + b"/f") == 1 << 33
    assert by_name.get("path") == by_fd.get("path") == here + b"/f"
    assert by_fd.get("file.id") == kernel_id(here + b"/f")
    assert by_name.get("file.id") is None and Flag.PATH_UNRESOLVED in by_name.flags
    assert by_fd.get("rawpath") is None and Flag.PATH_UNRESOLVED not in by_fd.flags


def test_mknod_has_kind_and_device(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        assert syscall(133, buf(b"pipe"), 0o010600, 0) == 0
        print(syscall(259, -100, buf(b"null"), 0o020600, 0x103))
    """)
    pipe, device = run.of("mknod")
    assert (pipe.get("path"), pipe.get("mode")) == (here + b"/pipe", stat.S_IFIFO | 0o600)
    assert (device.get("mode"), device.get("dev")) == (stat.S_IFCHR | 0o600, 0x103)
    assert device.get("ret") == int(run.stdout)


def test_chown_in_every_form(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        fd = os.open("f", os.O_RDONLY)
        assert syscall(92, buf(b"f"), 11, -1) == 0
        assert syscall(93, fd, 12, 13) == 0
        assert syscall(94, buf(b"f"), -1, 14) == 0
        assert syscall(260, fd, buf(b""), 15, 16, 0x1000) == 0
        print(os.stat("f").st_uid, os.stat("f").st_gid)
    """)
    events = run.of("chown")
    assert [(e.get("new.uid"), e.get("new.gid")) for e in events] == [(11, None), (12, 13), (None, 14), (15, 16)]
    assert {e.get("path") for e in events} == {here + b"/f"}
    assert run.stdout.split() == ["15", "16"]
    ids = [e.get("file.id") for e in events]
    assert ids[1] == ids[3] is not None and ids[0] is ids[2] is None


def test_chmod_by_name_begins_where_the_caller_is(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        fd = os.open("f", os.O_RDONLY)
        assert syscall(90, buf(b"f"), 0o4711) == syscall(91, fd, 0o600) == syscall(268, -100, buf(b"f"), 0o640) == 0
    """)
    events = run.of("chmod")
    assert [(e.get("path"), e.get("mode")) for e in events] == [(here + b"/f", m) for m in (0o4711, 0o600, 0o640)]
    assert [Flag.PATH_UNRESOLVED in e.flags for e in events] == [True, False, True]


def test_attributes_that_are_set_and_removed(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        fd = os.open("f", os.O_RDONLY)
        syscall(188, buf(b"f"), buf(b"user.a"), buf(b"1"), 1, 0)
        syscall(189, buf(b"f"), buf(b"user.b"), buf(b"1"), 1, 0)
        syscall(190, fd, buf(b"user.c"), buf(b"1"), 1, 0)
        syscall(199, fd, buf(b"user.c"))
        syscall(197, buf(b"f"), buf(b"user.a"))
    """)
    assert [(e.get("attr"), e.get("removed")) for e in run.of("setxattr")] == [
        (b"user.a", False),
        (b"user.b", False),
        (b"user.c", False),
        (b"user.c", True),
        (b"user.a", True),
    ]
    assert {e.get("path") for e in run.of("setxattr")} == {here + b"/f"}


def test_times_that_are_set(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chdir({here!r})
        fd = os.open("f", os.O_RDONLY)
        times = buf(struct.pack("4q", 1, 0, 2, 0))
        assert syscall(132, buf(b"f"), 0) == syscall(235, buf(b"f"), 0) == syscall(261, -100, buf(b"f"), 0) == 0
        assert syscall(280, -100, buf(b"f"), times, 0) == syscall(280, fd, 0, times, 0) == 0
        print(int(os.stat("f").st_mtime))
    """)
    events = run.of("utimes")
    assert run.stdout.strip() == "2" and len(events) == 5
    assert {e.get("path") for e in events} == {here + b"/f"}
    assert events[4].get("file.id") is not None and Flag.PATH_UNRESOLVED not in events[4].flags


def test_names_begin_at_the_root_of_a_chroot_and_are_those_outside(live: Live, here: bytes) -> None:
    run = live.python(f"""
        os.chroot({here!r}); os.chdir("/")
        assert syscall(83, buf(b"/inside"), 0o700) == 0
        assert syscall(83, buf(b"/../../inside2"), 0o700) == 0
    """)
    assert [e.get("path") for e in run.of("mkdir")] == [here + b"/inside", here + b"/inside2"]


def test_a_name_that_cannot_be_read_is_unknown(live: Live) -> None:
    event = live.python("assert syscall(87, 1) == -14").one("unlink")
    assert (event.get("path"), event.get("rawpath"), event.get("ret")) == (None, None, -E["EFAULT"])
    assert Flag.UNREADABLE in event.flags


def test_a_bad_descriptor_leaves_the_path_unknown(live: Live) -> None:
    event = live.python("assert syscall(263, 777, buf(b'f'), 0) == -9").one("unlink")
    assert (event.get("path"), event.get("rawpath"), event.get("ret")) == (None, b"f", -E["EBADF"])
