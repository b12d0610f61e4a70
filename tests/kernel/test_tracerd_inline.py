"""tracerd and kills in the kernel: from whom it takes rules, and when they are no longer in force."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
from contextlib import suppress

import pytest

from execray.errors import PeerError
from execray.gate.encoding import encode_plan
from execray.gate.inline import InlinePlan, InlinePolicy, Part, Rule, TextTest, encode_inline
from execray.gate.plan import ALL_BITS, CodeTest, GatePlan
from execray.schema.catalog import EVENT_BY_NAME
from execray.service import Peer
from execray.wire.control import Request
from execray.wire.frames import Batch, Settle, Subscribe
from tests.support.tracerds import loaded_tracerd
from tracerd import daemon as module
from tracerd.daemon import Tracerd
from tracerd.inline import _pid_key

OPEN = EVENT_BY_NAME["open"].code


def wanted() -> Subscribe:
    # nobody opens that
    rules = (Rule(0, 0, OPEN, (), (TextTest(Part.EXACT, b"/nowhere/" + os.urandom(8).hex().encode()),)),)
    return Subscribe((), 0, inline=encode_inline(InlinePlan((InlinePolicy(1, 1),), rules)))


def me(uid: int = 0) -> Peer:
    return Peer(os.getpid(), uid, 0)


def test_rules_are_taken_only_from_who_may_order_kills() -> None:
    with loaded_tracerd() as made:
        with pytest.raises(PeerError, match=r"enforcer\.orderers"):
            made._subscribe(wanted(), me(4711))
        assert not made._sensor.inline.plan.rules
        made._subscribe(dataclasses.replace(wanted(), inline=b""), me(4711))
        made._subscribe(wanted(), me())
        assert made._sensor.inline.status()["in_force"]


def test_the_configured_mode_counts_and_not_the_subscribers_word() -> None:
    with loaded_tracerd("audit") as made:
        made._subscribe(wanted(), me(4711))
        status = made._sensor.inline.status()
        assert (status["mode"], status["rules"], status["in_force"]) == ("off", 0, False)


def test_when_the_subscriber_is_gone_the_rules_are_as_well_and_come_back_as_others() -> None:
    with loaded_tracerd() as made:
        asked = wanted()
        made._subscribe(asked, me())
        before = made._sensor.inline._generation
        made._unsubscribed()
        status = made._sensor.inline.status()
        assert (status["rules"], status["in_force"]) == (0, False)
        made._subscribe(asked, me())
        assert made._sensor.inline._generation == before + 1


def test_when_the_subscriber_is_gone_the_gate_takes_everything_to_have_begun() -> None:
    code = CodeTest(EVENT_BY_NAME["kill"].code, 0, 1, 2, 2, 2, 2, 1)
    plan = encode_plan(GatePlan((code,), frozenset(), (0, ALL_BITS, 1), {}, slots={0: 1}, windows={1: None}))
    with loaded_tracerd() as made:
        gate = made._sensor.gate
        made._subscribe(dataclasses.replace(wanted(), plan=plan), me())
        made._settle(Settle(gate.generation, ()))
        assert made._sensor.gate_status()["settled"]
        made._unsubscribed()
        assert not made._sensor.gate_status()["settled"]


async def test_a_record_that_is_still_being_written_holds_up_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it may tell what had begun before a new plan, which policyd is asked for by the heartbeat."""
    with loaded_tracerd() as made:
        ring, beats, busy = made._sensor.ring, list[bool](), False
        monkeypatch.setattr(made, "_interval_s", 0.01)
        monkeypatch.setattr(made._stream, "heartbeat", lambda *_: beats.append(busy))
        monkeypatch.setattr(ring, "next", lambda: None)
        monkeypatch.setattr(ring, "release", lambda **_: None)
        for busy in (True, False):
            monkeypatch.setattr(type(ring), "end", ring.position + 8 * busy)
            with suppress(TimeoutError):
                await asyncio.wait_for(made._beat_until(asyncio.Event()), 0.3)
        assert beats and not any(beats)


async def keep_once(made: Tracerd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the keeper of the lease have one turn."""
    monkeypatch.setattr(module, "_LEASE_RENEWED_S", 0.01)
    with suppress(TimeoutError):
        await asyncio.wait_for(made._keep_lease(), 0.2)


async def test_the_lease_is_renewed_only_for_who_acknowledges_and_gets_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with loaded_tracerd() as made:
        made._subscribe(wanted(), me())
        monkeypatch.setattr(type(made._stream), "listening", True)
        retention, inline = made._stream.retention, made._sensor.inline
        retention.add(Batch(0, 1, (), (), ((OPEN, 1, 0, 7, 0),)))
        assert retention.next()
        waits = [0.0]
        monkeypatch.setattr(type(retention), "waiting_s", lambda _: waits[0])
        for waiting, renewed in ((0.0, True), (3.5, False)):
            inline.end_lease()
            waits[0] = waiting
            await keep_once(made, monkeypatch)
            assert inline.status()["in_force"] is renewed
        waits[0], before = 0.0, inline._generation
        retention.drops += 1
        await keep_once(made, monkeypatch)
        assert inline._generation == before + 1 and inline.status()["in_force"]


async def test_a_budget_that_cannot_be_looked_after_ends_the_lease_and_not_tracerd(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with loaded_tracerd() as made:
        made._subscribe(wanted(), me())
        monkeypatch.setattr(type(made._stream), "listening", True)
        monkeypatch.setattr(made._sensor.inline._tokens, "refill", fails)
        await keep_once(made, monkeypatch)
        assert not made._sensor.inline.status()["in_force"]
        assert "kills in the kernel suspended" in caplog.messages


async def test_who_registers_is_spared_also_where_it_cannot_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def spared(made: Tracerd) -> bool:
        return made._sensor.inline.maps["er_inline_spared"].lookup(_pid_key(os.getpid())) is not None

    with loaded_tracerd() as made:
        monkeypatch.setattr(made, "_hide", lambda peer, children: None)
        registration = made._op_register(Request("register_self", {"role": "enforcer"}), me())
        assert not spared(made)
        assert await anext(registration) == {"hidden": False} and spared(made)
        made._subscribe(wanted(), me())
        await registration.aclose()
        assert spared(made)  # as the subscriber that it is, too
