"""`policy list` and completion: what policyd says each policy will do, and the names that it knows."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from execray.config import Config
from execray.control import ControlServer
from execray.ctl.main import main
from execray.service import Peer
from execray.wire.control import Request
from tests.support.fake_tracerd import DEADLINE_S
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, Policyd, policyd_here, private_config, theft

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT, "b.policy": TOUCH}, mode="audit") as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


async def listed(config: Config, *args: str) -> str:
    line = ["--runtime-dir", str(config.runtime_dir), "policy", *(args or ("list",))]
    result = await asyncio.to_thread(CliRunner().invoke, main, line)
    assert result.exit_code == 0, result.output
    return result.stdout


@asynccontextmanager
async def an_enforcer(config: Config, mode: str) -> AsyncIterator[None]:
    """An enforcer's control socket, as far as its mode goes."""

    async def status(_request: Request, _peer: Peer) -> object:
        return {"mode": mode}

    config.daemon_dir("enforcer").mkdir(exist_ok=True)
    server = ControlServer(config.control_socket("enforcer"), "", {"status": status}, logging.getLogger("enforcer"))
    await server.open()
    task = asyncio.create_task(server.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_policy_is_listed_with_what_it_will_do_and_why(policyd: Policyd, config: Config) -> None:
    shown = await listed(config)
    assert "audit (1)" in shown and "(1) audit: the host's mode is audit" in shown
    assert "alert (2)" in shown and "(2) alert: no handler kills" in shown
    assert "on this host  audit: the host's mode is audit" in await listed(config, "show", "theft")


@root_only
async def test_the_answer_follows_the_host(policyd: Policyd, config: Config) -> None:
    await policyd.ask("mode", mode="enforce")
    async with an_enforcer(config, "audit"):
        assert "(1) audit: the enforcer's mode is audit" in await listed(config)
    async with an_enforcer(config, "enforce"):
        assert "(1) kill: by the enforcer" in await listed(config)
    assert "(1) kill: by the enforcer" in await listed(config)  # one that doesn't say is taken at its connection
    policyd.enforcer.stats.connected = False
    found = json.loads(await listed(config, "list", "--json"))["policies"][0]
    assert found["effective"] == {"response": "kill", "why": ["by policyd itself: no enforcer is connected"]}
    await policyd.ask("disabled", names=["theft"])
    assert "off (1)" in await listed(config) and "off: it is disabled" in await listed(config, "show", "theft")


async def test_what_the_kernel_refuses_makes_blind(policyd: Policyd, config: Config) -> None:
    await policyd.tracerd.heartbeat(1, hooks={"open": {"refused": "EPERM"}, "exec": {"refused": ""}, "junk": 3})
    while not (await policyd.ask("status"))["sensor"]:
        pass
    assert "blind: `open` is refused by the kernel: EPERM" in await listed(config)


async def complete(config_file: Path, words: str) -> list[str]:
    line = ["execray-ctl", "--config", str(config_file), *words.split(" ")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from execray.ctl.main import main; main(prog_name='execray-ctl')"),
        env={
            **os.environ,
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
            "_EXECRAY_CTL_COMPLETE": "bash_complete",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert errors == b"", errors
    return [item.partition(",")[2] for item in out.decode().split("\n") if item]


def config_file(folder: Path, text: str) -> Path:
    path = folder / "execray.yaml"
    path.write_text(text)
    path.chmod(0o644)
    return path


async def test_names_are_completed_by_asking_and_silently_not_without_an_answer(
    policyd: Policyd, config: Config, tmp_path: Path
) -> None:
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    (alert,) = await policyd.alerts_after(1)
    number = alert["execray"]["alert_id"]
    file = config_file(tmp_path, json.dumps({"runtime_dir": str(config.runtime_dir), "group": ""}))

    assert await complete(file, "policy disable t") == ["theft", "touch"]
    assert await complete(file, "policy show to") == ["touch"]
    assert await complete(file, f"alerts show {number[:3]}") == [number]
    assert await complete(file, f"alerts why {number[:3]}") == [number]
    await policyd.stop()
    assert await complete(file, "policy disable t") == [] and await complete(file, "alerts show ") == []
    assert await complete(config_file(tmp_path, "mdoe: audit\n"), "policy disable t") == []
