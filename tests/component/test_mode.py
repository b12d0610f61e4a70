"""`mode` and `policy enable|disable`: told to running daemons, kept in drop-ins, and for root only."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from execray.config import load
from execray.control import require_root
from execray.control_client import OperationFailed
from execray.ctl.dropin import write_drop_in
from execray.ctl.main import main
from execray.errors import ConfigError, OperatorError
from execray.service import Peer
from execray.wire.orders import Mode
from execray.wire.orders import Result as Outcome
from policyd import control_ops
from tests.support.enforcers import config_in, connection, enforcer_here, status_of
from tests.support.orders import died_of_sigkill, key_of, make_order, runtime_dir, victim
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, policyd_here, private_config, theft

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the mode")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        yield folder


async def ctl(*args: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, [*map(str, args)])


def config_file(folder: Path, runtime: Path, **more: Any) -> Path:
    file = folder / "execray.yaml"
    file.write_text(json.dumps({"runtime_dir": str(runtime), "group": "", **more}))
    file.chmod(0o644)
    return file


async def test_enforcer_in_audit_kills_nobody_until_it_is_told_to(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir, mode="audit")
    file = config_file(tmp_path, config.runtime_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            assert (await orders.ask(make_order(key_of(child.pid)))).result is Outcome.WOULD_KILL
            done = await ctl("--config", file, "mode", "enforce", "--yes")
            assert (
                done.exit_code == 3 and "policyd is not running" in done.stderr and "takes the setting" in done.stderr
            )
            assert (await status_of(config))["mode"] == "enforce" and load(file).mode == "enforce"
            assert (await orders.ask(make_order(key_of(child.pid)))).result is Outcome.KILLED
            assert died_of_sigkill(child)
        with victim() as child:
            await ctl("--config", file, "mode", "audit")
            assert (await orders.ask(make_order(key_of(child.pid)))).result is Outcome.WOULD_KILL
            assert child.poll() is None and load(file).mode == "audit"


async def test_a_mode_by_which_the_kernel_may_not_go_yet_is_told_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_ops, "CONFIRM_S", 0.1)
    with private_config(tmp_path, {"a.policy": THEFT}) as config:
        file = config_file(tmp_path, config.runtime_dir)
        async with policyd_here(config) as policyd:
            for takes in (False, True):
                policyd.tracerd.takes = takes
                done = await ctl("--config", file, "mode", "audit")
                assert ("policyd: tracerd has not confirmed yet" in done.stderr) is not takes
                assert done.exit_code == 3  # the enforcer isn't there either
                assert (await policyd.ask("status"))["mode"] == "audit"
            policyd.tracerd.takes = False
            done = await ctl("--config", file, "policy", "disable", "theft")
            assert done.exit_code == 3 and "tracerd has not confirmed yet" in done.stderr


async def test_policyd_orders_kills_only_once_the_host_enforces(tmp_path: Path) -> None:
    with private_config(tmp_path, {"a.policy": THEFT}, mode="audit") as config:
        file = config_file(tmp_path, config.runtime_dir)
        async with policyd_here(config) as policyd:
            play = Play()
            theft(play)
            await policyd.tracerd.send(play.batch())
            (first,) = await policyd.alerts_after(1)
            assert first["execray"]["action"]["kill"]["result"] == "would_kill" and not policyd.enforcer.kills
            done = json.loads((await ctl("--config", file, "mode", "enforce", "--yes", "--json")).stdout)
            assert (done["mode"], list(done["not_told"])) == ("enforce", ["enforcer"])
            assert policyd.enforcer.mode is Mode.ENFORCE and (await policyd.ask("status"))["mode"] == "enforce"
            theft(play)
            await policyd.tracerd.send(play.batch())
            second = (await policyd.alerts_after(2))[-1]
            assert second["execray"]["action"]["kill"]["result"] == "killed" and second["execray"]["mode"] == "enforce"
            shown = (await ctl("--config", file, "mode")).stdout
            assert "configured enforce" in shown and "policyd    enforce" in shown
            for bad in ("", "kill", 1, None):
                with pytest.raises(OperationFailed):
                    await policyd.ask("mode", mode=bad)


async def test_a_policy_is_switched_off_and_on_and_stays_so(tmp_path: Path) -> None:
    with private_config(tmp_path, {"a.policy": THEFT, "b.policy": TOUCH}) as config:
        file = config_file(tmp_path, config.runtime_dir)
        async with policyd_here(config) as policyd:
            off = await ctl("--config", file, "policy", "disable", "theft", "theft")
            assert off.exit_code == 0 and off.stdout.startswith("disabled theft")
            assert load(file).policyd.disabled == ("theft",) and (await policyd.ask("status"))["policies"] == 1
            unknown = await ctl("--config", file, "policy", "disable", "thief")
            assert unknown.exit_code == 1 and "no policy `thief` is loaded" in unknown.stderr
            on = json.loads((await ctl("--config", file, "policy", "enable", "theft", "--json")).stdout)
            assert on["ok"] and on["disabled"] == [] and (await policyd.ask("status"))["policies"] == 2
            assert load(file).policyd.disabled == ()


async def test_enforce_is_not_set_without_a_question_or_yes(tmp_path: Path) -> None:
    file = config_file(tmp_path, tmp_path / "r")
    asked = await ctl("--config", file, "mode", "enforce")
    assert asked.exit_code == 1 and "give --yes" in asked.stderr and load(file).mode == "audit"
    assert not (tmp_path / "execray.d").exists()


def test_only_root_may_change_how_far_it_goes() -> None:
    with pytest.raises(OperatorError, match="uid 1000 may not"):
        require_root(Peer(1, 1000, 1000), "mode")


def test_a_drop_in_that_breaks_the_configuration_is_taken_back(tmp_path: Path) -> None:
    file = config_file(tmp_path, tmp_path / "r")
    path = write_drop_in(file, "90-mode.yaml", "mode", "enforce", "test")
    before = path.read_bytes()
    assert before.startswith(b"# Written by `test` for ") and path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ConfigError):
        write_drop_in(file, "90-mode.yaml", "mode", "maybe", "test")
    assert path.read_bytes() == before
    with pytest.raises(ConfigError):
        write_drop_in(file, "95-x.yaml", "what", "1", "test")
    assert [p.name for p in path.parent.iterdir()] == ["90-mode.yaml"]


async def test_what_a_later_drop_in_would_undo_is_refused_and_named(tmp_path: Path) -> None:
    with private_config(tmp_path, {"a.policy": THEFT}) as config:
        file = config_file(tmp_path, config.runtime_dir)
        later = tmp_path / "execray.d" / "95-z.yaml"
        later.parent.mkdir()
        later.write_text("mode: enforce\npolicyd: {disabled: []}\n")
        async with policyd_here(config):
            for command in (("mode", "audit"), ("policy", "disable", "theft")):
                result = await ctl("--config", file, *command)
                assert result.exit_code == 1 and f"set by {later}:" in result.stderr and "read later" in result.stderr
                assert [p.name for p in later.parent.iterdir()] == [later.name]
