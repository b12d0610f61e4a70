"""The public face: files, sets, defaults, actions, metadata, and the hash."""

from __future__ import annotations

import pytest

from policyd.compiler import compile_set, compile_source
from policyd.program import (
    Alert,
    Capture,
    CompiledPolicy,
    Handler,
    KeyKind,
    Kill,
    Log,
    Meta,
    Place,
    Response,
    Severity,
)


def one(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    (policy,) = compilation.policies
    return policy


def test_defaults() -> None:
    policy = one('path "p" { open {} write {} }')
    assert policy.key is KeyKind.PROCESS
    assert policy.within_ns == 300_000_000_000
    assert policy.response is Response.AUDIT
    assert policy.max_partials == 1024
    assert policy.throttle == (1, 60_000_000_000)
    assert policy.meta == Meta()
    assert policy.meta.severity is Severity.MEDIUM
    assert policy.handlers == (Handler((Alert(),)),)
    assert policy.place == Place("x.policy", 1, 1)


def test_options_before_the_brace_and_inside() -> None:
    outside = one(
        'path "p" key tree within 30s response enforce max_partials 5 throttle 2 per 5m mode latest { open {} exit {} }'
    )
    inside = one(
        'path "p" { key tree within 30s response enforce max_partials 5; throttle 2 per 5m mode latest open {} exit {} }'
    )
    for policy in (outside, inside):
        assert policy.key is KeyKind.TREE
        assert policy.within_ns == 30_000_000_000
        assert policy.response is Response.ENFORCE
        assert policy.max_partials == 5
        assert policy.throttle == (2, 300_000_000_000)
    assert outside.hash == inside.hash


def test_meta_entries() -> None:
    policy = one(
        """path "p" {
        meta {
            id: "xr-1"  severity: critical  attack: ["T1055.008", "T1068"]
            title = "A title"; description: "Longer.", author: me
            references: "https://example.org"  status: stable  falsepositives: []  tags: ["a", "b"]
        }
        exit {}
    }"""
    )
    assert policy.meta == Meta(
        id="xr-1",
        title="A title",
        description="Longer.",
        severity=Severity.CRITICAL,
        attack=("T1055.008", "T1068"),
        references=("https://example.org",),
        author="me",
        status="stable",
        tags=("a", "b"),
    )


def test_actions() -> None:
    policy = one(
        """path "p" response enforce within 5s {
        connect {} as c
        write {}
        on step c if c.dst.port = 5 { capture }
        on step c { capture net for 10s max 4MiB; capture max 1KiB for 1m }
        on match { alert critical; kill actor
                   kill
                   log; alert }
    }"""
    )
    first, second, third = policy.handlers
    assert first.actions == (Capture(5_000_000_000, 1 << 20),)
    assert first.condition is not None
    assert second.actions == (Capture(10_000_000_000, 4 << 20), Capture(60_000_000_000, 1 << 10))
    assert third.actions == (Alert(Severity.CRITICAL), Kill(), Kill(), Log(), Alert())
    assert (first.step, third.step) == ("c", None)


def test_handler_of_a_step_reads_that_step_as_the_event_at_hand() -> None:
    policy = one('path "p" within 5s { connect {} as c write {} on step c if c.dst.port = 5 and fd = 3 { log } }')
    by_alias = one('path "p" within 5s { connect {} as c write {} on step c if dst.port = 5 and fd = 3 { log } }')
    assert policy.handlers[0].condition == by_alias.handlers[0].condition


def test_labels_are_those_of_the_blocks_around() -> None:
    policy = one('path "p" within 5s { block "a" { open {} block "b" { write {} } { exec {} } } exit {} }')
    assert [step.labels for step in policy.steps] == [("a",), ("a", "b"), ("a",), ()]


def test_alias_of_two_alternatives_reads_either() -> None:
    policy = one('path "p" within 5s { open {} as a ? write {} : connect {} as a\n exec { pid = a.pid } }')
    assert [step.alias for step in policy.steps] == ["a", None, "a", None]


def test_file_with_an_error_gives_no_policy_and_all_its_diagnostics() -> None:
    compilation = compile_source('path "good" { exit {} }\npath "bad" { exi {} }\npath "worse" { opn {} }', "x")
    assert compilation.policies == ()
    assert [d.code for d in compilation.diagnostics] == ["ER0202", "ER0202"]


def test_empty_file_is_fine() -> None:
    for text in ("", "\n// nothing\n", b"\xef\xbb\xbf# with a byte order mark\n"):
        compilation = compile_source(text, "x")
        assert compilation.ok
        assert compilation.policies == ()


def test_windows_line_ends_are_white_space() -> None:
    unix = 'path "p" {\n  open { uid = 0\n gid = 0 }\n}\n'
    assert one(unix.replace("\n", "\r\n")).hash == one(unix).hash


def test_set_has_all_policies_and_sources() -> None:
    result = compile_set([("a", b'path "p" { exit {} }'), ("b", b'path "q" { exec {} }')])
    assert result.ok
    assert [policy.name for policy in result.policies] == ["p", "q"]
    assert [source.name for source in result.sources] == ["a", "b"]


def test_error_in_one_file_of_a_set_hides_no_other_diagnostics() -> None:
    result = compile_set([("a", b"\xff"), ("b", b'path "q" { exi {} }'), ("c", b'path "r" { exit {} }')])
    assert not result.ok
    assert result.policies == ()
    assert [(d.file, d.code) for d in result.diagnostics] == [("a", "ER0001"), ("b", "ER0202")]


def test_name_used_in_two_files_is_reported_even_where_one_of_them_has_other_errors() -> None:
    result = compile_set([("a", b'path "p" { exi {} }'), ("b", b'path "p" { exit {} }')])
    assert [(d.file, d.code) for d in result.diagnostics] == [("a", "ER0202"), ("b", "ER0207")]


BASE = 'path "p" within 5s { open { path = "/x" } as a write {} on match if a.uid = 0 { alert high } }'
SAME = {
    "comments and layout": BASE.replace("{ open", "/* c */ { // c\n open").replace("as a", "as a # c\n\n"),
    "other names and signs": BASE.replace("path ", "pathname ").replace("pathname", "policy", 1).replace(" = ", " == "),
    "defaults written out": BASE.replace("within 5s", "within 5s key process response audit"),
    "metadata without effect": BASE.replace("{ open", '{ meta { author: "me" } open'),
}
DIFFERENT = {
    "name": BASE.replace('"p"', '"q"'),
    "value": BASE.replace("/x", "/y"),
    "operator": BASE.replace('path = "/x"', 'path != "/x"'),
    "window": BASE.replace("5s", "6s"),
    "key": BASE.replace("within 5s", "within 5s key tree"),
    "response": BASE.replace("within 5s", "within 5s response enforce"),
    "throttle": BASE.replace("within 5s", "within 5s throttle 1 per 2s"),
    "max_partials": BASE.replace("within 5s", "within 5s max_partials 7"),
    "action": BASE.replace("alert high", "alert low"),
    "handler condition": BASE.replace("a.uid = 0", "a.uid = 1"),
    "event": BASE.replace("write", "exec"),
    "order": BASE.replace("as a write {}", "as a").replace("{ open", "{ write {} open"),
    "repetition": BASE.replace("as a write", "as a .. write"),
    "step window": BASE.replace("write {}", "write {} within 1s"),
    "label": BASE.replace("write {}", 'block "b" { write {} }'),
    "severity": BASE.replace("{ open", "{ meta { severity: low } open"),
    "case": BASE.replace('path = "/x"', 'path ieq "/x"'),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_hash_ignores_what_changes_no_behaviour(text: str) -> None:
    assert one(text).hash == one(BASE).hash


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_hash_depends_on_behaviour(text: str) -> None:
    assert one(text).hash != one(BASE).hash


def test_hashes_of_all_variants_differ_and_are_sha256() -> None:
    hashes = {one(text).hash for text in (BASE, *DIFFERENT.values())}
    assert len(hashes) == len(DIFFERENT) + 1
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in hashes)


def test_hash_does_not_depend_on_the_place() -> None:
    assert one("\n\n   " + BASE).hash == one(BASE).hash
    assert compile_source(BASE, "other.policy").policies[0].hash == one(BASE).hash


def test_a_file_with_the_same_content_is_not_compiled_again() -> None:
    one, two = (f'path "{name}" {{ exec {{ uid = 0 }} }}'.encode() for name in ("one", "two"))
    before = compile_set([("1", one), ("2", two)])
    after = compile_set([("1", one), ("2", two.replace(b"0", b"1"))], before=before)
    assert after.policies[0] is before.policies[0]
    assert after.policies[1].name == "two" and after.policies[1].hash != before.policies[1].hash
    moved = compile_set([("3", one)], before=after)
    assert moved.policies[0] is not after.policies[0] and moved.policies[0].place.file == "3"


def test_a_mistake_is_told_again_and_a_name_used_twice_too_though_no_file_changed() -> None:
    files = [("1", b'path "one" { exce { } }'), ("2", b'path "x" { exec { } }'), ("3", b'path "x" { exec { } }')]
    before = compile_set(files)
    after = compile_set(files, before=before)
    assert after.diagnostics == before.diagnostics and not after.ok and after.policies == ()
    assert {found.code for found in after.diagnostics} >= {"ER0207"}
    assert compile_set(files[1:2], before=after).ok
