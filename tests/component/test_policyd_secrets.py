"""What processes write, and their arguments, may be passwords: alerts have them, logs and the journal don't."""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.config import Config
from execray.logs import KeyValueFormatter
from policyd.sinks.journal import JournalSink
from tests.support.playbook import Play
from tests.support.policyds import policyd_here, private_config

ARGUMENT, CONTENT = "--password=hunter2", "root:$6$very.secret"

POLICY = """
policy "leak" response enforce {
    open  { path = "/etc/shadow" } as hashes
    write { content contains "root:" cmdline contains "password" }
    on step hashes { log; capture }
    on match { alert critical; log; kill }
}
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": POLICY}) as made:
        yield made


async def test_neither_logs_nor_the_journal_have_them_and_the_alert_file_does(
    config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    path = config.runtime_dir / "journal"
    monkeypatch.setattr("policyd.daemon.JournalSink", lambda: JournalSink(path))
    config = dataclasses.replace(config, policyd=dataclasses.replace(config.policyd, sinks=("file", "journal")))
    play = Play()
    thief = play.process(exe="/tmp/thief", comm="thief", argv=["thief", ARGUMENT])
    child = play.process(thief, exe="/tmp/child", comm="child", argv=["child", ARGUMENT])
    for actor in (thief, child):
        play.event("open", actor, path="/etc/shadow", flags=0, ret=3)
        play.event("write", actor, fd=3, path="/tmp/x", content=CONTENT, len=len(CONTENT), ret=len(CONTENT))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        journal.settimeout(10)
        async with policyd_here(config) as policyd:
            await policyd.tracerd.send(play.batch())
            await policyd.alerts_after(2)
            (config.policyd.policy_dirs[0] / "b.policy").write_text("policy")
            await policyd.ask("reload")  # a mistake, whose rendering is logged
        entries = [journal.recv(1 << 20).decode("utf-8", "replace") for _ in range(2)]
    file = config.alerts_file.read_text()
    assert ARGUMENT in file and CONTENT in file
    formatter = KeyValueFormatter("policyd")
    lines = [formatter.format(record) for record in caplog.records]
    assert {"policy log", "kill", "policies refused"} <= {record.getMessage() for record in caplog.records}
    for said in (*lines, *entries):
        assert ARGUMENT not in said and "hunter2" not in said and CONTENT not in said
