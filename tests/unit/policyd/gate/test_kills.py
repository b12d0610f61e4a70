"""policyd/gate/kills.py: a kill by the kernel that no match explains is told."""

from __future__ import annotations

import logging

import pytest

from execray.gate.inline import tag_of
from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from policyd.compiler import compile_set
from policyd.engine.machine import Machine
from policyd.gate.kills import KernelKills
from tests.support.playbook import Play

POLICY = b'policy "p" response enforce { open { path startswith "/a/" }\non match { kill } }'
SEQUENCE = b"""path "s" key process within 1m response enforce {
    open { path = "/a/b" } as read
    connect { ret = 0 } as out
    on match { kill }
}"""


@pytest.mark.parametrize(("path", "known", "unexplained"), [("/a/b", True, 0), ("/b/b", True, 1), ("/a/b", False, 1)])
def test_a_kill_must_be_of_a_policy_that_matches(
    path: str, known: bool, unexplained: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = compile_set([("a.policy", POLICY)])
    (policy,) = found.policies
    tag = tag_of(policy.hash) if known else 1
    machine = Machine()
    machine.load([policy], 1)
    play = Play()
    play.lost()
    actor = play.process()
    play.event("open", actor, path="/a/other", ret=3)
    play.event("open", actor, path=path, ret=3, cut=Flag.KILLED | Flag(tag << KILLER_SHIFT))
    batch = play.batch()
    kills = KernelKills(logging.getLogger("test"))
    kills.loaded([policy])
    made = kills.look(batch, machine.feed(batch), 1)
    assert (kills.killed, kills.unexplained) == (1, unexplained)
    assert len(made) == (unexplained if known else 0)
    assert [record.message for record in caplog.records] == ["killed in the kernel, and no match"] * unexplained


def test_threads_that_make_the_last_call_together_are_one_kill() -> None:
    (policy,) = compile_set([("a.policy", SEQUENCE)]).policies
    killed = Flag.KILLED | Flag(tag_of(policy.hash) << KILLER_SHIFT)
    play = Play()
    both, other = play.process(), play.process()
    for actor in (both, both, other):
        play.event("connect", actor, ret=0, cut=killed)
    kills = KernelKills(logging.getLogger("test"))
    kills.loaded([policy])
    batch = play.batch()
    assert [match.actor.id for match in kills.look(batch, [], 1)] == [both.id, other.id]
    assert kills.look(batch, [], 1) == []  # nor in a later batch
    assert kills.unexplained == 2


def test_a_match_is_made_of_the_last_call_where_none_was_found() -> None:
    policy, other = compile_set([("a.policy", SEQUENCE), ("b.policy", POLICY)]).policies
    tag = tag_of(policy.hash)
    play = Play()
    number = play.event("connect", play.process(), ret=0, cut=Flag.KILLED | Flag(tag << KILLER_SHIFT))
    batch = play.batch()
    kills = KernelKills(logging.getLogger("test"))
    kills.loaded([policy])
    kills.loaded([other])  # what it did may be on the way still
    (made,) = kills.look(batch, [], 2)
    assert (made.policy, made.event.id, made.degraded, made.partial_evidence) == (policy, number, True, False)
    assert [(step.step.alias, step.count) for step in made.trail] == [("out", 1)]
    assert made.bindings.keys() == {"out"} and made.key == made.actor.id
    kills.loaded([other])
    assert kills.look(batch, [], 2) == []
