"""`record`: the live stream as an event file, which replays to the same alerts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from execray.ctl.main import main
from execray.eventfile import EventReader, open_events
from tests.support.fake_tracerd import DEADLINE_S, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, policyd_here, private_config, theft


async def test_what_is_recorded_replays_to_the_same_alert(tmp_path: Path) -> None:
    out = tmp_path / "seen.jsonl.gz"
    with private_config(tmp_path, {"a.policy": THEFT}) as config:
        async with policyd_here(config) as policyd:
            line = ["--runtime-dir", str(config.runtime_dir), "record", "-o", str(out), "--for", "4s", "--json"]
            recording = asyncio.create_task(asyncio.to_thread(CliRunner().invoke, main, line))
            await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a subscription for the recording")
            play = Play()
            theft(play)
            await policyd.tracerd.send(play.batch())
            (alert,) = await policyd.alerts_after(1)
            result: Result = await asyncio.wait_for(recording, DEADLINE_S)
    report = json.loads(result.stdout)
    assert report == {"file": str(out), "events": 2, "bytes": report["bytes"], "lost": 0, "full": False}
    assert out.stat().st_mode & 0o777 == 0o600
    with open_events(out) as lines:
        found = [batch.event(at) for batch in EventReader(lines, "f").batches() for at in range(len(batch.events))]
    assert [event.id for event in found] == [step["events"][0]["id"] for step in alert["execray"]["trail"]]
    policies = tmp_path / "policies"
    again = CliRunner().invoke(main, ["replay", str(out), "--policies", str(policies), "--json"])
    assert json.loads(again.stdout)["steps"] == [[event.id] for event in found]


def test_a_span_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    result = CliRunner().invoke(main, ["--runtime-dir", str(tmp_path), "record", "-o", str(out), "--for", "soon"])
    assert result.exit_code == 1 and "--for soon is no time" in result.stderr and not out.exists()
    away = CliRunner().invoke(main, ["--runtime-dir", str(tmp_path), "record", "-o", str(out)])
    assert away.exit_code == 3 and not out.exists()
