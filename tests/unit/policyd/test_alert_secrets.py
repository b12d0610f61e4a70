"""What was taken along for one policy stands in no alert of another: environments and what is read hold passwords."""

from __future__ import annotations

import json

from policyd.alerts import Origin, finding_alert
from policyd.compiler import compile_set
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.program import Severity
from tests.support.playbook import Play

POLICIES = """
policy "asks" { exec { any env(it startswith "LD_PRELOAD=") } }
policy "asks_not" { exec { filename = "/bin/tool" } }
policy "asks_writes" key process within 5s { exec { filename = "/bin/tool" } write { content contains "x" } }
policy "asks_no_writes" key process within 5s { exec { filename = "/bin/tool" } write {} }
"""


def test_an_alert_has_the_bytes_that_its_own_policy_reads_and_no_others() -> None:
    found = compile_set([("p.policy", POLICIES.encode())])
    assert found.ok, found.diagnostics
    machine = Machine()
    machine.load(found.policies, 1)
    play = Play()
    actor = play.process(exe="/bin/tool")
    play.event("exec", actor, filename="/bin/tool", env=[b"LD_PRELOAD=/x.so", b"KEY=hunter2"], ret=0)
    play.event("write", actor, path="/tmp/out", content=b"x swordfish", ret=11)
    alerts = {
        output.policy.name: json.dumps(
            finding_alert(output, Origin("b", "s"), Severity.HIGH, host_mode="audit", suppressed=0, action={})
        )
        for output in machine.feed(play.batch())
        if isinstance(output, Match)
    }
    assert len(alerts) == 4
    assert {name for name, alert in alerts.items() if "hunter2" in alert} == {"asks"}
    assert {name for name, alert in alerts.items() if "swordfish" in alert} == {"asks_writes"}
