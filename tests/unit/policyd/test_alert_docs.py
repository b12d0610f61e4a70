"""docs/alerts.md names every field that an alert can have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from execray.process import boot_id
from policyd.alerts import Origin, finding_alert, kill_json, loss_alert
from policyd.compiler import compile_source
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.program import Severity
from policyd.throttle import LossSum
from tests.support.playbook import Play

TEXT = (Path(__file__).parents[3] / "docs" / "alerts.md").read_text()
WORDS = set(re.findall(r"[\w@]+", TEXT))

POLICY = """
path "p" within 1m {
    meta { id: "i" title: "t" description: "d" author: "a" attack: ["T1003.008"] references: ["https://e.x"] tags: ["g"] }
    open { path = "/x" } as o
    connect { }
}
"""


def names(value: Any, below: str = "") -> Iterator[str]:
    """Yields the name of every field; those of events and losses' places are documented elsewhere."""
    if isinstance(value, dict):
        for name, item in value.items():
            if below != "lost":
                yield name
            if name != "events":
                yield from names(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from names(item, below)


def test_every_field_of_an_alert_is_documented() -> None:
    compiled = compile_source(POLICY, "p.policy")
    assert compiled.ok
    play = Play()
    process = play.process(play.process())
    play.event("open", process, path="/link", file_names=("/x",), flags=0, ret=3, file_id="1:2:3:4")
    play.event("connect", process, fd=3, family=2, dst_ip="::1", dst_port=1, src_ip="::1", src_port=2, ret=0)
    machine = Machine()
    machine.load(compiled.policies, 1)
    (match,) = machine.feed(play.batch())
    assert isinstance(match, Match)
    facts = dict.fromkeys(("by", "reason", "code", "latency_us", "took_us", "dead", "order_id", "file"), "x")
    action: dict[str, Any] = {"kill": kill_json("killed", **facts), "capture": kill_json("capturing", **facts)}
    action["notify"] = [{"plugin": "x", "result": "queued"}]
    origin = Origin(boot_id(), "s")
    alerts = [
        finding_alert(match, origin, Severity.HIGH, host_mode="audit", suppressed=0, action=action),
        loss_alert(LossSum("ring", 1, 0, 0, "id"), origin, host_mode="audit"),
    ]
    assert alerts[0]["execray"]["trail"][0]["by_file"] == ["/x"]
    # `ecs.version` says which schema; `network.type` and the like are the catalogue's, and linked.
    missing = set(names(alerts)) - WORDS - {"ecs", "version", "network"}
    assert missing == set()
