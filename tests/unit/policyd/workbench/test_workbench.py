"""Vectors, replay, coverage and whynot, over the real compiler and engine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from execray.eventfile import EventFileError, EventReader, record_of
from policyd.compiler import compile_source
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.program import CompiledPolicy, Exemption, Op
from policyd.program import Test as FieldTest  # under its own name pytest would collect it
from policyd.workbench.coverage import Reached, observed
from policyd.workbench.replay import Replay, differences
from policyd.workbench.runner import junit, run_file
from policyd.workbench.vectors import VectorError, find_vectors, read_vectors
from policyd.workbench.whynot import explain
from tests.support.playbook import Play
from tests.support.programs import ref

POLICY = """
path "leak" within 1m {
    response enforce
    open { path = "/etc/shadow" access has READ } as secret
    connect { dst.port = 443 } ? write { fd = 3 } : block "out" { exec { } }
    on match { alert; kill }
}
"""
VECTORS = """
processes:
  sh: {exe: /bin/sh}
tests:
  - name: leaks
    events:
      - {open: sh, path: /etc/shadow, flags: O_RDONLY, ret: 3}
      - {at: 30s, connect: sh, dst.port: 443}
      - {write: sh, fd: 3}
    expect: [{policy: leak, at: 3, steps: [1, 2, 3]}]
  - name: too late
    events:
      - {open: sh, path: /etc/shadow, flags: O_RDONLY, ret: 3}
      - {at: 2m, connect: sh, dst.port: 443}
      - {write: sh, fd: 3}
    expect: []
"""


def compiled(text: str = POLICY) -> tuple[CompiledPolicy, ...]:
    found = compile_source(text, "f")
    assert found.ok, found.diagnostics
    return found.policies


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    (tmp_path / "leak.policy").write_text(POLICY)
    file = tmp_path / "leak.test.yaml"
    file.write_text(VECTORS)
    return file


def test_vectors_that_are_met_pass_and_say_what_was_not_reached(vectors: Path) -> None:
    result = run_file(vectors)
    assert not result.failed and [case.name for case in result.cases] == ["leaks", "too late"]
    (reached,) = result.reached
    assert list(reached.missing()) == ["step 4 in out (line 5): exec { }"]
    assert (reached.count, reached.total) == (4, 5)


def test_a_step_counts_as_reached_though_its_sequence_never_ends(vectors: Path) -> None:
    text = VECTORS.replace("- {write: sh, fd: 3}", "- {write: sh, fd: 4}")
    vectors.write_text(text.replace("[{policy: leak, at: 3, steps: [1, 2, 3]}]", "[]"))
    (reached,) = run_file(vectors).reached
    assert [what[:6] for what in reached.missing()] == ["step 3", "step 4", "no mat"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "[{policy: leak, at: 3, steps: [1, 2, 3]}]",
            "[]",
            "`leak` matched at event 3 through 1, 2, 3: nobody expected it",
        ),
        ("at: 3, steps: [1, 2, 3]", "at: 2", "expected `leak` at event 2: it did not come"),
        ("[1, 2, 3]", "[1, 3]", "expected `leak` at event 3 through 1, 3: it did not come"),
        (
            "at: 3, steps: [1, 2, 3]",
            "at: 3, suppressed: throttle",
            "expected `leak` at event 3, suppressed by throttle: it",
        ),
    ],
)
def test_a_vector_that_is_not_met_says_how(vectors: Path, old: str, new: str, problem: str) -> None:
    vectors.write_text(VECTORS.replace(old, new))
    result = run_file(vectors)
    assert result.failed == 1 and result.cases[0].problems[0].startswith(problem)
    suite = ElementTree.fromstring(junit([result])).find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures")) == ("2", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None and str(failure.text).startswith(problem)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{write: sh, fd: 3}", "{write: bash, fd: 3}", "event 3: no process is called 'bash'"),
        ("{write: sh, fd: 3}", "{wrote: sh, fd: 3}", "event 3: no event is named"),
        ("fd: 3}", "fd: three}", "`fd` is"),
        ("at: 30s", "at: soon", "event 2: `at` is 'soon'"),
        ("expect: []", "expects: []", "a test has an unknown key `expects`"),
        ("    expect: []\n", "", "test 'too late': it has no `expect`"),
        ("name: too late", "name: leaks", "two tests are called 'leaks'"),
        ("name: too late", "title: x", "unknown key `title`"),
        ("tests:", "tests: [", "not YAML"),
        ("at: 3, steps", "att: 3, steps", "an expected match has an unknown key `att`"),
        ("    events:", "    stream: missing.jsonl\n    events:", "either `events` or `stream`"),
    ],
)
def test_what_is_no_vector_file_is_refused(vectors: Path, old: str, new: str, says: str) -> None:
    vectors.write_text(VECTORS.replace(old, new, 1 if old != "expect: []" else -1))
    with pytest.raises((VectorError, EventFileError)) as caught:
        read_vectors(vectors)
    assert str(vectors) in caught.value.message and says in caught.value.message
    result = run_file(vectors)
    assert result.failed == 1 and says in result.error


def test_a_policy_with_a_mistake_fails_its_file(vectors: Path) -> None:
    (vectors.parent / "leak.policy").write_text('path "leak" { opn { } }')
    result = run_file(vectors)
    assert result.failed == 1 and "opn" in result.error
    (vectors.parent / "leak.policy").unlink()
    assert "can't read" in run_file(vectors).error


def test_a_recorded_stream_may_stand_for_events(vectors: Path) -> None:
    play = Play()
    shell = play.process(exe="/bin/sh")
    play.event("open", shell, path="/etc/shadow", flags=0, ret=3)
    play.event("exec", play.fork(shell), ret=0)
    batch = play.batch()
    lines = [json.dumps(record_of(batch.event(at))) for at in range(3)]
    (vectors.parent / "work.jsonl").write_text("\n".join(lines))
    vectors.write_text("tests:\n  - {name: recorded, stream: work.jsonl, expect: []}\n")
    assert not run_file(vectors).failed
    assert find_vectors(vectors.parent) == [vectors] == find_vectors(vectors)


def test_observing_changes_no_match() -> None:
    play = Play()
    shell = play.process(exe="/bin/sh")
    play.event("open", shell, path="/etc/shadow", flags=0, ret=3)
    play.event("connect", shell, dst_port=443)
    play.event("write", shell, fd=3)
    batch = play.batch()
    found = []
    for policies in (compiled(), [observed(policy) for policy in compiled()]):
        machine = Machine()
        machine.load(policies, 1)
        matches = [output for output in machine.feed(batch) if isinstance(output, Match)]
        found.append([(m.event.id, [[e.id for e in step.events] for step in m.trail]) for m in matches])
    assert found[0] == found[1] and len(found[0]) == 1


def play_leaks(times: int) -> list[str]:
    play = Play()
    shell = play.process(exe="/bin/sh")
    for _ in range(times):
        play.event("open", shell, path="/etc/shadow", flags=0, ret=3)
        play.event("connect", shell, dst_port=443)
        play.event("write", shell, fd=3)
    batch = play.batch()
    return [json.dumps(record_of(batch.event(at))) for at in range(len(batch.events))]


def test_replay_marks_what_a_throttle_holds_back() -> None:
    found = list(Replay(compiled()).run(EventReader(play_leaks(2), "f").batches()))
    assert [one.suppressed for one in found] == [None, "throttle"]
    assert found[0].to_json() == {
        "policy": "leak",
        "time_ns": found[0].time_ns,
        "steps": [[1], [2], [3]],
        "bindings": {"secret": 1},
        "suppressed": None,
    }
    assert (found[0].does, found[0].process) == ("kill", "/bin/sh[1001]")


def test_difference_of_two_sets_puts_kills_first() -> None:
    lines = play_leaks(1)
    before = list(Replay(compiled()).run(EventReader(lines, "f").batches()))
    softer = compiled(POLICY.replace("response enforce", "response audit") + 'path "new" { connect { } }')
    after = list(Replay(softer).run(EventReader(lines, "f").batches()))
    assert [(d.new, d.found.policy, d.found.does) for d in differences(before, after)] == [
        (False, "leak", "kill"),
        (True, "leak", "would kill"),
        (True, "new", ""),
    ]
    assert differences(before, before) == []


def test_whynot_names_the_condition_that_the_nearest_event_lacks() -> None:
    (policy,) = compiled()
    play = Play()
    shell = play.process(exe="/bin/sh")
    play.event("open", shell, path="/etc/passwd", flags=1, ret=3)
    play.event("open", shell, path="/etc/shadow", flags=1, ret=3)
    play.event("write", shell, fd=3)
    batch = play.batch()
    verdicts = explain(policy, [batch.event(at) for at in range(3)])
    assert [(v.met, v.event and v.event.id, v.failed, v.count) for v in verdicts] == [
        (False, 2, ("access has READ",), 2),
        (False, None, (), 0),
        (True, 3, (), 1),
        (False, None, (), 0),
    ]
    assert verdicts[0].to_json()["failed"] == ["access has READ"]


def test_exemptions_count_towards_coverage() -> None:
    (policy,) = compiled('path "p" { exec { } }')
    exempt = Exemption(FieldTest(ref("uid"), Op.EQ, 0), "root may", policy.place)
    reached = Reached(dataclasses.replace(policy, exemptions=(exempt,)))
    assert list(reached.missing())[1] == "exception root may (line 1)"
