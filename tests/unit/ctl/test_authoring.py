"""`policy new|fmt|explain|graph|events`: what an author gets without a daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from execray.ctl.main import main
from execray.schema.catalog import EVENTS
from policyd.compiler import compile_source
from policyd.compiler.format import format_source

STORY = """
path "leak" within 90s {
    meta { severity: high  attack: ["T1048"]  description: "Reads, then sends." }
    response enforce
    open { path = "/etc/shadow" } as secret
    write { content contains "root" } ? block "shell" { exec { } within 2s } : connect { } ..
    on step secret { capture for 10s }
    on match if secret.uid != 0 { alert critical; kill }
}
path "one" { exec { uid = 0 } }
"""


@pytest.fixture
def story_file(tmp_path: Path) -> Path:
    file = tmp_path / "a.policy"
    file.write_text(STORY)
    return file


def run(*args: object, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["policy", *map(str, args)], input=text)


def found(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_new_prints_a_policy_that_compiles_without_a_warning() -> None:
    compiled = compile_source(run("new", "my_own.policy-1").stdout, "f")
    assert compiled.ok and [policy.name for policy in compiled.policies] == ["my_own.policy-1"]
    assert not compiled.diagnostics
    assert compile_source(found("new", "x")["text"], "f").ok


def test_new_prints_it_as_fmt_would() -> None:
    text = run("new", "mine").stdout
    assert format_source(text.encode(), "f") == text


@pytest.mark.parametrize("name", ["", "1st", 'a"b', "a b", "x" * 101])
def test_new_refuses_a_name_that_could_not_stand_in_a_policy(name: str) -> None:
    result = run("new", name)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")


def test_explain_tells_what_starts_advances_and_ends_a_policy(story_file: Path) -> None:
    leak, one = found("explain", story_file)["policies"]
    assert leak["starts"][:2] == ["`secret` is met", ' open { path = "/etc/shadow" } as secret']
    assert any("choice 1: step 2 is met; that leads to place" in line for line in leak["advances"])
    assert any("at most 2s after the step before it (in shell); that leads to the match" in x for x in leak["advances"])
    assert leak["ends"] == ["90s after its first event", "2s after its process has ended"]
    assert leak["does"][0] == "when `secret` is met: capture its network traffic for 10s, at most 1024 KiB"
    assert "on a match and the handler's `if` holds: alert critical, kill the process behind the event" in leak["does"]
    assert leak["does"][-1] == "response enforce: it kills where the host's mode is enforce too"
    assert "ends" not in one and one["starts"][0] == "step 1 is met, and that alone completes it"
    shown = run("explain", story_file).stdout
    assert shown.startswith("leak\n  About      high, ATT&CK T1048\n             Reads, then sends.\n")
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_explain_tells_a_code_with_its_examples() -> None:
    told = found("explain", "er0304")
    assert told["code"] == "ER0304" and compile_source(told["right"], "f").ok
    assert not compile_source(told["wrong"], "f").ok
    assert run("explain", "ER0304").stdout.startswith("error[ER0304]: ")
    assert run("explain", "ER9999").exit_code == 1


@pytest.mark.parametrize("command", ["explain", "graph"])
def test_a_file_with_a_mistake_is_shown_and_fails(tmp_path: Path, command: str) -> None:
    file = tmp_path / "bad.policy"
    file.write_text('path "p" { opn { } }')
    result = run(command, file)
    assert result.exit_code == 1 and "opn" in result.stderr and not result.stdout
    as_json = run(command, file, "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["ok"] is False


def test_graph_writes_each_format_of_the_chosen_policy(story_file: Path, tmp_path: Path) -> None:
    for form, start in (("svg", "<svg "), ("mermaid", "flowchart TD"), ("dot", "digraph ")):
        out = tmp_path / form
        assert run("graph", story_file, "--policy", "leak", "--format", form, "-o", out).stdout == ""
        assert out.read_text().startswith(start)
    assert run("graph", story_file, "--policy", "one").stdout.startswith("<svg ")
    for args in ([], ["--policy", "none"]):
        result = run("graph", story_file, *args)
        assert result.exit_code == 1 and "choose one with --policy: leak, one" in result.stderr
    assert run("graph", story_file, "--policy", "one", "-o", tmp_path / "no" / "x").exit_code == 1


def test_events_lists_the_whole_catalogue() -> None:
    listed = found("events")
    assert [event["name"] for event in listed["events"]] == [event.name for event in EVENTS]
    shown = run("events").stdout
    for event in EVENTS:
        assert f"\n{event.name} " in shown
        fields = run("events", event.name).stdout
        assert all(f"\n{field.name} " in fields for field in event.fields)
        assert [field["name"] for field in found("events", event.name)["fields"]] == [f.name for f in event.fields]
    assert run("events", "opn").exit_code == 1


def test_every_command_shows_three_examples() -> None:
    for command in ("new", "fmt", "explain", "graph", "events"):
        assert run(command, "--help").stdout.count("  execray-ctl policy ") >= 3


def test_fmt_rewrites_in_place_and_checks_without_a_change(tmp_path: Path) -> None:
    file, neat = tmp_path / "a.policy", tmp_path / "neat.policy"
    file.write_text('path  "p"{exec{uid=0}}\n')
    neat.write_text('path "p" { exec { uid = 0 } }\n')
    file.chmod(0o640)
    checked = run("fmt", "--check", file, neat)
    assert (checked.exit_code, checked.stdout) == (1, f"would change {file}\n")
    assert found("fmt", file, neat) == {"ok": True, "changed": [str(file)]}
    assert file.read_text() == neat.read_text() and file.stat().st_mode & 0o777 == 0o640
    assert run("fmt", "--check", tmp_path).exit_code == 0 and not run("fmt", tmp_path).stdout
    assert run("fmt", "-", text='path  "p"{exec{uid=0}}').stdout == neat.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.policy", "neat.policy"]


def test_fmt_leaves_a_file_with_a_mistake_alone(tmp_path: Path) -> None:
    file = tmp_path / "bad.policy"
    file.write_text('path  "p" { exec { uid = } ')
    result = run("fmt", file)
    assert result.exit_code == 1 and "error[" in result.stderr and file.read_text() == 'path  "p" { exec { uid = } '
    as_json = run("fmt", file, "--json")
    assert as_json.exit_code == 1 and json.loads(as_json.stdout)["ok"] is False
