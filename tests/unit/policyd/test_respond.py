"""What becomes of the engine's outputs: by which values alerts are throttled, how a key is shown, what an exception leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from execray.gate.inline import tag_of
from execray.schema.catalog import Flag
from execray.schema.field import KILLER_SHIFT
from execray.wire.orders import Mode, Order, Outcome, Result
from policyd.alerts import Origin
from policyd.compiler import compile_set
from policyd.enforcer_client import ClientStats
from policyd.engine.machine import Machine
from policyd.engine.outputs import Output
from policyd.program import CompiledPolicy, KeyKind
from policyd.respond import Responder
from tests.support.playbook import Play
from tests.support.programs import eq, exemption, keyed, policy, ref, step

ORIGIN = Origin("boot", "stream")
OPEN = step("open", alias="o")


class _NoEnforcer:
    """None of these policies orders anything."""

    stats = ClientStats()

    async def run(self) -> None:
        raise AssertionError

    def kill(self, order: Order) -> Coroutine[Any, Any, Outcome]:
        raise AssertionError(order)

    def set_mode(self, mode: Mode) -> None:
        """Nothing depends on it here."""

    def spent(self, order: Order) -> None:
        raise AssertionError(order)

    async def capture(self, order: Order) -> Outcome:
        raise AssertionError(order)


def _never(call: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
    raise AssertionError(call)


def responder() -> Responder:
    return Responder(
        _NoEnforcer(),
        _never,
        lambda _: False,
        logging.getLogger("test"),
        host_mode="audit",
        order_timeout_s=0.1,
        default_throttle=(1, 60_000_000_000),
    )


def alerts(made: Responder, *outputs: Output) -> list[dict[str, Any]]:
    return [pending.build({}) for pending in made.respond(outputs, ORIGIN)]


def machine(*policies: CompiledPolicy) -> Machine:
    engine = Machine()
    engine.load(policies, 1)
    return engine


class _Counting(_NoEnforcer):
    """Counts what the kernel did, and takes orders that nobody carries out."""

    def __init__(self) -> None:
        self.counted: list[str] = []
        self.ordered: list[str] = []

    def spent(self, order: Order) -> None:
        self.counted.append(order.policy)

    def kill(self, order: Order) -> Coroutine[Any, Any, Outcome]:
        self.ordered.append(order.policy)

        async def done() -> Outcome:
            return Outcome(order.order_id, Result.GONE, "", "", by="enforcer", time_ns=order.issued_ns)

        return done()


async def test_a_kill_of_the_kernels_is_that_of_the_policy_it_names_alone() -> None:
    text = "".join(
        f'policy "{name}" response enforce {{ open {{ path startswith "/{name}" or uid = 7 }}\non match {{ alert; kill }} }}\n'
        for name in "ab"
    )
    first, second = compile_set([("a.policy", text.encode())]).policies
    enforcer = _Counting()
    made = Responder(
        enforcer,
        asyncio.create_task,
        lambda _: False,
        logging.getLogger("test"),
        host_mode="enforce",
        order_timeout_s=0.1,
    )
    play = Play()
    play.event("open", play.process(uid=7), path="/x", cut=Flag.KILLED | Flag(tag_of(second.hash) << KILLER_SHIFT))
    pending = made.respond(machine(first, second).feed(play.batch()), ORIGIN)
    shown = [await made.finish(one) for one in pending]
    assert {one["execray"]["policy"]: one["execray"].get("killed_by") for one in shown} == {"a": None, "b": "kernel"}
    assert (enforcer.counted, enforcer.ordered) == (["b"], ["a"])


def test_throttle_counts_by_the_values_that_the_policy_names() -> None:
    by_path = policy("p", OPEN, within_s=None, throttle=(1, 10_000_000_000), throttle_by=(ref("path"), ref("uid")))
    engine, made, play = machine(by_path), responder(), Play()
    for uid, path in ((1, "/x"), (1, "/y"), (1, "/x"), (2, "/x"), (1, "/x" * 2000), (1, "/x" * 2000)):
        play.event("open", play.process(uid=uid), path=path)
    shown = alerts(made, *engine.feed(play.batch()))
    assert [(a["file"]["path"][:4], a["user"]["id"], a["execray"]["suppressed"]) for a in shown] == [
        ("/x", "1000", 0),
        ("/y", "1000", 0),
        ("/x", "1000", 0),
        ("/x/x", "1000", 0),
    ]
    assert made.admission.throttle.suppressed == 2
    play.event("open", play.process(uid=1), path="/x", at=20)
    assert [a["execray"]["suppressed"] for a in alerts(made, *engine.feed(play.batch()))] == [1]


def test_host_default_of_one_a_minute_leaves_a_throttle_by_values_alone() -> None:
    minute = policy("p", OPEN, within_s=None, throttle_by=(ref("path"),))
    engine, play = machine(minute), Play()
    made = Responder(
        _NoEnforcer(),
        _never,
        lambda _: False,
        logging.getLogger("test"),
        host_mode="audit",
        order_timeout_s=0.1,
        default_throttle=(100, 1),
    )
    proc = play.process()
    for _ in range(3):
        play.event("open", proc, path="/x")
    assert len(alerts(made, *engine.feed(play.batch()))) == 1


def test_excepted_match_raises_nothing_and_is_counted() -> None:
    engine, made, play = (
        machine(policy("p", OPEN, within_s=None, exemptions=(exemption(eq("uid", 7)),))),
        responder(),
        Play(),
    )
    play.event("open", play.process(uid=7), path="/x")
    play.event("open", play.process(), path="/x")
    assert len(alerts(made, *engine.feed(play.batch()))) == 1
    assert (made.stats.excepted, made.stats.matches) == (1, 1)


def test_alert_shows_the_key_by_its_values() -> None:
    fields = keyed("proc.id, argv[0], uid", OPEN)
    destination = keyed("dst.ip, argv", step("connect"))
    engine = machine(
        policy("f", *fields, key=KeyKind.FIELDS, key_text="by proc.id, argv[0], uid"),
        policy("d", *destination, key=KeyKind.FIELDS, key_text="by dst.ip, argv"),
        policy("p", OPEN),
        policy("t", OPEN, key=KeyKind.TREE, key_text="tree"),
    )
    made, play = responder(), Play()
    proc = play.process(argv=[b"a\xff", "b"])
    play.event("open", proc, path="/x")
    play.event("connect", proc, dst_ip="192.0.2.1")
    process = f"{proc.id[0]}-{proc.id[1]}"
    assert [a["execray"]["key"] for a in alerts(made, *engine.feed(play.batch()))] == [
        {"by": "by proc.id, argv[0], uid", "values": [process, "a\udcff", 1000]},
        {"by": "process", "values": [process]},
        {"by": "tree", "values": [process]},
        {"by": "by dst.ip, argv", "values": ["192.0.2.1", ["a\udcff", "b"]]},
    ]


def test_without_values_of_its_own_a_policy_is_throttled_by_its_key() -> None:
    """Whoever does it: of many processes with one key, one alert tells, and the next one how many there were."""
    engine, play = machine(policy("p", *keyed("path", OPEN), within_s=None, key=KeyKind.FIELDS)), Play()
    for path in ("/a", "/a", "/b", "/a"):
        play.event("open", play.process(exe=f"/bin{path}"), path=path)
    made = responder()
    assert len(alerts(made, *engine.feed(play.batch()))) == 2
    assert made.admission.throttle.suppressed == 2
