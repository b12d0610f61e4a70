"""Policies are loaded all or none, and only from those who may decide what is killed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.config import Config
from execray.control_client import OperationFailed
from tests.support.fake_tracerd import until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, Policyd, policyd_here, private_config, theft, write_policy

BROKEN = 'path "broken" { opne { } }\n'


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT}) as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


async def names(policyd: Policyd) -> list[str]:
    return [policy["name"] for policy in (await policyd.ask("policies"))["policies"]]


async def test_reload_takes_in_new_changed_and_removed_files(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", TOUCH)
    report = await policyd.ask("reload")
    assert report["ok"] is True and report["generation"] == 2 and report["policies"] == 2
    assert report["added"] == ["touch"] and report["unchanged"] == ["theft"] and report["ms"] > 0
    (policyd.policies / "a.policy").unlink()
    report = await policyd.ask("reload")
    assert report["removed"] == ["theft"] and await names(policyd) == ["touch"]


async def test_a_broken_file_changes_nothing_and_its_diagnostics_come_back(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", TOUCH)
    write_policy(policyd.policies / "c.policy", BROKEN)
    report = await policyd.ask("reload")
    assert report["ok"] is False and report["generation"] == 1
    (diagnostic,) = [found for found in report["diagnostics"] if found["severity"] == "error"]
    assert diagnostic["file"].endswith("c.policy") and diagnostic["line"] == 1 and diagnostic["code"].startswith("ER")
    assert "c.policy:1:" in report["rendered"]
    assert await names(policyd) == ["theft"] and len(policyd.tracerd.subscriptions) == 1
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    assert len(await policyd.alerts_after(1)) == 1


async def test_a_sequence_under_way_survives_the_reload_of_another_policy(policyd: Policyd) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3)
    first = play.batch()
    await policyd.tracerd.send(first)
    await policyd.tracerd.acknowledged(first)
    write_policy(policyd.policies / "b.policy", TOUCH)
    await policyd.ask("reload")
    play.event("connect", thief, family=2, ret=0)
    await policyd.tracerd.send(play.batch())
    (alert,) = await policyd.alerts_after(1)
    assert alert["execray"]["generation"] == 2


async def test_sighup_reloads(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", TOUCH)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a second subscription")
    assert await names(policyd) == ["theft", "touch"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_file_of_somebody_else_is_refused_and_the_old_set_stays(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", TOUCH)
    os.chown(policyd.policies / "b.policy", 54321, -1)
    report = await policyd.ask("reload")
    assert report["ok"] is False and await names(policyd) == ["theft"]
    assert "owned by uid 54321" in report["rendered"] and "chown" in report["rendered"]


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602])
async def test_a_file_that_others_may_write_is_refused(policyd: Policyd, mode: int) -> None:
    write_policy(policyd.policies / "b.policy", TOUCH)
    (policyd.policies / "b.policy").chmod(mode)
    report = await policyd.ask("reload")
    assert report["ok"] is False and "written by others" in report["diagnostics"][0]["message"]


async def test_a_folder_that_others_may_write_is_refused(policyd: Policyd) -> None:
    policyd.policies.chmod(0o777)
    report = await policyd.ask("reload")
    assert report["ok"] is False and "written by others" in report["rendered"]
    assert await names(policyd) == ["theft"]


async def test_what_is_no_regular_file_is_refused_without_waiting(policyd: Policyd) -> None:
    os.mkfifo(policyd.policies / "b.policy")
    report = await policyd.ask("reload")
    assert report["ok"] is False and "not a regular file" in report["rendered"]


async def test_a_folder_that_is_not_there_is_refused(policyd: Policyd, config: Config) -> None:
    policyd.policies.rename(policyd.policies.with_name("away"))
    report = await policyd.ask("reload")
    assert report["ok"] is False and "can't read the policy folder" in report["rendered"]


async def test_a_file_that_is_not_utf8_is_a_diagnostic(policyd: Policyd) -> None:
    path = policyd.policies / "b.policy"
    write_policy(path, "")
    path.write_bytes(b'path "\xff" { }')
    report = await policyd.ask("reload")
    assert report["ok"] is False and [d["code"] for d in report["diagnostics"] if d["severity"] == "error"] == [
        "ER0001"
    ]


async def test_other_files_in_the_folder_are_left_alone(policyd: Policyd) -> None:
    write_policy(policyd.policies / "README", BROKEN)
    assert (await policyd.ask("reload"))["ok"] is True


async def test_folders_are_read_in_order_and_files_by_name(config: Config, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir(mode=0o755)
    for folder, name in ((second, "1"), (second, "0"), (config.policyd.policy_dirs[0], "z")):
        write_policy(folder / f"{name}.policy", TOUCH.replace("touch", f"{folder.name}-{name}"))
    policyd_config = dataclasses.replace(config.policyd, policy_dirs=(*config.policyd.policy_dirs, second))
    async with policyd_here(dataclasses.replace(config, policyd=policyd_config)) as policyd:
        assert await names(policyd) == ["theft", "policies-z", "second-0", "second-1"]


async def test_it_starts_with_a_broken_file_says_so_and_can_be_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with private_config(tmp_path, {"a.policy": BROKEN, "b.policy": THEFT}) as config:
        async with policyd_here(config) as policyd:
            assert await names(policyd) == [] and "policies refused" in caplog.text
            (policyd.policies / "a.policy").unlink()
            assert (await policyd.ask("reload"))["ok"] is True
            assert await names(policyd) == ["theft"]


async def test_policy_show_gives_the_text_of_that_policy_alone(policyd: Policyd) -> None:
    text = "// about one\n" + TOUCH.replace("touch", "one") + "\n// about two\n" + TOUCH.replace("touch", "two")
    write_policy(policyd.policies / "b.policy", text)
    await policyd.ask("reload")
    found: dict[str, Any] = await policyd.ask("policy", name="one")
    assert found["source"] == TOUCH.replace("touch", "one").strip()
    assert found["line"] == 2 and found["steps"][0]["text"].startswith("open") and found["states"][-1]["accepting"]
    with pytest.raises(OperationFailed, match="no policy `three`"):
        await policyd.ask("policy", name="three")


async def test_reloads_at_the_same_time_are_done_one_after_the_other(policyd: Policyd) -> None:
    reports = await asyncio.gather(*(policyd.ask("reload") for _ in range(4)))
    assert sorted(report["generation"] for report in reports) == [2, 3, 4, 5]
