"""What lies on the way to a file decides as much as the file: a folder above it, or a link, may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execray.trust import distrust_way

OWNERS = frozenset({0, os.geteuid()})
STRANGER = 54321
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file two folders down, all of them ours."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for made in (tmp_path, folder.parent, folder):
        made.chmod(0o755)
    found = folder / "x.policy"
    found.write_text("")
    found.chmod(0o644)
    return found


def test_a_way_of_our_own_is_trusted(file: Path) -> None:
    assert distrust_way(file, OWNERS) is None
    assert distrust_way(file.parent, OWNERS) is None


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_what_others_may_write_is_named_wherever_it_is(file: Path, levels: int, mode: int) -> None:
    bad = [file, *file.parents][levels]
    bad.chmod(mode)
    found = distrust_way(file, OWNERS)
    assert found is not None and found[0] == bad
    assert "written by others" in found[1] and str(bad) in found[2]


@root_only
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_what_is_somebody_elses_is_named_wherever_it_is(file: Path, levels: int) -> None:
    bad = [file, *file.parents][levels]
    os.chown(bad, STRANGER, -1)
    found = distrust_way(file, OWNERS)
    assert found is not None and found[0] == bad and f"uid {STRANGER}" in found[1]


@root_only
def test_a_folder_that_a_group_may_write_is_refused_unless_it_is_roots(file: Path) -> None:
    os.chown(file.parent, -1, STRANGER)
    file.parent.chmod(0o775)
    assert distrust_way(file, OWNERS) is not None
    os.chown(file.parent, -1, 0)
    assert distrust_way(file, OWNERS) is None


def test_a_sticky_folder_may_be_passed_through_but_not_be_the_end(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert distrust_way(file, OWNERS) is None
    found = distrust_way(file.parent, OWNERS)
    assert found is not None and found[0] == file.parent


@root_only
def test_somebody_elses_file_in_a_sticky_folder_is_refused(file: Path) -> None:
    file.parent.chmod(0o1777)
    os.chown(file, STRANGER, -1)
    assert distrust_way(file, OWNERS) is not None


def test_a_link_is_followed_and_what_it_leads_through_is_looked_at(file: Path, tmp_path: Path) -> None:
    absolute, relative = tmp_path / "absolute", tmp_path / "relative"
    absolute.symlink_to(file)
    relative.symlink_to("a/../a/b/x.policy")
    for link in (absolute, relative):
        assert distrust_way(link, OWNERS) is None
    file.parent.chmod(0o777)
    for link in (absolute, relative):
        found = distrust_way(link, OWNERS)
        assert found is not None and found[0] == file.parent


def test_a_linked_folder_on_the_way_is_looked_at(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.parent.parent)
    way = tmp_path / "link" / "b" / "x.policy"
    assert distrust_way(way, OWNERS) is None
    file.parent.parent.chmod(0o777)
    found = distrust_way(way, OWNERS)
    assert found is not None and found[0] == file.parent.parent


@root_only
def test_somebody_elses_link_is_refused_although_it_leads_to_a_file_of_ours(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    found = distrust_way(link, OWNERS)
    assert found is not None and found[0] == link and "a link of uid" in found[1]


def test_links_in_a_circle_and_a_missing_end_are_errors(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(OSError, match="symbolic links"):
        distrust_way(tmp_path / "one", OWNERS)
    with pytest.raises(FileNotFoundError):
        distrust_way(tmp_path / "none", OWNERS)
