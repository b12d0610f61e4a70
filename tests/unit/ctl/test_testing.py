"""`policy test|whynot` and `replay`, as they are typed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from click.testing import CliRunner, Result

from execray.ctl.main import main

ROOT = Path(__file__).parents[3]
EVENTS = """\
{"event":"open","id":1,"time_ns":1000000000,"pid":7,"exe":"/tmp/thief","uid":0,"path":"/etc/shadow","flags":0,"ret":3}
{"event":"connect","id":5,"time_ns":3000000000,"pid":7,"exe":"/tmp/thief","family":2,"dst.ip":"192.0.2.1","ret":0,"x":1}
{"event":"lost","id":6,"time_ns":4000000000,"where":"ring","count":3,"since_ns":1}
"""


def run(*args: object, text: str | None = None) -> Result:
    return CliRunner().invoke(main, [*map(str, args)], input=text)


def test_vectors_of_the_shipped_policies_pass_and_reach_all_of_them(tmp_path: Path) -> None:
    junit = tmp_path / "j.xml"
    result = run("policy", "test", ROOT / "policies", "--junit", junit, "--min-coverage", 100)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("all passed; 100 % of the policies reached\n") and junit.read_text().startswith(
        "<?xml"
    )
    as_json = json.loads(run("policy", "test", ROOT / "policies", "--json").stdout)
    assert as_json["ok"] and as_json["coverage"] == 100 and not as_json["not_reached"]
    assert {file["file"] for file in as_json["files"]} == {str(p) for p in (ROOT / "policies").glob("*.test.yaml")}


def test_low_coverage_and_failures_are_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "p.policy").write_text('path "p" { exec { } exit { } }')
    vectors = tmp_path / "p.test.yaml"
    vectors.write_text("processes: {a: {}}\ntests:\n  - {name: t, events: [{exec: a}], expect: []}\n")
    assert run("policy", "test", tmp_path).exit_code == 0
    low = run("policy", "test", tmp_path, "--min-coverage", 90)
    assert low.exit_code == 1 and "not reached  p: step 2 (line 1): exit { }" in low.stdout
    vectors.write_text(vectors.read_text().replace("[]", "[{policy: p, at: 1}]"))
    failed = run("policy", "test", tmp_path)
    assert failed.exit_code == 1 and "expected `p` at event 1: it did not come" in failed.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run("policy", "test", empty).exit_code == 1


def test_replay_prints_matches_notes_and_losses(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl.gz"
    file.write_bytes(gzip.compress(EVENTS.encode()))
    shown = run("replay", file, "--policies", ROOT / "policies")
    assert shown.exit_code == 0 and "credential_access would kill  /tmp/thief[7]  events 1, 5" in shown.stdout
    assert shown.stdout.endswith("matches: 1, alerts: 1\n")
    assert "`connect` has no field `x`" in shown.stderr and "note: 3 events are missing" in shown.stderr
    lines = run("replay", "-", "--policies", ROOT / "policies", "--json", text=EVENTS).stdout.splitlines()
    assert [json.loads(line)["steps"] for line in lines] == [[[1], [5]]]
    other = ROOT / "policies" / "dropper.policy"
    against = run("replay", file, "--policies", ROOT / "policies", "--against", other)
    assert against.stdout.startswith("- ") and against.stdout.endswith("1 no longer, 0 new\n")
    changed = json.loads(run("replay", file, "--policies", ROOT / "policies", "--against", other, "--json").stdout)
    assert (changed["new"], changed["does"], changed["policy"]) == (False, "would kill", "credential_access")


def test_replay_of_a_broken_file_is_one_line_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text(EVENTS.replace('"id":5', '"id":1'))
    result = run("replay", file, "--policies", ROOT / "policies")
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {file}:2: `id` is 1, after 1\nhint: ")


def test_whynot_names_the_failed_condition_and_the_value(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_text(EVENTS)
    result = run("policy", "whynot", ROOT / "policies" / "dropper.policy", "--policy", "dropper", "--events", file)
    assert result.exit_code == 0 and "path startswith any SCRATCH   [path is /etc/shadow]" in result.stdout
    found = json.loads(
        run("policy", "whynot", ROOT / "policies" / "credential_access.policy", "--events", file, "--json").stdout
    )
    assert found["matches"] == 1 and [step["met"] for step in found["steps"]] == [True, True]
    assert run("policy", "whynot", ROOT / "policies" / "dropper.policy", "--events", file).exit_code == 1
