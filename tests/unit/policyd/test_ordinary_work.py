"""The shipped policies over a recording of ordinary work: next to nothing to say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from execray.eventfile import EventReader, Notes, open_events
from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.event import Event, text
from execray.wire.frames import Batch
from policyd.compiler import compile_set
from policyd.program import Severity
from policyd.workbench.replay import Replay

RECORDING = Path("tests/data/ordinary/work.jsonl.zst")
POLICIES = Path("policies")


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    notes = Notes()
    with open_events(RECORDING) as lines:
        found = list(EventReader(lines, RECORDING.name, notes).batches())
    assert notes.first_line == {}
    return found


def test_ordinary_work_raises_at_most_one_alert_of_high_severity(batches: list[Batch]) -> None:
    compiled = compile_set([(file.name, file.read_bytes()) for file in sorted(POLICIES.glob("*.policy"))])
    replay = Replay(compiled.policies)
    found = [item for item in replay.run(batches) if not item.suppressed]
    assert replay.machine.stats()["events"] > 10_000
    alerts = Counter((item.policy, item.severity.name, item.process.partition("[")[0]) for item in found)
    assert sum(count for (_, severity, _), count in alerts.items() if Severity[severity] >= Severity.HIGH) <= 1, alerts
    assert alerts.total() <= 6, alerts


def name_of(event: Event) -> str:
    name = event.get("name")
    return text(name) if isinstance(name, bytes) else ""


def test_the_recording_has_every_kind_of_work_in_it(batches: list[Batch]) -> None:
    exec_code = EVENT_BY_NAME["exec"].code
    rows = ((batch, at) for batch in batches for at, row in enumerate(batch.events) if row[0] == exec_code)
    programs = {name_of(batch.event(at)) for batch, at in rows}
    wanted = (
        "apt-get dpkg useradd sudo git cc1 make gdb strace python3.11 node sshd ssh scp rsync cron logrotate nginx man"
    )
    assert {*wanted.split(), "vim.basic"} <= programs
