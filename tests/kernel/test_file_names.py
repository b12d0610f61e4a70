"""`file.names`: events say which paths of policies a file stands for, by whatever name it is reached."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.schema.event import Event
from tests.support.live import Live, Run
from tracerd.watched import Resolver

EVENTS = ["open", "chmod", "truncate", "dup", "rename"]
UNSEEN = True


@pytest.fixture(params=["ext4", "tmpfs", "xfs"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty filesystem of each type whose files have identities."""
    where = tmp_path.resolve() / "fs"
    where.mkdir()
    if request.param == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "none", where], check=True)
    else:
        made = _make(request.param, tmp_path / "image")
        if made:
            pytest.skip(made)
        subprocess.run(["mount", "-o", "loop", tmp_path / "image", where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def _make(kind: str, image: Path) -> str:
    """Makes a filesystem in a file; returns why not, where that can't be."""
    with image.open("wb") as file:
        file.truncate(320 << 20 if kind == "xfs" else 16 << 20)
    try:
        subprocess.run([f"/usr/sbin/mkfs.{kind}", "-q", image], check=True, capture_output=True)
    except FileNotFoundError:
        return f"mkfs.{kind} isn't installed"
    return ""


@pytest.fixture
def secret(folder: Path, live: Live) -> Iterator[Path]:
    """A file that is watched."""
    path = folder / "secret"
    path.write_text("root:x")
    with _watching(live, path):
        yield path


class _watching:  # a context, used like a function
    def __init__(self, live: Live, *paths: Path) -> None:
        self._live, self._paths = live, tuple(map(os.fsencode, paths))
        self._resolver = Resolver()

    def __enter__(self) -> _watching:
        self.look()
        return self

    def look(self) -> None:
        """What the sensor's thread does each second."""
        self._live.decoder.names = self._resolver.round(self._paths)

    def __exit__(self, *_: object) -> None:
        self._live.decoder.names = {}
        self._resolver.close()


def opened(run: Run, path: Path) -> Event:
    """The last open of a path that succeeded."""
    return [event for event in run.of("open") if event.get("path") == os.fsencode(path)][-1]


READ = "import os, sys; os.close(os.open(sys.argv[1], 0))"


def read(live: Live, path: Path) -> Run:
    run = live.run(["/usr/bin/python3", "-ISc", READ, path])
    assert run.status == 0, run.stderr
    return run


def test_a_file_is_named_by_its_own_path(live: Live, secret: Path) -> None:
    event = opened(read(live, secret), secret)
    assert event.get("file.names") == (os.fsencode(secret),)


def test_a_hard_link_that_has_long_been_there_is_the_file(live: Live, folder: Path) -> None:
    secret, link = folder / "secret", folder / "notes.txt"
    secret.write_text("root:x")
    link.hardlink_to(secret)
    with _watching(live, secret):
        run = read(live, link)
    assert opened(run, link).get("file.names") == (os.fsencode(secret),)


def test_a_bind_mount_shows_the_file(live: Live, secret: Path, tmp_path: Path) -> None:
    other = tmp_path.resolve() / "other"
    other.touch()
    subprocess.run(["mount", "--bind", secret, other], check=True)
    try:
        event = opened(read(live, other), other)
    finally:
        subprocess.run(["umount", "-l", other], check=True)
    assert event.get("file.names") == (os.fsencode(secret),)


def test_in_another_mount_namespace_and_root_it_is_the_file(live: Live, secret: Path, tmp_path: Path) -> None:
    code = """
        assert syscall(272, 0x20000) == 0  # unshare: mounts
        libc.mount(b"none", b"/", None, 0x44000, None)  # private, all the way down
        assert libc.mount(sys.argv[1].encode(), sys.argv[2].encode(), None, 0x1000, None) == 0
        os.chroot(sys.argv[2])
        os.close(os.open("/secret", 0))
    """
    jail = tmp_path.resolve() / "jail"
    jail.mkdir()
    run = live.python(code, secret.parent, jail)
    assert run.status == 0, run.stderr
    assert opened(run, jail / "secret").get("file.names") == (os.fsencode(secret),)


def test_a_descriptor_from_before_is_of_the_file(live: Live, secret: Path, folder: Path) -> None:
    """Also once the name that it was opened by is gone."""
    link = folder / "link"
    link.hardlink_to(secret)
    with link.open("r+b", buffering=0) as held:
        link.unlink()
        code = """
            fd = int(sys.argv[1])
            os.fchmod(fd, 0o600); os.ftruncate(fd, 3); os.dup2(fd, 99); os.close(os.open(f"/proc/self/fd/{fd}", 0))
        """
        os.set_inheritable(held.fileno(), True)
        run = _python_with(live, code, held.fileno())
    for name in ("chmod", "truncate", "dup", "open"):
        named = [event for event in run.of(name) if event.get("file.names") == (os.fsencode(secret),)]
        assert named, name


def _python_with(live: Live, code: str, fd: int) -> Run:
    """As Live.python, for a child that inherits a descriptor."""
    original = subprocess.Popen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda argv, **kw: original(argv, pass_fds=(fd,), **kw))
        return live.python(code, fd)


def test_the_file_that_replaces_it_is_meant_from_then_on(live: Live, folder: Path) -> None:
    secret, old, new = folder / "secret", folder / "old", folder / "new"
    secret.write_text("root:x")
    old.hardlink_to(secret)
    with _watching(live, secret) as watch:
        new.write_text("root:y")
        (folder / "also").hardlink_to(new)
        new.rename(secret)  # as passwd(1) does
        watch.look()
        after = read(live, folder / "also"), read(live, old)
    assert opened(after[0], folder / "also").get("file.names") == (os.fsencode(secret),)
    assert opened(after[1], old).get("file.names") is None


def test_another_file_under_its_inode_number_is_not_the_file(live: Live, folder: Path) -> None:
    """Nobody has looked since: what is known is the identity of the file that is gone."""
    secret = folder / "secret"
    secret.touch()
    number = secret.stat().st_ino
    with _watching(live, secret):
        secret.unlink()
        for attempt in range(2000):
            other = folder / f"other{attempt}"
            other.touch()
            if other.stat().st_ino == number:
                break
            if attempt % 2:
                other.unlink()
        else:
            pytest.skip("this filesystem doesn't use the number again")
        event = opened(read(live, other), other)
    assert event.get("file.names") is None
    assert isinstance(ident := event.get("file.id"), bytes) and ident.split(b":")[2] == b"%d" % number


def test_the_identity_is_the_one_that_events_have(live: Live, secret: Path) -> None:
    event = opened(read(live, secret), secret)
    assert isinstance(ident := event.get("file.id"), bytes)
    assert live.decoder.names == {ident: (os.fsencode(secret),)}


def test_an_event_that_gives_a_watched_name_away_is_told_at_once(live: Live, secret: Path, folder: Path) -> None:
    told: list[None] = []
    live.decoder.watch_names([os.fsencode(secret)], lambda: told.append(None))
    try:
        (folder / "new").touch()
        (folder / "aside").touch()
        live.python("os.rename(sys.argv[1], sys.argv[2])", folder / "aside", folder / "elsewhere")
        assert not told
        live.python("os.rename(sys.argv[1], sys.argv[2])", folder / "new", secret)
        assert told
    finally:
        live.decoder.watch_names([], lambda: None)
