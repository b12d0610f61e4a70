"""The command's words and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from enforcer.cli import main
from execray.version import VERSION


def test_version_and_help() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"enforcer, version {VERSION}\n"
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0 and "--mode [audit|enforce]" in shown.output


@pytest.mark.parametrize("arguments", [["--mode", "kill"], ["--no-such"], ["surplus"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_operator_errors_are_two_lines_and_exit_code_1(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["--config", str(tmp_path / "missing.yaml")])
    assert shown.exit_code == 1
    assert shown.output == f"error: can't read {tmp_path}/missing.yaml: No such file or directory\nhint: name another file with --config\n"  # fmt: skip  # noqa: E501
    (tmp_path / "bad.yaml").write_text("enforcer: {kills_per_minute: many}")
    shown = CliRunner().invoke(main, ["--config", str(tmp_path / "bad.yaml")])
    assert shown.exit_code == 1 and "`enforcer.kills_per_minute` must be a whole number" in shown.output
