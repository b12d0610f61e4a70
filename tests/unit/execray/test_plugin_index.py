"""What is installed is found by its entry points, and nothing is that others may have put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from execray.errors import OperatorError
from execray.plugin_index import find, installed
from execray.plugins import ACTIONS, SINKS
from tests.support.plugin_folder import install


def names(group: str, folder: Path) -> list[tuple[str, str]]:
    return [(plugin.name, plugin.package) for plugin in installed(group, folder)]


def test_entry_points_are_found_by_group_and_name(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"b": "one:b", "a": "one:a"}, ACTIONS: {"act": "one:act"}})
    install(folder, "two", "", {SINKS: {"c": "two:c"}, "other": {"d": "two:d"}}, "2.5")
    assert names(SINKS, folder) == [("a", "one 1.0"), ("b", "one 1.0"), ("c", "two 2.5")]
    assert names(ACTIONS, folder) == [("act", "one 1.0")]
    assert find(SINKS, "c", folder).entry.value == "two:c"


def test_nothing_of_a_plugin_is_loaded_to_find_it(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "boom", "raise SystemExit", {SINKS: {"boom": "boom:make"}})
    (folder / "boom.pth").write_text("import boom\n")
    (folder / "boom.pth").chmod(0o644)
    assert find(SINKS, "boom", folder).package == "boom 1.0"


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert names(SINKS, tmp_path / "nowhere") == []


def test_names_that_no_policy_could_say_are_left_out(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"Big": "one:a", "good-1": "one:a", "x" * 65: "one:a"}})
    assert names(SINKS, folder) == [("good-1", "one 1.0")]


def test_a_name_that_two_packages_have_is_refused(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"same": "one:a"}})
    install(folder, "two", "", {SINKS: {"same": "two:a"}})
    with pytest.raises(OperatorError, match=r"the alert sink `same` is in one 1\.0 and two 1\.0"):
        find(SINKS, "same", folder)


def test_of_one_package_in_two_places_the_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = install(tmp_path / "first", "one", "", {SINKS: {"a": "one:a"}}, "2.0")
    folder = install(tmp_path / "p", "One", "", {SINKS: {"a": "One:a"}})
    monkeypatch.syspath_prepend(str(first))
    assert find(SINKS, "a", folder).package == "one 2.0"


def test_a_package_without_metadata_is_passed_over(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"a": "one:a"}})
    broken = folder / "broken-1.0.dist-info"
    broken.mkdir(mode=0o755)
    (broken / "entry_points.txt").write_text("[execray.sinks\n=\n")
    assert names(SINKS, folder) == [("a", "one 1.0")]


@pytest.mark.parametrize("what", ["", "one.py", "one-1.0.dist-info", "one-1.0.dist-info/entry_points.txt"])
def test_what_others_may_write_to_is_refused(tmp_path: Path, what: str) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"a": "one:a"}})
    (folder / what).chmod(0o777)
    with pytest.raises(OperatorError, match="may be written by others"):
        find(SINKS, "a", folder)


def test_a_name_that_is_not_there_is_refused_with_what_is(tmp_path: Path) -> None:
    folder = install(tmp_path / "p", "one", "", {SINKS: {"a": "one:a"}})
    with pytest.raises(OperatorError, match="there is no alert sink `b`") as caught:
        find(SINKS, "b", folder, ("file",))
    assert caught.value.hint == "built in: file; installed: a (one 1.0)"
    with pytest.raises(OperatorError) as caught:
        find(ACTIONS, "b", tmp_path / "nowhere")
    assert caught.value.hint == "installed: none"
