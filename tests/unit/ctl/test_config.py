"""`config check|show`: every value with where it came from, and no secret of a plug-in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from execray.config import load_layers
from execray.ctl.main import main


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with a drop-in; nothing in it that this host lacks."""
    folder = tmp_path / "policies"
    folder.mkdir()
    lines = ['group: ""', "mode: enforce", "enforcer: {orderers: [0]}", "tracerd: {subscribers: [0], registrants: [0]}"]
    return write(tmp_path / "etc" / "x.yaml", "\n".join([*lines, f"policyd: {{policy_dirs: [{folder}]}}\n"]))


def ctl(file: Path, *args: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(file), "config", *args])


def shown(file: Path, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ctl(file, "show", "--json", *args).stdout)
    return found


def test_each_value_comes_with_its_origin(file: Path) -> None:
    later = write(file.with_name("x.d") / "50.yaml", "mode: audit\n")
    found = shown(file)
    assert found["mode"] == {"value": "audit", "origin": f"{later}:1"}
    assert found["group"] == {"value": "", "origin": f"{file}:1"}
    assert found["log_level"] == {"value": "info", "origin": "default"}
    assert found["policyd.alert_throttle"]["value"] == [1, 60.0]
    assert set(found) == set(load_layers(file).origin)


def test_every_key_of_the_configuration_is_one_line(file: Path) -> None:
    lines = ctl(file, "show").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(load_layers(file).origin)
    (line,) = [line for line in lines if line.startswith("group ")]
    assert line.split() == ["group", '""', f"{file}:1"]


def test_only_what_changed(file: Path) -> None:
    assert set(shown(file, "--changed")) == {
        "group",
        "mode",
        "enforcer.orderers",
        "tracerd.subscribers",
        "tracerd.registrants",
        "policyd.policy_dirs",
    }
    assert ctl(write(file.with_name("y.yaml"), ""), "show", "--changed").stdout == "all defaults\n"


def test_settings_of_plugins_are_named_and_not_shown(file: Path) -> None:
    write(file.with_name("x.d") / "p.yaml", "policyd: {plugins: {hook: {token: s3cret, url: 'https://u:pw@h/'}}}\n")
    for result in (ctl(file, "show"), ctl(file, "show", "--json"), ctl(file, "show", "--changed")):
        assert "policyd.plugins.hook" in result.stdout and "token" in result.stdout
        assert "s3cret" not in result.output and "pw" not in result.output


def test_runtime_dir_of_the_command_line_is_an_origin_too(file: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(file), "--runtime-dir", "/run/x", "config", "show", "--json"])
    assert json.loads(result.stdout)["runtime_dir"] == {"value": "/run/x", "origin": "--runtime-dir"}


def test_check_of_a_good_one_names_its_files(file: Path) -> None:
    later = write(file.with_name("x.d") / "50.yaml", "log_level: debug\n")
    result = ctl(file, "check")
    assert result.exit_code == 0 and result.stdout.startswith("ok: values from ")
    found = json.loads(ctl(file, "check", "--json").stdout)
    assert found["ok"] is True and set(found["files"]) == {str(file), str(later)} and found["notes"] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mdoe: audit\n", "unknown key `mdoe`"),
        ("mode: kill\n", "`mode` is `kill`"),
        ("mode: [\n", "not valid YAML"),
    ],
)
def test_check_of_a_bad_one_says_where_and_ends_with_1(file: Path, text: str, words: str) -> None:
    bad = write(file.with_name("x.d") / "50.yaml", text)
    result = ctl(file, "check")
    assert result.exit_code == 1 and words in result.stderr and str(bad) in result.stderr
    assert json.loads(ctl(file, "check", "--json").stdout)["ok"] is False


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("enforcer: {orderers: [nobody-by-that-name]}", "`enforcer.orderers` names the account `nobody-by-that-name`"),
        ("group: no-such-group", "there is no group `no-such-group`"),
        ("policyd: {policy_dirs: [/nowhere]}", "`policyd.policy_dirs` names /nowhere"),
        ("protect_exe: [/no/such/exe]", "`protect_exe` names /no/such/exe"),
        ("policyd: {sinks: [file, syslog]}", "there is no alert sink `syslog`"),
        ("policyd: {actions: [page]}", "there is no action plug-in `page`"),
        ("enforcer: {kills_per_minute: 0}", "the mode is enforce, and the budget of kills is 0"),
    ],
)
def test_check_notes_what_is_perhaps_not_meant(file: Path, text: str, note: str) -> None:
    write(file.with_name("x.d") / "50.yaml", text + "\n")
    result = ctl(file, "check")
    assert result.exit_code == 0 and f"note: {note}" in result.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="says what only root can't notice by itself")
def test_check_notes_files_that_the_daemons_can_not_read_or_nobody_does(file: Path) -> None:
    closed = write(file.with_name("x.d") / "50.yaml", "# nothing\n")
    closed.chmod(0o600)
    write(file.with_name("x.d") / "60.yml", "mode: enforce\n")
    file.write_text("# all defaults\n")
    said = ctl(file, "check").stdout
    assert f"not everybody can read {closed}" in said and "60.yml is not read" in said
