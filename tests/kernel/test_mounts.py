"""Mounts, roots and namespaces: each in a mount namespace of the child's own, so that the host's stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, Run

EVENTS = ["mount", "umount", "chroot", "pivot_root", "setns", "unshare"]
E = CONSTANTS["E"]
MS = CONSTANTS["MS_"]
CLONE = CONSTANTS["CLONE_"]


def alone(live: Live, folder: Path, code: str) -> Run:
    """Runs code in a mount namespace from which nothing gets out, in a folder."""
    begin = """
assert syscall(272, 0x00020000) == 0  # unshare(CLONE_NEWNS)
assert syscall(165, 0, buf(b"/"), 0, 0x4000 | 0x40000, 0) == 0  # MS_REC | MS_PRIVATE
os.chdir(sys.argv[1])
"""
    return live.python(begin + code, folder)


def test_mount_and_umount_are_those_of_mountinfo(live: Live, tmp_path: Path) -> None:
    (tmp_path / "on").mkdir()
    run = alone(
        live,
        tmp_path,
        """
assert syscall(165, buf(b"some-source"), buf(b"on"), buf(b"tmpfs"), 2 | 8, 0) == 0
print([line.split()[4] for line in open("/proc/self/mountinfo") if "some-source" in line][0])
assert syscall(165, buf(b"on"), buf(b"on"), 0, 4096, 0) == 0
assert syscall(166, buf(b"on"), 2) == 0
""",
    )
    on = os.fsencode(tmp_path / "on")
    first, bind = run.of("mount", path=on)
    assert (first.get("source"), first.get("fstype"), first.get("call")) == (b"some-source", b"tmpfs", b"mount")
    assert first.get("flags") == MS["MS_NOSUID"] | MS["MS_NOEXEC"] and os.fsencode(run.stdout.strip()) == on
    assert (bind.get("source"), bind.get("rawpath"), bind.get("flags")) == (b"on", b"on", MS["MS_BIND"])
    gone = run.one("umount")
    assert (gone.get("path"), gone.get("flags"), gone.get("ret")) == (on, CONSTANTS["MNT_"]["MNT_DETACH"], 0)


def test_a_tree_that_is_cloned_and_moved_is_a_mount(live: Live, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    run = alone(
        live,
        tmp_path,
        """
open("from/f", "w").close()
os.close(syscall(428, -100, buf(b"from"), 0))  # without OPEN_TREE_CLONE it only opens
tree = syscall(428, -100, buf(b"from"), 1)
assert tree >= 0
assert syscall(429, tree, buf(b""), -100, buf(b"to"), 4) == 0
assert os.path.exists("to/f")
""",
    )
    cloned, moved = run.of("mount")[1:]
    assert (cloned.get("call"), cloned.get("path")) == (b"open_tree", os.fsencode(tmp_path / "from"))
    assert (moved.get("call"), moved.get("path")) == (b"move_mount", os.fsencode(tmp_path / "to"))
    assert moved.get("source") == b"" and moved.get("fstype") is None and moved.get("ret") == 0


def test_chroot_tells_the_root_it_led_to(live: Live, tmp_path: Path) -> None:
    (tmp_path / "jail").mkdir()
    (tmp_path / "link").symlink_to("jail")
    run = alone(
        live,
        tmp_path,
        """
assert syscall(161, buf(b"nowhere")) == -2
assert syscall(161, buf(b"link")) == 0
""",
    )
    failed, done = run.of("chroot")
    assert (failed.get("path"), failed.get("rawpath"), failed.get("ret")) == (None, b"nowhere", -E["ENOENT"])
    assert (done.get("path"), done.get("rawpath")) == (os.fsencode(tmp_path / "jail"), b"link")
    assert Flag.PATH_UNRESOLVED not in done.flags


def test_pivot_root_has_both_names(live: Live, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    run = alone(
        live,
        tmp_path,
        """
assert syscall(165, buf(b"t"), buf(b"new"), buf(b"tmpfs"), 0, 0) == 0
os.mkdir("new/old")
print(syscall(155, buf(b"new"), buf(b"new/old")))
""",
    )
    event = run.one("pivot_root")
    assert (event.get("rawpath"), event.get("putold")) == (b"new", b"new/old")
    assert event.get("ret") == int(run.stdout)


def test_namespaces_that_are_made_and_entered(live: Live) -> None:
    run = live.python("""
        other = os.open("/proc/self/ns/net", os.O_RDONLY)
        assert syscall(272, 0x40000000 | 0x04000000) == 0
        print(os.fstat(other).st_ino, os.stat("/proc/self/ns/net").st_ino)
        assert syscall(308, other, 0x40000000) == 0
        assert syscall(308, -1, 0) == -9
    """)
    outside, inside = map(int, run.stdout.split())
    made = run.one("unshare")
    assert made.get("flags") == CLONE["CLONE_NEWNET"] | CLONE["CLONE_NEWUTS"] and made.get("ns.net") == inside
    back, failed = run.of("setns")
    assert (back.get("nstype"), back.get("ret"), back.get("ns.net")) == (CLONE["CLONE_NEWNET"], 0, outside)
    assert str(back.get("file.id")).endswith(f":{outside}:0'")
    assert (failed.get("fd"), failed.get("ret"), failed.get("file.id")) == (-1, -E["EBADF"], None)
