"""Which policies the kernel finishes, and that a rule is never met by an event that doesn't complete the policy."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from execray.gate.inline import MAX_POLICIES, Part, decode_inline, tag_of
from execray.schema.event import Event
from policyd.compiler import compile_set
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.gate.exact import NotInlineError, build_inline, finished, inline_lines
from policyd.program import CompiledPolicy
from tests.support.inline_twin import meets
from tests.support.playbook import Play


def one(text: str) -> CompiledPolicy:
    found = compile_set([("a.policy", text.encode())])
    assert found.ok, found.diagnostics
    (policy,) = found.policies
    return policy


def opening(condition: str, more: str = "", response: str = "enforce") -> CompiledPolicy:
    return one(f'policy "p" response {response} {{ open {{ {condition} }} as o\non match {{ alert; kill }}\n{more} }}')


def events() -> Iterator[Event]:
    """Opens with each of the values that matter to the conditions below, and with some missing."""
    play = Play()
    uids = [play.process(uid=uid, euid=euid, comm=comm) for uid, euid, comm in ((0, 0, "cat"), (7, 8, "dog"))]
    paths: list[Any] = ["/a/b", "/a/bc", "/x/b", "/", None, "pipe:[7]"]
    flags = [0, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT, 3, 0o10000000, None]
    for actor, path, flag, ret in itertools.product(uids, paths, flags, (-13, 0, 3)):
        play.event("open", actor, path=path, rawpath="b", flags=flag, mode=0o644, created=bool(ret), ret=ret)
    batch = play.batch()
    yield from (batch.event(at) for at in range(len(batch.events)))


EVENTS = list(events())

EXACT = [
    'path startswith "/a/"',
    'path endswith "/b"',
    'path startswith ["/a/", "/x"]',
    'path endswith "b" and path startswith "/a"',
    'not path startswith "/a/" and path exists',
    "ret >= 0",
    "ret < 0",
    "ret = 3 and uid = 0",
    "uid in [0, 3]",
    "uid != 7",
    "not uid in [7, 9]",
    "uid != [7, 9]",
    "euid > 0",
    "not ret > 0",
    "flags hasany O_CREAT",
    "flags has O_CREAT",
    "not flags hasany O_CREAT",
    "flags has O_RDWR",
    "access has READ",
    "access has WRITE",
    "access hasany WRITE",
    "not access has WRITE",
    "access = WRITE",
    "mode = 0o600 or uid = 7",
    "created",
    "not created",
    'comm = "cat"',
    'comm != "cat"',
    'not comm in ["cat", "cow"]',
    'uid = 0 and (path startswith "/a/" or ret < 0)',
    'not (uid = 0 or path startswith "/x")',
    "flags exists and uid = 7",
]


@pytest.mark.parametrize("condition", EXACT)
def test_a_rule_is_met_exactly_where_the_policy_matches(condition: str) -> None:
    policy = opening(condition)
    found = finished(policy)
    machine = Machine()
    machine.load([policy], 1)
    matched = {output.event.id for output in machine.feed(_batch()) if isinstance(output, Match)}
    assert 0 < len(matched) < len(EVENTS)
    for event in EVENTS:
        met = any(meets(rule, event) for rule in found.rules)
        assert not met or event.id in matched, event.to_json()
        # what is missing meets no rule; user space decides
        if (
            event.id in matched
            and None not in (event.get("path"), event.get("flags"))
            and event.get("path") != b"pipe:[7]"
        ):
            assert met, event.to_json()


ADDRESSES = (
    "127.0.0.1",
    "128.0.0.0",
    "::1",
    "::2",
    "::ffff:127.0.0.1",
    "2001:db8::1",
    "2001:db8:0:1::",
    "::5:0:0:0:1",
    None,
)


@pytest.mark.parametrize("field", ["dst.ip", "src.ip"])
@pytest.mark.parametrize(
    "condition",
    [
        'F in ["127.0.0.0/8", "::1"]',
        'F not in ["127.0.0.0/8", "::1"]',
        'F in ["2001:db8::/64"] or F = "::1"',
        'F != "::1" and not F in ["2001:db8::/64"]',
        'F in ["::/63", "2001:db8::/32"] and ret = 0',
    ],
)
def test_a_rule_of_addresses_is_met_exactly_where_the_policy_matches(condition: str, field: str) -> None:
    policy = one(
        f'policy "p" response enforce {{ connect {{ {condition.replace("F", field)} }}\non match {{ kill }} }}'
    )
    if "::/63" in condition:  # with all of IPv6 that has IPv4 in it
        with pytest.raises(NotInlineError, match="doesn't know"):
            finished(policy)
        return
    play = Play()
    who = play.process()
    for address in ADDRESSES:
        play.event("connect", who, dst_ip=address, src_ip=address, ret=0)
    machine, batch = Machine(), play.batch()
    machine.load([policy], 1)
    matched = {output.event.id for output in machine.feed(batch) if isinstance(output, Match)}
    assert 0 < len(matched) < len(ADDRESSES)
    for event in map(batch.event, range(len(batch.events))):
        met = any(meets(rule, event) for rule in finished(policy).rules)
        assert met is (event.id in matched and event.get(field) is not None), event.to_json()


def _batch() -> Any:
    play = Play()
    uids = [play.process(uid=uid, euid=euid, comm=comm) for uid, euid, comm in ((0, 0, "cat"), (7, 8, "dog"))]
    for event in EVENTS:
        actor = uids[event.get("uid") != 0]
        names: dict[str, Any] = {
            name: event.get(name) for name in ("path", "rawpath", "flags", "mode", "created", "ret")
        }
        play.event("open", actor, **names)
    return play.batch()


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ('exe = "/a"', "exe"),
        ('path = "/a" and argv contains "x"', "argv"),
        ('path contains "/a"', "path"),
        ('path =~ "^/a"', "path"),
        ('path ieq "/a"', "path"),
        ('not path = "/a"', "file.names"),
        (f'path startswith "/{"x" * 128}"', "path"),
        ('rawpath = "a"', "rawpath"),
        ("uid = euid", "uid"),
        ('comm startswith "a"', "comm"),
        ("truncated(path) and ret = 0", "path"),
        ("parent.uid = 0", "parent.uid"),
        ("not ret exists", "ret"),
    ],
)
def test_what_the_kernel_does_not_know_for_sure_is_left_to_user_space(condition: str, field: str) -> None:
    with pytest.raises(NotInlineError, match=f"`{field}`"):
        finished(opening(condition))


@pytest.mark.parametrize(
    ("event", "condition", "inline"),
    [
        ("ptrace", "request = 16", True),
        ("ptrace", "request >= 16", False),
        ("ptrace", "not request < 16", False),
        ("unlink", 'path startswith "/a/"', False),
        ("chmod", 'path startswith "/a/"', False),
        ("rename", 'path startswith "/a/"', False),
        ("write", 'path startswith "/a/"', True),
        ("open", "flags exists", False),
        ("open", "flags exists and uid = 7", True),
    ],
)
def test_only_what_the_kernel_compares_as_the_engine_does_is_exact(event: str, condition: str, inline: bool) -> None:
    policy = one(f'policy "p" response enforce {{ {event} {{ {condition} }}\non match {{ kill }} }}')
    assert (inline_lines(policy)[0] == "yes") is inline


@pytest.mark.parametrize(
    ("last", "handler", "why"),
    [
        ("connect { dst.port = 9 }", "on match { kill }", ""),
        ('connect { dst.ip not in ["127.0.0.0/8", "::1"] }', "on match { kill }", ""),
        ("connect { dst.port = 9 }", "on match if uid = 7 { kill }", "without a kill"),
        ("connect { dst.port = 9 }", "on match { kill }\non match if uid = 7 { kill }", "without a kill"),
        ('connect { dst.port = 9 or dst.ip = "2001:db8::1" }', "on match { kill }", "must be exact in all its ways"),
        ('open { path = "/a" }', "on match { kill }", "`file.names` isn't"),
    ],
)
def test_what_may_use_up_a_sequence_in_user_space_alone_is_not_inline(last: str, handler: str, why: str) -> None:
    policy = one(f'policy "p" within 1m response enforce {{ open {{ path = "/x" }}\n{last}\n{handler} }}')
    if not why:
        assert finished(policy).inexact == ("file.names",)  # an earlier step may have other ways
        return
    with pytest.raises(NotInlineError, match=why):
        finished(policy)


def test_ways_that_are_not_exact_are_left_out_of_the_rules() -> None:
    policy = opening('path = "/a/b"')
    (rule,) = finished(policy).rules
    assert [(test.part, test.text) for test in rule.texts] == [(Part.EXACT, b"/a/b")]
    assert inline_lines(policy) == ["yes", " where file.names would decide, it is left to user space"]
    assert inline_lines(opening("uid = 7", response="audit")) == ["yes, under `response enforce`"]


@pytest.mark.parametrize(
    ("exception", "inline"),
    [('except "r" { uid = 0 }', True), ('except "r" { exe = "/x" }', False), ('except "r" { path = "/a" }', False)],
)
def test_an_exception_must_be_exact_too_and_holds(exception: str, inline: bool) -> None:
    policy = opening('path startswith "/a/"', exception)
    if not inline:
        with pytest.raises(NotInlineError):
            finished(policy)
        return
    met = [event for event in EVENTS if any(meets(rule, event) for rule in finished(policy).rules)]
    assert met and all(event.get("uid") != 0 for event in met)


def test_an_exception_from_outside_must_be_exact_too() -> None:
    text = 'policy "p" response enforce { open { path startswith "/a/" }\non match { kill } }\n'
    assert finished(one(text))
    with pytest.raises(NotInlineError, match="`exe`"):
        finished(one(text + 'exception for "p" "why" { exe = "/x" }\n'))


def test_a_kill_under_a_condition_is_one_where_it_holds() -> None:
    text = 'policy "p" response enforce { open { path startswith "/a/" }\non match if uid = 7 { kill }\non match { alert } }'
    met = [event for event in EVENTS if any(meets(rule, event) for rule in finished(one(text)).rules)]
    assert met and all(event.get("uid") == 7 for event in met)


SHAPES = {
    "no handler of a match kills": "open { uid = 7 }\non match { alert }",
    "its key isn't the process": "key tree within 1m",
    "isn't a plain sequence": "either { open { uid = 7 } } or { open { uid = 8 } }\non match { kill }",
    "what ends it": "open { uid = 7 }\nopen { uid = 8 }\nuntil open { uid = 9 }\non match { kill }",
    "a count or a time": "open { uid = 7 } times 3 within 5s\non match { kill }",
    "kills only by way of a block": 'block "b" { open { uid = 7 }\non match { kill } }',
    "the kernel doesn't know": "open { }\non match { kill }",
}


@pytest.mark.parametrize("why", SHAPES)
def test_what_is_no_plain_sequence_is_not_inline(why: str) -> None:
    body = SHAPES[why]
    if body.startswith("key"):
        text = f'policy "p" {body} response enforce {{ open {{ uid = 7 }}\nopen {{ uid = 8 }}\non match {{ kill }} }}'
    else:
        text = f'policy "p" within 1m response enforce {{ {body} }}'
    with pytest.raises(NotInlineError, match=why):
        finished(one(text))


@pytest.mark.parametrize(("within", "inline"), [("200ms", False), ("201ms", True), ("1h", True)])
def test_a_sequence_needs_a_window_that_is_longer_than_what_is_left_to_user_space(within: str, inline: bool) -> None:
    policy = one(
        f'policy "p" within {within} response enforce {{ open {{ uid = 7 }}\nconnect {{ dst.port = 9 }}\non match {{ kill }} }}'
    )
    if inline:
        found = finished(policy)
        assert (found.policy.steps, found.policy.within_ns) == (2, policy.within_ns)
        assert [rule.step for rule in found.rules] == [0, 1]
    else:
        with pytest.raises(NotInlineError, match="`within`"):
            finished(policy)


def test_steps_of_exec_are_not_inline() -> None:
    text = 'policy "p" within 1m response enforce { exec { uid = 7 }\nopen { uid = 7 }\non match { kill } }'
    with pytest.raises(NotInlineError, match="a step on exec"):
        finished(one(text))


def test_only_policies_that_enforce_get_rules_and_all_of_them_come_over_as_they_are() -> None:
    policies = [opening(f"uid = {uid}", response=("audit", "enforce")[uid % 2]) for uid in range(4)]
    made = build_inline(policies)
    assert [policy.tag for policy in made.plan.policies] == [tag_of(policies[1].hash), tag_of(policies[3].hash)]
    assert decode_inline(made.raw) == made.plan and not made.left_out


def test_policies_beyond_the_kernels_room_are_told() -> None:
    made = build_inline([opening(f"uid = {uid}") for uid in range(MAX_POLICIES + 2)])
    assert len(made.plan.policies) == MAX_POLICIES and made.left_out == ("p", "p")


def test_without_policies_there_are_no_bytes() -> None:
    assert build_inline([]).raw == b""
