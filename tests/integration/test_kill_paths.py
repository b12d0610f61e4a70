"""policyd's client against a real enforcer process, and without one: who kills, and that nobody kills the wrong process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from execray.config import Config
from execray.process import ProcessKey, boot_id
from execray.wire.orders import (
    CaptureSpec,
    Flow,
    Mode,
    Order,
    Outcome,
    Result,
    decode_order,
    encode_error,
    encode_outcome,
)
from policyd.enforcer_client import EnforcerClient
from tests.support.enforcers import DEADLINE_S, EnforcerProcess, audit_lines, config_in, enforcer_process, status_of
from tests.support.orders import copy_of_sleep, died_of_sigkill, key_of, make_order, runtime_dir, victim

LOG = logging.getLogger("policyd")


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        (folder / "r" / "enforcer").mkdir(parents=True)
        yield folder


@contextlib.asynccontextmanager
async def client_of(
    config: Config, on_captured: Callable[[Outcome], None] | None = None, connected: bool = True
) -> AsyncIterator[EnforcerClient]:
    client = EnforcerClient(config, LOG, on_captured=on_captured)
    task = asyncio.create_task(client.run())
    try:
        if connected:
            await until(lambda: client.stats.connected)
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # state of the object under test, checked each millisecond
            await asyncio.sleep(0.001)


async def test_enforcer_kills_and_says_so(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir)
    with enforcer_process(config, tmp_path) as enforcer:
        async with client_of(config) as client:
            with victim() as child:
                outcome = await client.kill(make_order(key_of(child.pid)))
                assert (outcome.result, outcome.by, outcome.dead) == (Result.KILLED, "enforcer", True)
                assert died_of_sigkill(child)
            assert client.stats.fallbacks == client.stats.timeouts == 0
        assert enforcer.stop() == 0
    assert [line["what"] for line in audit_lines(config)] == ["order", "outcome"]
    assert not config.order_socket.exists()


async def test_many_kills_at_once_each_hit_their_own_process(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir, kills_per_minute=100)
    with enforcer_process(config, tmp_path), contextlib.ExitStack() as stack:
        children = [stack.enter_context(victim()) for _ in range(20)]
        spared = [stack.enter_context(victim()) for _ in range(5)]
        async with client_of(config) as client:
            orders = [make_order(key_of(child.pid), policy=f"p{child.pid}") for child in children]
            outcomes = await asyncio.gather(*(client.kill(order) for order in orders))
        assert [(o.order_id, o.result, o.by) for o in outcomes] == [
            (order.order_id, Result.KILLED, "enforcer") for order in orders
        ]
        assert all(died_of_sigkill(child) for child in children)
        assert all(child.poll() is None for child in spared)


async def test_without_an_enforcer_the_client_kills_directly_and_says_so(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with client_of(config, connected=False) as client:
        with victim() as child:
            outcome = await client.kill(make_order(key_of(child.pid)))
            assert (outcome.result, outcome.by, outcome.text) == (Result.KILLED, "policyd", "no enforcer")
            assert outcome.dead and died_of_sigkill(child)
        assert client.stats.fallbacks == 1


async def test_enforcer_and_fallback_share_one_budget_whichever_of_them_is_new(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir, kills_per_minute=2)
    async with client_of(config, connected=False) as client:
        with victim() as first, victim() as second, victim() as third:
            assert (await client.kill(make_order(key_of(first.pid)))).by == "policyd"
            with enforcer_process(config, tmp_path):
                await until(lambda: client.stats.connected)
                outcome = await client.kill(make_order(key_of(second.pid)))
                assert (outcome.result, outcome.by) == (Result.KILLED, "enforcer")
                over = await client.kill(make_order(key_of(third.pid)))
            assert (over.result, over.code) == (Result.REFUSED, "budget")
            assert died_of_sigkill(first) and died_of_sigkill(second) and third.poll() is None


async def test_fallback_spares_what_the_guard_spares(run_dir: Path, tmp_path: Path) -> None:
    protected = copy_of_sleep(tmp_path)
    config = dataclasses.replace(config_in(run_dir, kills_per_minute=1), protect_exe=(protected,))
    async with client_of(config, connected=False) as client:
        with victim() as child, victim(protected) as kept:
            key = key_of(child.pid)
            cases = {
                "pid_reused": make_order(dataclasses.replace(key, start_ns=0)),
                "wrong_boot": make_order(dataclasses.replace(key, boot_id="x")),
                "policy_audit": make_order(key, mode=Mode.AUDIT),
                "expired": make_order(key, issued_ns=0),
                "init": make_order(ProcessKey(1, 0, boot_id())),
                "own_process": make_order(key_of(os.getpid())),
                "protected_exe": make_order(key_of(kept.pid)),
            }
            for code, order in cases.items():
                outcome = await client.kill(order)
                assert (outcome.code, outcome.by) == (code, "policyd")
            assert child.poll() is None and kept.poll() is None
            # What wasn't a kill cost nothing of the budget; what is one, does.
            with victim() as first:
                assert (await client.kill(make_order(key_of(first.pid)))).result is Result.KILLED
            assert (await client.kill(make_order(key))).code == "budget"
            assert child.poll() is None


async def test_host_in_audit_mode_is_not_killed_on_by_the_fallback_either(run_dir: Path) -> None:
    async with client_of(config_in(run_dir, mode="audit"), connected=False) as client:
        with victim() as child:
            outcome = await client.kill(make_order(key_of(child.pid)))
            assert (outcome.result, outcome.code) == (Result.WOULD_KILL, "host_audit")
            assert child.poll() is None


async def test_enforcer_killed_and_back_is_used_again_within_a_second(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir)
    with enforcer_process(config, tmp_path) as enforcer:
        async with client_of(config) as client:
            for _ in range(2):
                assert enforcer.process is not None
                enforcer.process.kill()
                with victim() as child:
                    began = time.monotonic()
                    outcome = await client.kill(make_order(key_of(child.pid)))
                    assert (outcome.result, outcome.by) == (Result.KILLED, "policyd")
                    # Much sooner than the bound: a connection that closes is an answer.
                    assert time.monotonic() - began < 0.9 and died_of_sigkill(child)
                enforcer.process.wait(5)
                enforcer.start()
                await until(lambda: client.stats.connected, 1.0)
                with victim() as child:
                    outcome = await client.kill(make_order(key_of(child.pid)))
                    assert (outcome.result, outcome.by) == (Result.KILLED, "enforcer")
            assert client.stats.connects == 3 and client.stats.fallbacks == 2


async def test_stopped_enforcer_is_given_up_after_the_bound_and_its_late_outcome_is_counted(
    run_dir: Path, tmp_path: Path
) -> None:
    config = config_in(run_dir, timeout_ms=400)
    with enforcer_process(config, tmp_path) as enforcer:
        async with client_of(config) as client:
            assert enforcer.process is not None
            os.kill(enforcer.process.pid, 19)  # SIGSTOP: it is there, and does nothing
            with victim() as child:
                began = time.monotonic()
                outcome = await client.kill(make_order(key_of(child.pid)))
                assert 0.4 <= time.monotonic() - began < 2
                assert (outcome.result, outcome.by) == (Result.KILLED, "policyd")
                assert outcome.text == "no outcome from the enforcer within 400 ms"
                assert died_of_sigkill(child)
            os.kill(enforcer.process.pid, 18)
            await until(lambda: client.stats.late == 1)
            assert (client.stats.timeouts, client.stats.fallbacks) == (1, 1)
            # The enforcer found nobody to kill any more.
            assert (await status_of(config))["orders"] == {"taken": 1, "gone": 1}
            with victim() as child:
                assert (await client.kill(make_order(key_of(child.pid)))).by == "enforcer"


async def test_a_kill_of_the_enforcer_that_it_tells_late_is_no_process_that_had_ended_before(run_dir: Path) -> None:
    config = config_in(run_dir, timeout_ms=50)

    async def slow_enforcer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        order = decode_order(await reader.readline())
        os.kill(order.process.pid, signal.SIGKILL)
        await until(lambda: client.stats.fallbacks == 1)
        outcome = Outcome(order.order_id, Result.KILLED, "", "", "enforcer", time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        writer.write(encode_outcome(outcome))
        await writer.drain()
        writer.close()

    config.order_socket.parent.mkdir(parents=True, exist_ok=True)
    async with await asyncio.start_unix_server(slow_enforcer, config.order_socket), client_of(config) as client:
        with victim() as child:
            outcome = await client.kill(make_order(key_of(child.pid)))
            assert (outcome.result, outcome.by) == (Result.KILLED, "enforcer")
            assert died_of_sigkill(child) and client.stats.late == 1


async def test_enforcer_itself_is_never_killed_by_the_fallback(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir, timeout_ms=20)
    with enforcer_process(config, tmp_path) as enforcer:
        async with client_of(config) as client:
            assert enforcer.process is not None
            os.kill(enforcer.process.pid, 19)
            outcome = await client.kill(make_order(key_of(enforcer.process.pid)))
            os.kill(enforcer.process.pid, 18)
            assert (outcome.code, outcome.by) == ("own_process", "policyd")
            assert enforcer.process.poll() is None


async def test_kill_does_not_wait_for_the_disk(run_dir: Path, tmp_path: Path) -> None:
    """A full pipe in the audit log's place: what writes to it hangs, as it would on a disk that doesn't answer."""
    config = config_in(run_dir)
    config.audit_log.parent.mkdir(parents=True, mode=0o700)
    os.mkfifo(config.audit_log, 0o600)
    pipe = os.open(config.audit_log, os.O_RDWR | os.O_NONBLOCK)
    try:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, bytes(4096))
        with enforcer_process(config, tmp_path), victim() as child:
            async with client_of(config) as client:
                killing = asyncio.create_task(client.kill(make_order(key_of(child.pid))))
                assert await asyncio.to_thread(died_of_sigkill, child)
                assert not killing.done()  # the enforcer still hangs
                while not killing.done():
                    with contextlib.suppress(BlockingIOError):
                        os.read(pipe, 65536)
                    await asyncio.sleep(0.01)
                assert (killing.result().result, killing.result().by) == (Result.KILLED, "enforcer")
    finally:
        os.close(pipe)


async def test_fallback_kills_only_while_the_host_enforces(run_dir: Path) -> None:
    async with client_of(config_in(run_dir, mode="audit"), connected=False) as client:
        with victim() as child:
            spared = await client.kill(make_order(key_of(child.pid)))
            assert (spared.result, spared.code) == (Result.WOULD_KILL, "host_audit") and child.poll() is None
            client.set_mode(Mode.ENFORCE)
            assert (await client.kill(make_order(key_of(child.pid)))).result is Result.KILLED
            assert died_of_sigkill(child)
        client.set_mode(Mode.AUDIT)
        with victim() as child:
            assert (await client.kill(make_order(key_of(child.pid)))).result is Result.WOULD_KILL
            assert child.poll() is None


class FakeEnforcer:
    """A listener that answers each line by what a function makes of it; None: not at all."""

    def __init__(self, config: Config, answer: Callable[[Order], bytes | None]) -> None:
        self._path = config.order_socket
        self._answer = answer
        self.connections = 0
        self.orders: list[Order] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while line := await reader.readline():
            self.orders.append(decode_order(line))
            answer = self._answer(self.orders[-1])
            if answer is not None:
                writer.write(answer)
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._path)
        try:
            yield
        finally:
            server.close()


def answered(result: Result) -> Callable[[Order], bytes]:
    return lambda order: encode_outcome(Outcome(order.order_id, result, "", "", "enforcer", 1))


async def test_line_that_is_no_outcome_ends_the_connection_and_the_kill_goes_the_direct_way(run_dir: Path) -> None:
    config = config_in(run_dir)
    fake = FakeEnforcer(config, lambda _order: b"\xff not an outcome\n")
    async with fake.running(), client_of(config) as client:
        with victim() as child:
            outcome = await client.kill(make_order(key_of(child.pid)))
            assert (outcome.result, outcome.by) == (Result.KILLED, "policyd")
        assert client.stats.bad == 1


async def test_refused_connection_is_not_stormed(run_dir: Path) -> None:
    config = config_in(run_dir)
    refusals = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refusals
        refusals += 1
        writer.write(encode_error("not permitted"))
        writer.close()

    server = await asyncio.start_unix_server(refuse, config.order_socket)
    async with client_of(config, connected=False) as client:
        began = time.monotonic()
        await until(lambda: refusals >= 5)
        assert time.monotonic() - began > 0.5  # 0.05 + 0.1 + 0.2 + 0.5 s less the scheduler's grain
        with victim() as child:
            assert (await client.kill(make_order(key_of(child.pid)))).by == "policyd"
    server.close()


async def test_orders_under_way_are_bounded_and_the_rest_goes_the_direct_way(run_dir: Path) -> None:
    config = config_in(run_dir, timeout_ms=10_000)
    fake = FakeEnforcer(config, lambda _order: None)
    key = ProcessKey(4711, 1, "0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00")
    async with fake.running(), client_of(config) as client:
        waiting = [asyncio.create_task(client.kill(make_order(key))) for _ in range(128)]
        await until(lambda: len(fake.orders) == 128)
        outcome = await client.kill(make_order(key))
        assert (outcome.by, outcome.code) == ("policyd", "wrong_boot")
        assert outcome.text.startswith("the enforcer is behind with its orders; ")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_same_order_asked_twice_is_sent_once(run_dir: Path) -> None:
    config = config_in(run_dir)
    order = make_order(ProcessKey(4711, 1, boot_id()))
    fake = FakeEnforcer(config, answered(Result.GONE))
    async with fake.running(), client_of(config) as client:
        outcomes = await asyncio.gather(client.kill(order), client.kill(order))
        assert len(fake.orders) == 1 and outcomes[0] == outcomes[1]


async def test_capture_without_an_enforcer_is_a_clear_outcome(run_dir: Path) -> None:
    async with client_of(config_in(run_dir), connected=False) as client:
        with victim() as child:
            outcome = await client.capture(make_order(key_of(child.pid), capture=CaptureSpec(1.0, 4096)))
            assert (outcome.result, outcome.code, outcome.by) == (Result.FAILED, "no_enforcer", "policyd")
            assert child.poll() is None


@pytest.mark.skipif(
    os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1" and (os.geteuid() != 0 or shutil.which("tcpdump") is None),
    reason="capturing needs root and tcpdump",
)
async def test_capture_then_kill_keeps_what_the_victim_sent(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir)
    ended: list[Outcome] = []
    with (
        enforcer_process(config, tmp_path),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        address = receiver.getsockname()
        async with client_of(config, ended.append) as client:
            with victim() as child:
                flows = (Flow("udp", address[0], address[1]), Flow("tcp", address[0], address[1]))
                spec = CaptureSpec(30.0, 1 << 20, flows)
                begun = await client.capture(make_order(key_of(child.pid), capture=spec))
                assert (begun.result, begun.by) == (Result.CAPTURING, "enforcer")
                sender.sendto(b"evidence", address)
                assert (await client.kill(make_order(key_of(child.pid)))).by == "enforcer"
                await until(lambda: bool(ended))
                assert died_of_sigkill(child)
            assert client.stats.late == client.stats.captures_cut == 0
    (done,) = ended
    assert (done.order_id, done.result, done.file, done.packets) == (begun.order_id, Result.CAPTURED, begun.file, 1)
    assert b"evidence" in Path(done.file or "").read_bytes()  # noqa: ASYNC240  # a small file of the test's own


def test_both_ways_work_on_the_loop_that_policyd_runs_on(run_dir: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        await test_enforcer_killed_and_back_is_used_again_within_a_second(run_dir, tmp_path)
        await test_stopped_enforcer_is_given_up_after_the_bound_and_its_late_outcome_is_counted(run_dir, tmp_path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


def test_second_enforcer_on_the_same_sockets_gives_up(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir)
    (tmp_path / "2").mkdir()
    with enforcer_process(config, tmp_path) as first:
        second = EnforcerProcess(config, tmp_path / "2")
        assert second.run_to_the_end() == (1, "error: another instance listens on")
        assert first.process is not None and first.process.poll() is None
        assert first.stop() == 0
