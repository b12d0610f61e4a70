"""Exact paths match by file as well: what is rewritten, what isn't, and that nothing else changes by it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.event import Event
from policyd.compiler import compile_source
from policyd.compiler.byfile import MAX_LISTED, by_file
from policyd.compiler.story import story
from policyd.engine.conditions import condition, without
from policyd.engine.doubt import Judged
from policyd.engine.generation import Generation
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.program import CompiledPolicy, Expr
from policyd.workbench.whynot import describe
from tests.support.playbook import Play


def compiled(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    return compilation.policies[0]


def shown(conditions: str, event: str = "open", before: str = "") -> str:
    return describe(compiled(f'{before}\npath "p" {{ {event} {{ {conditions} }} }}').steps[0].condition)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ('path = "/a"', '(path = "/a" or file.names = "/a")'),
        ('pathname == "/a"', '(pathname == "/a" or file.names = "/a")'),
        ('path in ["/a", "/b"]', '(path in ["/a", "/b"] or file.names in [2 paths])'),
        ('path in ["/a", "memfd:x"]', '(path in ["/a", "memfd:x"] or file.names = "/a")'),
        ("path in LIST", "(path in LIST or file.names in [2 paths])"),
        ("path = ONE", '(path = ONE or file.names = "/a")'),
        ("secret(path)", "(secret(path): p in LIST or file.names in [2 paths])"),
        ('not path = "/a"', 'not ((path = "/a" or file.names = "/a"))'),
        ('path != "/a"', 'path != "/a" and not (file.names = "/a")'),
        ('path = "/a" or uid = 0', '((path = "/a" or file.names = "/a") or uid = 0)'),
        ('any argv(it = "x" and path = "/a")', 'any argv(it = "x" and path = "/a")'),
    ],
)
def test_a_test_of_path_for_exact_paths_asks_for_the_file_too(written: str, means: str) -> None:
    before = 'list LIST = ["/a", "/b"]\nlet ONE = "/a"\nmacro secret(p) = p in LIST'
    assert shown(written, before=before) == means


@pytest.mark.parametrize(
    "written",
    [
        'path startswith "/a"',
        'path =~ "^/a$"',
        'path like "/a"',
        'path ieq "/a"',
        'fspath = "/a"',
        'exe = "/a"',
        'rawpath = "/a"',
        'path = "a"',
        'path = "/a/"',
        'path = "/a//b"',
        'path = "/a/../b"',
        "path = exe",
    ],
)
def test_what_is_no_exact_path_is_left_as_it_is(written: str) -> None:
    policy = compiled(f'path "p" {{ open {{ {written} }} }}')
    assert policy.paths_by_file == ()
    assert by_file(policy) is policy


@pytest.mark.parametrize("event", ["rename", "unlink", "connect", "mount"])
def test_events_that_name_no_file_are_left_as_they_are(event: str) -> None:
    assert shown('path = "/a"', event) == 'path = "/a"'


def test_exceptions_handlers_until_and_later_steps_ask_for_the_file_too() -> None:
    policy = compiled("""
    path "p" within 5s {
        open { path = "/a" } as o
        until open { path = "/b" }
        connect { o.path = "/c" } as c
        on match if o.path = "/d" { alert }
        except "x" { o.path = "/e" or c.path = "/f" }
    }""")
    assert set(policy.paths_by_file) == {b"/a", b"/b", b"/c", b"/d", b"/e"}


def test_a_list_that_is_too_long_stays_one_of_names() -> None:
    paths = ", ".join(f'"/{number}"' for number in range(MAX_LISTED + 1))
    assert compiled(f'path "p" {{ open {{ path in [{paths}] }} }}').paths_by_file == ()


def test_policies_without_exact_paths_keep_their_hash() -> None:
    """It is what their running sequences are carried over by."""
    text = 'path "p" within 5s { open { path startswith "/etc/" } exec { exe = "/bin/sh" } }'
    assert compiled(text).hash == "e2e40dfe754daba31f740df960d2cb07e463763ec229edca80c68742edf7db39"


def test_the_hash_says_that_a_policy_asks_for_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'path "p" { open { path = "/etc/shadow" } }'
    now = compiled(text).hash
    monkeypatch.setattr("policyd.compiler.binding.by_file", lambda policy: policy)
    assert compiled(text).hash != now


def test_it_is_explained_with_every_path() -> None:
    lines = {part.name: part.lines for part in story(compiled('path "p" { open { path in ["/a", "/b"] } }'))}
    assert lines["By file"][1:] == (" /a", " /b")
    assert "By file" not in {part.name for part in story(compiled('path "p" { open { path like "/a*" } }'))}


def test_a_policy_may_ask_for_the_file_alone() -> None:
    policy = compiled('path "p" { open { file.names = "/a", path != "/a" } }')
    assert policy.paths_by_file == (b"/a",)


def test_the_sensor_is_asked_for_as_many_paths_as_may_be() -> None:
    texts = []
    for policy in range(3):
        paths = ", ".join(f'"/{policy}/{number}"' for number in range(500))
        texts.append(f'path "p{policy}" {{ open {{ path in [{paths}] }} }}')
    needs = Generation(compile_source("\n".join(texts), "x").policies, 1, 64).needs()
    assert len(needs.paths) == 1024 and needs.left_out == 476
    assert needs.paths[0] == b"/0/0"


def matches(text: str, **slots: Any) -> int:
    machine = Machine()
    machine.load((compiled(text),), 1)
    play = Play()
    play.event("open", play.process(), ret=3, **slots)
    return sum(isinstance(output, Match) for output in machine.feed(play.batch()))


SHADOW = 'path "p" { open { path = "/etc/shadow", exe != "/x" } EXCEPT }'


@pytest.mark.parametrize(
    ("slots", "found"),
    [
        ({"path": "/etc/shadow"}, 1),
        ({"path": "/tmp/link"}, 0),
        ({"path": "/tmp/link", "file_names": ("/etc/shadow",)}, 1),
        ({"path": "/tmp/link", "file_names": ("/etc/passwd", "/etc/shadow")}, 1),
        ({"path": "/tmp/link", "file_names": ("/etc/passwd",)}, 0),
        ({"path": None, "file_names": ("/etc/shadow",)}, 1),
    ],
)
def test_a_file_under_another_name_meets_the_step(slots: dict[str, Any], found: int) -> None:
    assert matches(SHADOW.replace("EXCEPT", ""), **slots) == found


def test_a_file_under_another_name_meets_an_exception_and_no_negation() -> None:
    there = {"path": "/tmp/link", "file_names": ("/ok",)}
    assert not matches('path "p" { open { uid = 1000 } as o except "x" { o.path = "/ok" } }', **there)
    assert not matches('path "p" { open { path != "/ok" } }', **there)
    assert not matches('path "p" { open { path not in ["/ok", "/fine"] } }', **there)
    assert matches('path "p" { open { path != "/ok" } }', path="/tmp/link")


def test_one_event_that_could_not_be_read_in_part_is_as_sure_as_before() -> None:
    """No event says which paths a file does not stand for: that there are none is known."""
    play = Play()
    play.event("open", play.process(), path="/tmp/x", ret=3, cut=Flag.UNREADABLE)
    event = play.batch().event(0)
    judged = Judged(compiled('path "p" { open { path != "/ok" } }').steps[0].condition)
    assert judged.truth(event, {}) is True


def test_a_file_that_is_known_is_sure_also_where_its_path_is_not() -> None:
    play = Play()
    play.event("open", play.process(), path="x", file_names=("/a",), ret=3, cut=Flag.PATH_TORN)
    event = play.batch().event(0)
    assert Judged(compiled('path "p" { open { path = "/a" } }').steps[0].condition).truth(event, {}) is True
    assert Judged(compiled('path "p" { open { path = "/b" } }').steps[0].condition).truth(event, {}) is None


PATHS = st.sampled_from(["/a", "/b", "/a/b", "a", ""])
TESTS = st.one_of(
    st.tuples(st.sampled_from(["=", "!=", "startswith", "=~"]), PATHS).map(lambda t: f'path {t[0]} "{t[1]}"'),
    st.lists(PATHS, min_size=1, max_size=3).map(
        lambda some: f"path in [{', '.join(map(repr, some))}]".replace("'", '"')
    ),
    st.lists(PATHS, min_size=1, max_size=3).map(
        lambda some: f"path not in [{', '.join(map(repr, some))}]".replace("'", '"')
    ),
    st.just("uid = 0"),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' or '.join(some)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' and '.join(some)})"),
    ),
    max_leaves=6,
)


def opened(path: str | None) -> Event:
    play = Play()
    play.event("open", play.process(uid=0), path=path, ret=3)
    return play.batch().event(0)


EVENTS = [opened(path) for path in ("/a", "/b", "/c", "a", None)]


@settings(deadline=None, max_examples=150)
@given(CONDITIONS)
def test_where_no_file_is_known_the_rewriting_changes_nothing(text: str) -> None:
    policy = compiled(f'path "p" {{ open {{ {text} }} }}')
    rewritten: Expr = policy.steps[0].condition
    as_written = without(rewritten, lambda ref: ref.name == "file.names")
    for event in EVENTS:
        assert condition(rewritten)(event, {}) == condition(as_written)(event, {})
    again = by_file(dataclasses.replace(policy, steps=(dataclasses.replace(policy.steps[0], condition=as_written),)))
    assert len(again.paths_by_file) == len(policy.paths_by_file)
    machine = Machine()
    machine.load((policy,), 1)
    play = Play()
    for path in ("/a", "/b", "/c", "a", None):
        play.event("open", play.process(uid=0), path=path, ret=3)
    found = [o for o in machine.feed(play.batch()) if isinstance(o, Match)]
    assert len(found) == sum(condition(as_written)(event, {}) for event in EVENTS)


def test_every_event_that_tells_the_file_has_a_path_and_an_identity() -> None:
    telling = [kind for kind in EVENT_BY_NAME.values() if "file.names" in kind.slot_of]
    assert all("path" in kind.slot_of and "file.id" in kind.slot_of for kind in telling)
    assert {"open", "read", "write", "mmap", "dup"} <= {kind.name for kind in telling}
