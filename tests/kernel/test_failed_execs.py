"""Execs that failed, which a build makes by the thousand while it looks for its tools: sent where some policy asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execray.schema.catalog import EVENT_BY_NAME
from policyd.compiler import compile_source
from policyd.engine.table import PolicyTable
from policyd.gate.known import EXEC
from policyd.gate.plan import build_plan
from policyd.gate.ways import meets_failed
from tests.support.live import Live

SHIPPED = Path(__file__).parents[2] / "policies"


def tables_of(text: str) -> list[PolicyTable]:
    found = compile_source(text, "a.policy")
    assert found.ok, found.diagnostics
    return [PolicyTable(policy, 0) for policy in found.policies]


@pytest.mark.parametrize(
    ("condition", "failed"),
    [
        ("", True),
        ('name = "x"', True),
        ("ret >= 0", False),
        ("ret = 0", False),
        ("ret = -ENOENT", True),
        ("not (ret < 0)", False),
        ('name = "x" and ret = 0 or name = "y"', True),
        ('name = "x" and ret = 0 or name = "y" and ret >= 0', False),
    ],
)
def test_a_step_is_met_by_a_failed_exec_unless_it_asks_for_a_result(condition: str, failed: bool) -> None:
    (table,) = tables_of(f'policy "p" key process within 1m {{ fork {{}} exec {{ {condition} }} }}')
    assert meets_failed(table, EXEC) is failed
    assert build_plan([table]).failed_execs is failed


def test_no_shipped_policy_asks_for_failed_execs() -> None:
    tables = [table for file in sorted(SHIPPED.glob("*.policy")) for table in tables_of(file.read_text())]
    assert len(tables) > 25 and not build_plan(tables).failed_execs


@pytest.mark.skipif(os.geteuid() != 0, reason="loads programs")
@pytest.mark.parametrize("wanted", [True, False])
def test_failed_execs_are_sent_only_where_they_are_wanted(tmp_path: Path, wanted: bool) -> None:
    with Live([]) as live:
        live.sensor.want([EXEC, EVENT_BY_NAME["open"].code], 0, failed=wanted)
        pid = os.fork()
        if not pid:
            try:
                for _ in range(3):
                    try:
                        os.execv(tmp_path / "none", ["none"])
                    except FileNotFoundError:
                        continue
                os.execv("/bin/true", ["true"])
            finally:
                os._exit(1)
        events = [event for event in live.collect(pid) if event.type.name == "exec"]
        assert os.waitpid(pid, 0)[1] == 0
    assert [event.get("ret") for event in events] == [*([-2] * 3 if wanted else []), 0]
