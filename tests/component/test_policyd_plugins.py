"""Plug-ins in processes of their own, real ones: whatever one does harms nothing but itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.config import Config
from execray.errors import OperatorError
from execray.logs import KeyValueFormatter
from execray.plugins import SINKS
from policyd.plugin_facts import MAX_WAITING
from tests.support.fake_tracerd import until
from tests.support.playbook import Play
from tests.support.plugin_folder import install, install_misbehaved
from tests.support.policyds import THEFT, Policyd, policyd_here, private_config, theft

TELLING = THEFT.replace("kill", 'notify "bad_too" with { path = hashes.path }; kill')


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """Both kinds of the plug-in of tests/data/plugins, and a policy that tells it."""
    with private_config(tmp_path, {"a.policy": TELLING}) as made:
        folder = install_misbehaved(tmp_path / "plugins")
        own = dataclasses.replace(made.policyd, sinks=("file", "bad"), actions=("bad_too",), plugin_dir=folder)
        yield dataclasses.replace(made, policyd=own)


def behaving(
    config: Config, how: str = "good", *, timeout_s: float = 30.0, memory_mib: int = 256, **more: Any
) -> Config:
    """The configuration with settings for both."""
    folder = config.state_dir.parent
    plugins = {name: {"how": how, "record": str(folder / f"{name}.record"), **more} for name in ("bad", "bad_too")}
    own = dataclasses.replace(config.policyd, plugins=plugins, plugin_timeout_s=timeout_s, plugin_memory_mib=memory_mib)
    return dataclasses.replace(config, policyd=own)


def record(config: Config, name: str) -> list[str]:
    """What a plug-in was handed, in its own words."""
    path = Path(str(config.policyd.plugins[name]["record"]))
    return path.read_text().splitlines() if path.exists() else []


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """The log as it is written, with all its values."""
    return "\n".join(map(KeyValueFormatter("policyd").format, caplog.records))


def values(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The values of each line of the log."""
    return [vars(line).get("kv", {}) for line in caplog.records]


class Thieves:
    """Thefts in a policyd, one after the other: each is to be killed and to have its alert in the file."""

    def __init__(self, policyd: Policyd) -> None:
        self.policyd = policyd
        self._play = Play()
        self.count = 0

    async def strike(self, count: int = 1) -> list[dict[str, Any]]:
        """Commits thefts; returns all alerts when the last one's kill was ordered and its alert is on disk."""
        policyd = self.policyd
        for _ in range(count):
            self.count += 1
            theft(self._play, self._play.process(exe=f"/tmp/thief{self.count}"))
        batch = self._play.batch()
        await policyd.tracerd.send(batch)
        await until(lambda: len(policyd.enforcer.kills) >= self.count, f"kill {self.count}")
        await policyd.tracerd.acknowledged(batch)
        alerts = policyd.alerts()
        assert [alert["execray"]["action"]["kill"]["result"] for alert in alerts] == ["killed"] * self.count
        return alerts

    def plugin(self, name: str) -> dict[str, Any]:
        """A plug-in's part of the status."""
        return next(found for found in self.policyd.daemon.plugin_status() if found["name"] == name)

    async def idle(self, name: str) -> dict[str, Any]:
        """Waits until a plug-in has nothing to do."""
        await until(lambda: self.plugin(name)["state"] == "idle" and not self.plugin(name)["waiting"], f"{name} idle")
        return self.plugin(name)

    async def both(self, condition: str, least: int = 1) -> None:
        """Waits until a count of both plug-ins is as high as that."""
        for name in ("bad", "bad_too"):
            await until(lambda: self.plugin(name)[condition] >= least, f"{condition} of {name}")  # noqa: B023  # awaited here


@contextlib.asynccontextmanager
async def thieves_in(config: Config, *, ready: bool = True) -> AsyncIterator[Thieves]:
    """A policyd with the plug-ins, and thieves. Afterwards no process of a plug-in may be left."""
    pids: set[object] = set()
    async with policyd_here(config) as policyd:
        thieves = Thieves(policyd)
        if ready:
            await thieves.idle("bad")
            await thieves.idle("bad_too")
        yield thieves
        pids = {found["pid"] for found in policyd.daemon.plugin_status() if "pid" in found}
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]  # noqa: ASYNC240  # procfs: nothing waits for a disk


# --- what they are told ---------------------------------------------------------------------------------------------------


async def test_a_sink_gets_every_alert_and_an_action_every_request_and_both_are_closed(config: Config) -> None:
    config = behaving(config)
    async with thieves_in(config) as thieves:
        alerts = await thieves.strike(3)
        await thieves.both("done", 3)
        status = await thieves.policyd.ask("status")
    ids = [alert["execray"]["alert_id"] for alert in alerts]
    assert record(config, "bad") == [*ids, "closed"] and record(config, "bad_too") == ids
    assert {tuple(told.items()) for alert in alerts for told in alert["execray"]["action"]["notify"]} == {
        (("plugin", "bad_too"), ("result", "queued"))
    }
    assert status["sinks"]["bad"] == {"written": 3, "failed": 0, "dropped": 0}
    assert [(found["kind"], found["name"], found["package"], found["done"]) for found in status["plugins"]] == [
        ("sink", "bad", "misbehaved 1.0", 3),
        ("action", "bad_too", "misbehaved 1.0", 3),
    ]
    assert status["notices"] == {"queued": 3}


async def test_what_is_queued_at_the_end_is_still_delivered(config: Config) -> None:
    config = behaving(config, "is slow")
    async with thieves_in(config) as thieves:
        await thieves.strike(3)  # ends at once, with the third not even begun
    assert len(record(config, "bad")) == 4 and len(record(config, "bad_too")) == 3


async def test_one_that_is_not_allowed_is_warned_of_and_all_else_works(config: Config) -> None:
    config = dataclasses.replace(config, policyd=dataclasses.replace(config.policyd, sinks=("file",), actions=()))
    async with policyd_here(config) as policyd:
        thieves = Thieves(policyd)
        (alert,) = await thieves.strike()
        report = await policyd.ask("reload")
    assert alert["execray"]["action"]["notify"] == [{"plugin": "bad_too", "result": "not_allowed"}]
    assert report["ok"] and "ER0513" in report["rendered"] and policyd.daemon.plugin_status() == []


# --- whatever they do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "count", "words"),
    [
        ("raises", "failed", "ValueError: no\nthank\x1b[2Jyou"),
        ("hangs", "timeouts", "it gave no answer within 0.3 s"),
        ("segfaults", "crashes", "it ended: killed by SIGSEGV"),
        ("exits", "crashes", "it ended: exit status 3"),
        ("raises SystemExit", "crashes", "it ended: exit status 4"),
        ("eats memory", "failed", "MemoryError"),
        ("forks", "failed", "PermissionError: [Errno 1] Operation not permitted"),
        ("makes threads", "failed", "RuntimeError: can't start new thread"),
        ("floods stdout", "timeouts", "it gave no answer within 0.3 s"),
        ("stops itself", "timeouts", "it gave no answer within 0.3 s"),
        ("talks nonsense", "crashes", "it talks nonsense: not a line of JSON: killed by SIGKILL"),
        ("talks without end", "crashes", "it talks nonsense: an answer without end: killed by SIGKILL"),
        ("answers what it wasn't asked", "crashes", "it answers what it wasn't asked: killed by SIGKILL"),
        ("closes its side", "crashes", "it ended"),
        ("kills policyd", "failed", "PermissionError: [Errno 1] Operation not permitted"),
    ],
)
async def test_it_harms_nothing_but_itself(config: Config, how: str, count: str, words: str) -> None:
    patient = 0.3 if count == "timeouts" else 30.0
    async with thieves_in(behaving(config, how, timeout_s=patient, memory_mib=128)) as thieves:
        for _ in range(3):
            await thieves.strike()
        await thieves.both(count)
        for name in ("bad", "bad_too"):
            plugin = thieves.plugin(name)
            assert plugin["last_error"].startswith(words) and plugin["done"] == 0
        await thieves.strike()


@pytest.mark.parametrize("how", ["hangs", "floods stdout", "stops itself"])
async def test_nobody_waits_for_one_that_does_not_answer(config: Config, how: str) -> None:
    # The two are at their first item from the first theft to the end of the test, and all goes on meanwhile.
    config = behaving(config, how, timeout_s=300)
    async with thieves_in(config) as thieves:
        await thieves.strike()
        await until(lambda: record(config, "bad") and record(config, "bad_too"), "both at work")
        await thieves.strike(5)
        for name in ("bad", "bad_too"):
            plugin = thieves.plugin(name)
            assert (plugin["state"], plugin["done"], plugin["waiting"]) == ("busy", 0, 5)
            assert len(record(config, name)) == 1


async def test_one_that_is_too_far_behind_loses_items_which_are_counted_and_told(config: Config) -> None:
    config = behaving(config, "hangs", timeout_s=300)
    async with thieves_in(config) as thieves:
        await thieves.strike()
        await until(lambda: record(config, "bad") and record(config, "bad_too"), "both at work")
        await thieves.strike(MAX_WAITING // 2)  # in two parts, for the orders under way have a bound too
        alerts = await thieves.strike(MAX_WAITING // 2 + 7)
        for name in ("bad", "bad_too"):
            assert (thieves.plugin(name)["waiting"], thieves.plugin(name)["dropped"]) == (MAX_WAITING, 7)
    told = [alert["execray"]["action"]["notify"][0]["result"] for alert in alerts]
    assert told == ["queued"] * (MAX_WAITING + 1) + ["dropped"] * 7


async def test_one_that_ended_is_started_again_and_gets_what_came_meanwhile_but_not_the_item_it_died_of(
    config: Config,
) -> None:
    config = behaving(config, "exits", times=1)
    async with thieves_in(config) as thieves:
        alerts = await thieves.strike(3)
        await thieves.both("done", 2)
        for name in ("bad", "bad_too"):
            plugin = await thieves.idle(name)
            assert (plugin["starts"], plugin["crashes"], plugin["failed"], plugin["done"]) == (2, 1, 1, 2)
    ids = [alert["execray"]["alert_id"] for alert in alerts]
    assert record(config, "bad_too") == ids


async def test_one_that_dies_while_it_has_nothing_to_do_is_noticed_and_started_again(config: Config) -> None:
    async with thieves_in(behaving(config)) as thieves:
        first = thieves.plugin("bad")["pid"]
        os.kill(first, 9)
        await until(lambda: thieves.plugin("bad")["starts"] == 2, "another start")
        plugin = await thieves.idle("bad")
        assert plugin["crashes"] == 1 and plugin["pid"] != first and "killed by SIGKILL" in plugin["last_error"]


async def test_each_start_that_fails_is_put_off_longer_than_the_one_before(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async with thieves_in(behaving(config, "raises", at="make"), ready=False) as thieves:
        await thieves.both("crashes", 2)
        await thieves.strike()
    pauses = [kv["next_start_s"] for kv in values(caplog) if kv.get("plugin") == "bad" and "next_start_s" in kv]
    assert pauses[:2] == [0.5, 1.0]
    assert 'reason="it refuses to start: ValueError"' in logged(caplog) and "thank" not in logged(caplog)


@pytest.mark.parametrize("how", ["exits", "closes its output", "hangs"])
async def test_whatever_it_does_while_it_is_made(config: Config, how: str) -> None:
    async with thieves_in(behaving(config, how, at="make"), ready=False) as thieves:
        await thieves.strike(2)
        plugin = thieves.plugin("bad")
        assert plugin["state"] in ("starting", "down", "idle", "busy") and plugin["failed"] == 0


@pytest.mark.parametrize("how", ["hangs", "raises", "exits", "leaves a thread"])
async def test_whatever_it_does_while_it_is_closed_policyd_ends(config: Config, how: str) -> None:
    async with thieves_in(behaving(config, how, at="close")) as thieves:
        await thieves.strike()


async def test_the_last_lines_that_it_printed_are_in_the_status_and_never_in_the_log(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "policyd"):
        async with thieves_in(behaving(config, "floods stdout", timeout_s=0.5)) as thieves:
            await thieves.strike()
            await thieves.both("timeouts")
            plugin = thieves.plugin("bad")
    assert plugin["output"] == ["x" * 300] * 20 and plugin["output_bytes"] > 10_000
    assert "xxx" not in logged(caplog)


async def test_what_it_says_of_a_failure_is_in_the_status_and_only_its_kind_in_the_log(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async with thieves_in(behaving(config, "raises")) as thieves:
        await thieves.strike()
        await thieves.both("failed")
        plugin = thieves.plugin("bad")
    assert "no\nthank" in plugin["last_error"] and "Traceback (most recent call last):" in plugin["output"]
    assert "reason=ValueError" in logged(caplog) and "thank" not in logged(caplog)


async def test_one_that_fails_each_item_does_not_fill_the_log(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    async with thieves_in(behaving(config, "raises")) as thieves:
        await thieves.strike(100)
        await thieves.both("failed", 100)
    assert 1 <= len([kv for kv in values(caplog) if kv.get("plugin") == "bad"]) <= 25


# --- which ones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "message", "hint"),
    [
        ({"sinks": ("file", "good")}, "there is no alert sink `good`",
         "built in: file, stdout, journal; installed: bad (misbehaved 1.0)"),
        ({"actions": ("bad",)}, "there is no action plug-in `bad`", "installed: bad_too (misbehaved 1.0)"),
    ],
)  # fmt: skip
async def test_a_name_that_is_not_installed_is_an_operator_error_that_lists_what_is(
    config: Config, own: dict[str, Any], message: str, hint: str
) -> None:
    broken = dataclasses.replace(config, policyd=dataclasses.replace(behaving(config).policyd, **own))
    with pytest.raises(OperatorError) as caught:
        async with policyd_here(broken, wait=False) as policyd:
            await policyd.task
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("make = 1\n", "gaudy.EXECRAY_API is None, and this is version 1"),
        ("EXECRAY_API = 2\n", "gaudy.EXECRAY_API is 2, and this is version 1"),
        ("EXECRAY_API = 1\n", "AttributeError"),
        ("EXECRAY_API = 1\nmake = dict\n", "AttributeError"),
        ("EXECRAY_API = 1\nmake = 5\n", "TypeError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("(\n", "SyntaxError"),
    ],
)
async def test_one_that_is_not_what_it_should_be_says_so_in_the_status(config: Config, source: str, words: str) -> None:
    install(config.policyd.plugin_dir, "gaudy", source, {SINKS: {"gaudy": "gaudy:make"}})
    own = dataclasses.replace(behaving(config).policyd, sinks=("file", "gaudy"), actions=())
    async with policyd_here(dataclasses.replace(config, policyd=own)) as policyd:
        thieves = Thieves(policyd)
        await until(lambda: thieves.plugin("gaudy")["crashes"], "a refusal")
        assert thieves.plugin("gaudy")["last_error"].startswith(f"it refuses to start: {words}")
        await thieves.strike()


async def test_settings_are_not_on_the_command_line_nor_in_the_log(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "policyd"):
        async with thieves_in(behaving(config, token="s3cret")) as thieves:
            pid = thieves.plugin("bad")["pid"]
            shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()  # noqa: ASYNC240  # procfs: nothing waits for a disk
            assert b"execray.plugin_host" in shown and b"s3cret" not in shown
            assert "s3cret" not in str(await thieves.policyd.ask("status"))
    assert "plug-in started" in logged(caplog) and "s3cret" not in logged(caplog)
