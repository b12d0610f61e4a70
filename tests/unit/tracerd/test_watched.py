"""Paths to identities: what is taken, what isn't and why, and a filesystem that doesn't answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tracerd import fileid, watched
from tracerd.fileid import Unresolved, identity
from tracerd.mounts import MountTable, parse_mounts
from tracerd.names import Names
from tracerd.watched import PathWatch, Resolver

INFO = rb"""21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:27 / /dev/shm rw,nosuid - tmpfs tmpfs rw
31 21 0:40 / /mnt/far\040away rw shared:7 master:1 - nfs4 host:/x rw
32 21 0:41 / /mnt rw - btrfs /dev/vdb rw
33 21 0:42 / /mnt rw - xfs /dev/vdc rw
not a mount
"""


@pytest.fixture
def mounts() -> Iterator[MountTable]:
    table = MountTable()
    table.refresh()
    yield table
    table.close()


@pytest.fixture
def file(tmp_path: Path) -> bytes:
    """A file on a filesystem that has identities."""
    path = tmp_path / "file"
    path.write_text("x")
    return os.fsencode(path.resolve())


def why(path: bytes | Path, mounts: MountTable, *, linked: bool = True) -> str:
    with pytest.raises(Unresolved) as caught:
        identity(os.fsencode(path), mounts, linked=linked)
    return str(caught.value)


def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_of_several_mounts_in_one_place_the_topmost_counts() -> None:
    found = parse_mounts(INFO.splitlines())
    assert found[b"/mnt"] == ((0, 42), "xfs")
    assert found[b"/mnt/far away"].kind == "nfs4"
    assert len(found) == 4


@pytest.mark.parametrize(
    ("path", "kind"),
    [(b"/", "ext4"), (b"/a/b", "ext4"), (b"/dev/shm", "tmpfs"), (b"/dev/shmx", "ext4"), (b"/mnt/far away/x", "nfs4")],
)
def test_a_path_lies_on_the_nearest_mount_above_it(path: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracerd.mounts.parse_mounts", lambda lines: parse_mounts(INFO.splitlines()))
    table = MountTable()
    table.refresh()
    table.close()
    assert table.kind_at(path) == kind
    assert table.kind_of((0, 40)) == "nfs4" and table.kind_of((9, 9)) == ""


def test_an_identity_has_the_device_the_inode_and_a_generation(file: bytes, mounts: MountTable) -> None:
    found = os.stat(file)
    major, minor, inode, generation = map(int, identity(file, mounts, linked=True).split(b":"))
    assert (os.makedev(major, minor), inode) == (found.st_dev, found.st_ino) and generation != 0


def test_a_file_of_the_same_name_is_another(file: bytes, mounts: MountTable) -> None:
    before = identity(file, mounts, linked=True)
    os.unlink(file)
    Path(os.fsdecode(file)).touch()
    assert identity(file, mounts, linked=True) != before


def test_a_hard_link_has_the_identity_of_its_file(file: bytes, mounts: MountTable) -> None:
    os.link(file, file + b"2")
    assert identity(file, mounts, linked=True) == identity(file + b"2", mounts, linked=True)


def test_where_links_are_not_protected_a_file_with_other_names_has_none(file: bytes, mounts: MountTable) -> None:
    assert identity(file, mounts, linked=False)
    os.link(file, file + b"2")
    assert "fs.protected_hardlinks" in why(file, mounts, linked=False)


def test_a_symbolic_link_has_none_wherever_it_stands(tmp_path: Path, file: bytes, mounts: MountTable) -> None:
    (tmp_path / "link").symlink_to(os.fsdecode(file))
    (tmp_path / "folder").symlink_to(tmp_path)
    assert "symbolic link" in why(tmp_path / "link", mounts)
    assert "symbolic link" in why(tmp_path / "folder" / "file", mounts)


def test_what_is_not_there_or_on_proc_has_none(tmp_path: Path, file: bytes, mounts: MountTable) -> None:
    assert why(tmp_path / "nothing", mounts).startswith("not there")
    assert why(file + b"/below", mounts).startswith("not there")
    assert why(b"/proc/self/status", mounts).startswith("on proc")


def test_a_handle_that_is_not_of_the_file_gives_no_identity(
    file: bytes, mounts: MountTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = mounts.kind_at(file)
    other = {form: (lambda handle: (1, 7)) for form in fileid.FORMS[kind]}
    monkeypatch.setitem(fileid.FORMS, kind, other)
    assert "form" in why(file, mounts)
    monkeypatch.setitem(fileid.FORMS, kind, {})
    assert "form" in why(file, mounts)


def test_a_file_without_generation_has_no_identity(
    file: bytes, mounts: MountTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, inode = mounts.kind_at(file), os.stat(file).st_ino
    monkeypatch.setitem(fileid.FORMS, kind, dict.fromkeys(fileid.FORMS[kind], lambda handle: (inode, 0)))
    assert "generation" in why(file, mounts)


def test_a_round_says_what_each_file_is_called_and_why_others_are_not(file: bytes) -> None:
    os.link(file, file + b"2")
    resolver = Resolver()
    names = resolver.round((file, b"/proc/1/status", file + b"2"))
    assert sorted(names.values()) == [(file, file + b"2")]
    assert list(resolver.missing) == [b"/proc/1/status"]
    resolver.close()


def test_a_path_is_resolved_anew_when_it_changed_and_every_so_often(
    file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[bytes] = []

    def look(path: bytes, mounts: MountTable, *, linked: bool) -> bytes:
        looked.append(path)
        return b"0:0:1:%d" % len(looked)

    monkeypatch.setattr(watched, "identity", look)
    resolver = Resolver()
    for _ in range(watched.ROUNDS):
        resolver.round((file,))
    assert len(looked) == 2  # the first time, and once in so many rounds
    os.chmod(file, 0o600)
    resolver.round((file,))
    resolver.round((file,))
    assert len(looked) == 3
    resolver.close()


class Rig:
    def __init__(self) -> None:
        self.names: Names = {}
        self.watch = PathWatch(self.publish)
        self.watch.start()

    def publish(self, names: Names) -> None:
        self.names = names

    def called(self, path: bytes) -> bool:
        return any(path in names for names in self.names.values())


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.watch.stop()
    rig.watch.join(10)
    assert not rig.watch.is_alive()


def test_a_replaced_file_is_known_within_a_second_or_at_once_when_told(rig: Rig, file: bytes) -> None:
    rig.watch.watch((file,))
    until(lambda: rig.called(file))
    before = rig.names
    new = Path(os.fsdecode(file + b".new"))
    new.write_text("y")
    new.rename(os.fsdecode(file))
    rig.watch.wake()
    until(lambda: rig.names != before and rig.called(file))
    os.unlink(file)
    until(lambda: not rig.names)
    report = rig.watch.report()
    assert (report["watched"], report["resolved"], report["stuck_at"]) == (1, 0, "")
    assert list(report["unresolved"].values()) == [1] and report["changes"] >= 3
    assert rig.watch.unresolved()[0]["path"] == os.fsdecode(file)


def test_when_nothing_is_watched_any_more_nothing_is_named(rig: Rig, file: bytes) -> None:
    rig.watch.watch((file,))
    until(lambda: rig.called(file))
    rig.watch.watch(())
    until(lambda: not rig.names)
    assert rig.watch.report()["watched"] == 0


def test_a_filesystem_that_does_not_answer_is_told_of_and_hangs_nobody_else(
    rig: Rig, file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(watched, "STUCK_S", 0.05)
    monkeypatch.setattr(watched, "identity", lambda path, mounts, linked: answers.wait(20) and b"0:0:1:1")
    rig.watch.watch((file,))
    until(lambda: rig.watch.report()["stuck_at"] == os.fsdecode(file))
    assert rig.watch.report()["timeouts"] == 1
    answers.set()
    until(lambda: rig.called(file))
    assert rig.watch.report()["stuck_at"] == "" and rig.watch.report()["timeouts"] == 1
