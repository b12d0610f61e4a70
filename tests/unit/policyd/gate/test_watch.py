"""In shadow mode, policyd sees whether the gate would have lost something."""

from __future__ import annotations

import logging

import pytest

from execray.schema.catalog import Flag
from policyd.compiler import compile_source
from policyd.engine.machine import Machine
from policyd.gate.plan import build_plan
from policyd.gate.watch import GateWatch
from tests.support.playbook import Play

POLICY = 'path "p" { open { path = "/a" } as a  open { path = "/b" } as b }'


@pytest.mark.parametrize(("flagged", "needed"), [((), 0), (("/c",), 0), (("/a",), 1), (("/a", "/b"), 2)])
def test_flagged_events_are_counted_where_they_are_evidence(
    flagged: tuple[str, ...], needed: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine, watch, play = Machine(), GateWatch(logging.getLogger("policyd")), Play()
    machine.load(compile_source(POLICY, "p.policy").policies, 1)
    one = play.process()
    for path in ("/a", "/c", "/b"):
        play.event("open", one, path=path, cut=Flag.GATE_DROP if path in flagged else Flag(0))
    outputs = machine.feed(play.batch())
    assert outputs
    with caplog.at_level(logging.ERROR, "policyd"):
        watch.look(outputs)
        watch.look(outputs)
    assert watch.needed == needed == len(caplog.records)
    assert watch.status(build_plan([]))["needed"] == needed
