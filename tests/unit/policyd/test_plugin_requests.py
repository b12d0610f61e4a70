"""What a policy's `notify` hands to an action plug-in: when, how often, and with which values."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from execray.plugins import ActionRequest
from execray.process import boot_id
from execray.wire.orders import Mode, Order, Outcome, Result
from policyd.alerts import Origin
from policyd.compiler import compile_source
from policyd.enforcer_client import ClientStats
from policyd.engine.machine import Machine
from policyd.plugin_requests import DROPPED, NOT_ALLOWED, QUEUED, Tell
from policyd.program import Notify
from policyd.respond import Responder
from tests.support.playbook import START_NS, Play

ORIGIN = Origin(boot_id(), "s")


class Deed(list[str]):
    """Takes down kills and requests in their order."""

    def __init__(self, answer: str = QUEUED) -> None:
        super().__init__()
        self.stats = ClientStats(connected=True)
        self.requests: list[ActionRequest] = []
        self._answer = answer

    async def run(self) -> None:
        """There is no connection to keep."""

    def kill(self, order: Order) -> Coroutine[Any, Any, Outcome]:
        self.append(f"kill {order.process.pid}")
        return self._outcome(order)

    def set_mode(self, mode: Mode) -> None:
        """Nothing depends on it here."""

    def spent(self, order: Order) -> None:
        raise AssertionError(order)

    async def capture(self, order: Order) -> Outcome:
        return await self._outcome(order)

    async def _outcome(self, order: Order) -> Outcome:
        return Outcome(order.order_id, Result.KILLED, "", "", "enforcer", 1)

    def tell(self, plugin: str, request: ActionRequest) -> str:
        self.append(f"{plugin} {request.process.pid}")
        self.requests.append(request)
        return self._answer


def machine_of(text: str) -> Machine:
    compiled = compile_source(text, "p.policy")
    assert compiled.ok, compiled.diagnostics
    machine = Machine()
    machine.load(compiled.policies, 1)
    return machine


async def respond(
    text: str, play: Play, deed: Deed, *, mode: str = "enforce", known: bool = False, tell: Tell | None = None
) -> list[dict[str, Any]]:
    """Feeds a play to a policy, and returns the alerts."""
    async with asyncio.TaskGroup() as group:
        responder = Responder(
            deed,
            group.create_task,
            lambda _id: known,
            logging.getLogger("test"),
            host_mode=mode,
            order_timeout_s=1.0,
            tell=tell,
        )
        pending = responder.respond(machine_of(text).feed(play.batch()), ORIGIN)
        return [await responder.finish(one) for one in pending]


def touched(*paths: str) -> Play:
    play = Play()
    for number, path in enumerate(paths):
        play.event("open", play.process(exe=f"/bin/{number}", uid=1000), path=path, flags=0, ret=3)
    return play


TOUCH = """
path "touch" response enforce {
    meta { severity: low }
    open { path startswith "/x" }
    on match { ACTIONS }
}
"""


def saying(actions: str) -> str:
    return TOUCH.replace("ACTIONS", actions)


async def test_a_request_names_the_alert_the_policy_and_the_process() -> None:
    deed = Deed()
    (alert,) = await respond(saying('alert high; notify "soc"'), touched("/x"), deed, tell=deed.tell)
    (request,) = deed.requests
    assert request.alert_id == alert["execray"]["alert_id"] and request.policy == "touch"
    assert (request.kind, request.severity, request.mode, request.response) == ("match", "high", "enforce", "enforce")
    assert (request.process.pid, request.process.exe, request.process.uid) == (1001, "/bin/0", 1000)
    assert f"{request.process.pid}-{request.process.start_ns}" == alert["process"]["entity_id"]
    assert request.process.boot_id == boot_id() and request.time[:17] == alert["@timestamp"][:17]
    assert alert["execray"]["action"]["notify"] == [{"plugin": "soc", "result": "queued"}]


async def test_arguments_have_the_form_that_they_have_in_alerts() -> None:
    text = """
    let LONG = 10m
    path "values" within 5s {
        open {} as o
        connect {} as c
        on match { notify "soc" with {
            path = o.path, flags = o.flags, ip = c.dst.ip, port = c.dst.port, who = proc.id, argv = argv, second = argv[1]
            tenth = argv[9], text = "a\\xff", number = -5, time = LONG, error = -EPERM, yes = true, parent = parent.exe
        } }
    }
    """
    play = Play()
    process = play.process(argv=["a", b"\xff"])
    play.event("open", process, path=b"/x\xfe", flags=0o1101, ret=3)
    play.event("connect", process, family=2, dst_ip="::1", dst_port=443, ret=0)
    deed = Deed()
    await respond(text, play, deed, tell=deed.tell)
    assert dict(deed.requests[0].arguments) == {
        "path": "/x\udcfe",
        "flags": 0o1101,
        "ip": "::1",
        "port": 443,
        "who": f"1001-{START_NS + 1001}",
        "argv": ["a", "\udcff"],
        "second": "\udcff",
        "tenth": None,
        "text": "a\udcff",
        "number": -5,
        "time": 600_000_000_000,
        "error": -1,
        "yes": True,
        "parent": None,
    }


async def test_a_request_survives_json() -> None:
    deed = Deed()
    await respond(saying('notify "soc" with { path = path, argv = argv }'), touched("/x"), deed, tell=deed.tell)
    (request,) = deed.requests
    assert ActionRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


async def test_every_kill_of_a_batch_leaves_before_the_first_request() -> None:
    deed = Deed()
    await respond(saying('notify "soc"; alert; kill'), touched("/x1", "/x2"), deed, tell=deed.tell)
    assert deed == ["kill 1001", "kill 1002", "soc 1001", "soc 1002"]


@pytest.mark.parametrize("result", [QUEUED, DROPPED, NOT_ALLOWED])
async def test_the_alert_says_what_became_of_a_request(result: str) -> None:
    deed = Deed(result)
    text = saying('alert; notify "soc"; notify "pager" with { path = path }')
    (alert,) = await respond(text, touched("/x"), deed, tell=deed.tell)
    told = [{"plugin": "soc", "result": result}, {"plugin": "pager", "result": result}]
    assert alert["execray"]["action"]["notify"] == told


async def test_without_a_list_of_allowed_plugins_none_is_told() -> None:
    (alert,) = await respond(saying('alert; notify "soc"'), touched("/x"), Deed())
    assert alert["execray"]["action"]["notify"] == [{"plugin": "soc", "result": "not_allowed"}]


async def test_in_audit_mode_it_is_told_and_nothing_killed() -> None:
    deed = Deed()
    (alert,) = await respond(saying('alert; notify "soc"; kill'), touched("/x"), deed, mode="audit", tell=deed.tell)
    assert deed == ["soc 1001"] and deed.requests[0].mode == "audit"
    assert alert["execray"]["action"]["kill"]["result"] == "would_kill"


async def test_notify_alone_raises_no_alert() -> None:
    deed = Deed()
    assert await respond(saying('notify "soc"'), touched("/x"), deed, tell=deed.tell) == []
    assert deed == ["soc 1001"] and deed.requests[0].severity == "low"


async def test_requests_are_throttled_like_alerts_and_the_next_one_carries_the_count() -> None:
    play = Play()
    process = play.process()
    for second in (0, 1, 2, 61):
        play.event("open", process, path="/x", flags=0, ret=3, at=second)
    deed = Deed()
    alerts = await respond(saying('alert; notify "soc"'), play, deed, tell=deed.tell)
    assert [request.suppressed for request in deed.requests] == [0, 2]
    assert [alert["execray"]["suppressed"] for alert in alerts] == [0, 2]


async def test_what_only_a_plugin_is_told_holds_back_no_alert() -> None:
    text = """
    path "two" {
        open { path startswith "/x" }
        on match if path = "/x1" { notify "soc" }
        on match if path = "/x2" { alert }
    }
    """
    play = Play()
    process = play.process()
    play.event("open", process, path="/x1", flags=0, ret=3)
    play.event("open", process, path="/x2", flags=0, ret=3)
    deed = Deed()
    assert len(await respond(text, play, deed, tell=deed.tell)) == 1 and deed == ["soc 1001"]


async def test_a_match_that_is_on_file_is_not_told_again() -> None:
    deed = Deed()
    assert await respond(saying('alert; notify "soc"'), touched("/x"), deed, known=True, tell=deed.tell) == []
    assert deed == []


async def test_the_same_request_of_two_handlers_is_made_once() -> None:
    text = saying('notify "soc" with { path = path }').replace(
        "on match", 'on match { notify "soc" with { path = path }; notify "soc" }\n    on match', 1
    )
    deed = Deed()
    await respond(text, touched("/x"), deed, tell=deed.tell)
    assert [dict(request.arguments) for request in deed.requests] == [{"path": "/x"}, {}]


async def test_a_step_is_told_as_a_step() -> None:
    text = 'path "p" within 5s { open {} as o connect {} on step o { notify "soc" with { path = path } } }'
    deed = Deed()
    await respond(text, touched("/x"), deed, tell=deed.tell)
    (request,) = deed.requests
    assert request.kind == "step" and request.arguments == {"path": "/x"}


def test_content_that_only_a_plugin_is_told_is_asked_of_the_sensor() -> None:
    asks = 'path "p" { write { fd = 1 } as w on match { notify "soc" with { text = CONTENT } } }'
    assert machine_of(asks.replace("CONTENT", "content")).needs().content
    assert machine_of(asks.replace("CONTENT", "w.content")).needs().content
    assert not machine_of(asks.replace("CONTENT", "path")).needs().content


def test_what_is_handed_over_decides_the_hash() -> None:
    def policy_hash(actions: str) -> str:
        return compile_source(saying(actions), "p").policies[0].hash

    base = policy_hash('notify "soc" with { a = path }')
    others = ['notify "sok" with { a = path }', 'notify "soc" with { a = rawpath }', 'notify "soc" with { b = path }']
    assert base == policy_hash('notify  "soc"  with  {a=path}')
    assert len({base, *map(policy_hash, others)}) == 4


def test_more_arguments_or_notices_than_the_bounds_are_refused() -> None:
    def codes(actions: str) -> set[str]:
        return {found.code for found in compile_source(saying(actions), "p").diagnostics}

    def many(count: int) -> str:
        return f'notify "soc" with {{ {", ".join(f"a{n} = {n}" for n in range(count))} }}'

    assert "ER0402" not in codes(many(32)) and "ER0402" in codes(many(33))
    once = 'notify "soc";'
    assert "ER0402" not in codes(once * 64) and "ER0402" in codes(once * 65)


def test_the_compiled_action_is_immutable_and_comparable() -> None:
    compiled = compile_source(saying('notify "soc" with { a = 1 }'), "p").policies[0]
    assert compiled.handlers[0].actions == (Notify("soc", (("a", 1),)),)
