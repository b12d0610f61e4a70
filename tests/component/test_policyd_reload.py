"""Reload as a whole: nothing of an unchanged policy is lost or doubled, and asking what would change changes nothing."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from execray.config import Config
from execray.control_client import OperationFailed
from policyd import daemon
from policyd.engine.machine import Machine
from policyd.reloading import Reloader
from policyd.store import Candidate, PolicyStore
from policyd.stream_client import ACK_BATCHES
from tests.support.fake_tracerd import DEADLINE_S, until
from tests.support.playbook import Play, Proc
from tests.support.policyds import THEFT, TOUCH, Policyd, policyd_here, private_config, theft, write_policy

BROKEN = 'path "broken" { opne { } }\n'
RELOADS = 50


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT, "b.policy": TOUCH}) as made:
        yield made


@pytest.fixture
async def policyd(config: Config) -> AsyncIterator[Policyd]:
    async with policyd_here(config) as running:
        yield running


def edited(number: int) -> str:
    """TOUCH with something else in it, so that its hash changes."""
    return TOUCH.replace("/touched/", f"/touched{number}/")


async def test_every_sequence_of_an_unchanged_policy_is_found_once_through_fifty_reloads(policyd: Policyd) -> None:
    play, waiting, done = Play(), list[Proc](), asyncio.Event()
    begun = 0

    async def load() -> None:
        """Begins sequences and ends older ones, so that each lives through several reloads."""
        nonlocal begun
        sent = 0
        while not done.is_set() or waiting:
            ending = waiting[:8] if len(waiting) > 40 or done.is_set() else []
            del waiting[: len(ending)]
            for thief in ending:
                play.event("connect", thief, family=2, ret=0)
            if not done.is_set():
                for _ in range(8):
                    thief = play.process(exe=f"/tmp/thief{begun}")
                    begun += 1
                    play.event("open", thief, path="/etc/shadow", flags=0, ret=3)
                    play.event("open", thief, path="/touched/x", flags=0, ret=3)
                    waiting.append(thief)
            batch = play.batch()
            await policyd.tracerd.send(batch)
            sent += 1
            if sent % ACK_BATCHES == 0 or not waiting:  # between these policyd may wait for more to acknowledge
                await policyd.tracerd.acknowledged(batch)

    sender = asyncio.create_task(load())
    outcomes = Counter[bool]()
    for number in range(RELOADS):
        write_policy(policyd.policies / "b.policy", edited(number) if number % 5 else BROKEN)
        report = await policyd.ask("reload")
        outcomes[report["ok"]] += 1
        if report["ok"]:
            assert "theft" in report["unchanged"] and report["changed"] == ["touch"]
    done.set()
    await asyncio.wait_for(sender, DEADLINE_S)

    assert outcomes == {True: 40, False: 10} and begun > RELOADS
    found = [alert for alert in await policyd.alerts_after(begun) if alert["rule"]["name"] == "theft"]
    by_program = Counter(alert["process"]["executable"] for alert in found)
    assert by_program == {f"/tmp/thief{n}": 1 for n in range(begun)}
    assert len({alert["execray"]["alert_id"] for alert in found}) == begun
    assert Counter(order.exe for order in policyd.enforcer.kills) == by_program
    engine = (await policyd.ask("status"))["engine"]
    assert engine["evicted"] == 0 and engine["partials"] == 0


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", edited(1))
    write_policy(policyd.policies / "c.policy", TOUCH.replace("touch", "new"))
    (policyd.policies / "a.policy").unlink()
    before = await policyd.ask("policies")
    report = await policyd.ask("reload", dry_run=True)
    assert report["ok"] is True and report["dry_run"] is True and report["generation"] == 1
    assert (report["added"], report["removed"], report["changed"], report["unchanged"]) == (
        ["new"],
        ["theft"],
        ["touch"],
        [],
    )
    assert await policyd.ask("policies") == before and len(policyd.tracerd.subscriptions) == 1
    play = Play()
    theft(play)
    await policyd.tracerd.send(play.batch())
    assert len(await policyd.alerts_after(1)) == 1
    assert (await policyd.ask("reload"))["removed"] == ["theft"]


async def test_a_dry_run_of_a_mistake_shows_it(policyd: Policyd) -> None:
    write_policy(policyd.policies / "c.policy", BROKEN)
    report = await policyd.ask("reload", dry_run=True)
    assert report["ok"] is False and "c.policy:1:" in report["rendered"] and "added" not in report


async def test_comments_and_layout_are_no_change(policyd: Policyd) -> None:
    write_policy(policyd.policies / "b.policy", f"// what it is for\n\n{TOUCH}")
    report = await policyd.ask("reload")
    assert report["unchanged"] == ["theft", "touch"] and report["changed"] == []
    assert (await policyd.ask("policy", name="touch"))["line"] == 3


async def test_a_disabled_policy_detects_nothing_and_the_sensor_is_asked_for_less(policyd: Policyd) -> None:
    report = await policyd.ask("disabled", names=["theft", "unheard of"])
    assert report["removed"] == ["theft"] and report["unchanged"] == ["touch"]
    assert report["unknown"] == ["unheard of"] and report["policies"] == 1 and report["disabled"] == 1
    await until(lambda: len(policyd.tracerd.subscriptions) == 2, "a second subscription")
    first, second = policyd.tracerd.subscriptions
    assert set(second.codes) < set(first.codes)
    listed = {policy["name"]: policy["enabled"] for policy in (await policyd.ask("policies"))["policies"]}
    assert listed == {"theft": False, "touch": True}
    play = Play()
    thief = theft(play)
    play.event("open", thief, path="/touched/x", flags=0, ret=3)
    await policyd.tracerd.send(play.batch())
    assert [alert["rule"]["name"] for alert in await policyd.alerts_after(1)] == ["touch"]
    assert (await policyd.ask("status"))["disabled"] == 1

    assert (await policyd.ask("reload"))["policies"] == 1  # a reload doesn't bring it back
    assert (await policyd.ask("disabled", names=[]))["added"] == ["theft"]
    theft(play)
    await policyd.tracerd.send(play.batch())
    assert [alert["rule"]["name"] for alert in await policyd.alerts_after(2)] == ["touch", "theft"]


async def test_disabling_one_policy_keeps_the_sequences_of_the_others(policyd: Policyd) -> None:
    play = Play()
    thief = play.process(exe="/tmp/thief")
    play.event("open", thief, path="/etc/shadow", flags=0, ret=3)
    batch = play.batch()
    await policyd.tracerd.send(batch)
    await policyd.tracerd.acknowledged(batch)
    await policyd.ask("disabled", names=["touch"])
    play.event("connect", thief, family=2, ret=0)
    await policyd.tracerd.send(play.batch())
    assert len(await policyd.alerts_after(1)) == 1


async def test_what_the_configuration_disables_does_not_run_from_the_start(tmp_path: Path) -> None:
    policies = {"a.policy": THEFT, "b.policy": TOUCH}
    with private_config(tmp_path, policies, disabled=("theft",)) as config:
        async with policyd_here(config) as policyd:
            assert (await policyd.ask("status"))["policies"] == 1


@pytest.mark.parametrize("names", [None, "theft", [1], {"theft": True}])
async def test_disabled_takes_a_list_of_names_only(policyd: Policyd, names: Any) -> None:
    with pytest.raises(OperationFailed):
        await policyd.ask("disabled", names=names)
    assert (await policyd.ask("status"))["policies"] == 2


class SlowStore(PolicyStore):
    """Compiles only when it is told to."""

    def __init__(self) -> None:
        super().__init__((), frozenset())
        self.begun = 0
        self.running = 0
        self.go = threading.Event()

    def compile(self) -> Candidate:
        self.begun += 1
        self.running += 1
        assert self.running == 1, "two at once"
        assert self.go.wait(DEADLINE_S)
        self.running -= 1
        return super().compile()


async def test_a_reload_whose_asker_gives_up_keeps_the_next_one_waiting_until_it_has_ended() -> None:
    store = SlowStore()
    reloader = Reloader(Machine(), store, lambda gate: None, logging.getLogger("policyd"))
    first = asyncio.create_task(reloader.reload())
    await until(lambda: store.running == 1, "the first one's thread")
    first.cancel()
    second = asyncio.create_task(reloader.reload())
    await asyncio.wait({second}, timeout=0.05)
    assert store.begun == 1
    store.go.set()
    assert (await asyncio.wait_for(second, DEADLINE_S))["ok"] is True
    assert store.begun == 2 and first.cancelled()


async def test_a_hangup_during_a_reload_leads_to_one_more_and_no_more_than_one() -> None:
    store = SlowStore()
    reloader = Reloader(Machine(), store, lambda gate: None, logging.getLogger("policyd"))
    tasks = [asyncio.create_task(reloader.hang_up())]
    await until(lambda: store.running == 1, "the first one's thread")
    tasks += [asyncio.create_task(reloader.hang_up()) for _ in range(5)]
    await asyncio.wait(tasks[2:], timeout=DEADLINE_S)
    store.go.set()
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_S)
    assert store.begun == 2 and store.generation == 2


async def test_the_collector_stays_away_while_policies_are_built(
    policyd: Policyd, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, building, go = list[int](), threading.Event(), threading.Event()
    compile_ = PolicyStore.compile

    def held(store: PolicyStore) -> Candidate:
        building.set()
        assert go.wait(DEADLINE_S)
        return compile_(store)

    monkeypatch.setattr(daemon, "TICK_S", 0.02)
    monkeypatch.setattr(policyd.daemon._collector, "look", looks.append)
    monkeypatch.setattr(PolicyStore, "compile", held)
    await until(lambda: len(looks) > 1, "the collector's turns")
    asked = asyncio.create_task(policyd.ask("reload"))
    await until(building.is_set, "the thread that builds")
    before = len(looks)
    await asyncio.wait({asked}, timeout=0.2)
    assert len(looks) == before
    go.set()
    assert (await asked)["ok"]
    await until(lambda: len(looks) > before, "the collector's next turn")


async def test_a_burst_of_hangups_ends_in_the_newest_files(policyd: Policyd) -> None:
    for number in range(5):
        write_policy(policyd.policies / "b.policy", TOUCH.replace("touch", f"touch{number}"))
        os.kill(os.getpid(), signal.SIGHUP)

    async def newest() -> bool:
        return "touch4" in [policy["name"] for policy in (await policyd.ask("policies"))["policies"]]

    async with asyncio.timeout(DEADLINE_S):
        while not await newest():
            pass


READS = """list READERS = ["/usr/bin/sudo"]
path "reads" { open { path = "/etc/shadow" exe not in READERS } }
"""


async def read_by(policyd: Policyd, play: Play, exe: str) -> None:
    play.event("open", play.process(exe=exe), path="/etc/shadow", flags=0, ret=3)
    batch = play.batch()
    await policyd.tracerd.send(batch)
    await policyd.tracerd.acknowledged(batch)


async def test_what_another_file_adds_to_a_list_or_excepts_counts_from_the_next_reload_on(tmp_path: Path) -> None:
    with private_config(tmp_path, {"a.policy": READS, "b.policy": TOUCH}) as config:
        async with policyd_here(config) as policyd:
            play = Play()
            await read_by(policyd, play, "/opt/one")
            write_policy(policyd.policies / "z.policy", 'list READERS += ["/opt/one"]')
            report = await policyd.ask("reload")
            assert report["changed"] == ["reads"] and report["unchanged"] == ["touch"]
            write_policy(policyd.policies / "y.policy", 'exception for "r*" "ours" { exe = "/opt/two" }')
            assert (await policyd.ask("reload"))["changed"] == ["reads"]
            for exe in ("/opt/one", "/opt/two", "/opt/three"):
                await read_by(policyd, play, exe)
            programs = [alert["process"]["executable"] for alert in await policyd.alerts_after(2)]
            assert programs == ["/opt/one", "/opt/three"]
            assert (await policyd.ask("status"))["engine"]["excepted"] == 1


async def test_an_exception_ends_with_its_day_without_a_reload_and_without_reading_files(tmp_path: Path) -> None:
    today = datetime.date(2026, 11, 22)
    ours = 'exception for "reads" "ours" until "2026-11-22" { exe = "/opt/one" }'
    with private_config(tmp_path, {"a.policy": READS, "y.policy": ours}) as config:
        async with policyd_here(config, today=lambda: today) as policyd:
            play = Play()
            await read_by(policyd, play, "/opt/one")
            write_policy(policyd.policies / "c.policy", BROKEN)
            today += datetime.timedelta(days=1)

            async def generation() -> int:
                found: int = (await policyd.ask("policies"))["generation"]
                return found

            async with asyncio.timeout(DEADLINE_S):
                while await generation() == 1:
                    pass
            await read_by(policyd, play, "/opt/one")
            assert [alert["rule"]["name"] for alert in await policyd.alerts_after(1)] == ["reads"]
            assert await generation() == 2
