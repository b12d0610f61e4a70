"""The enforcer in process, over its real sockets: orders in, dead or spared processes and outcomes out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from execray.process import ProcessKey, boot_id
from execray.wire.orders import MAX_LINE_BYTES, Mode, Result, encode_order
from tests.support.enforcers import DEADLINE_S, audit_lines, config_in, connection, enforcer_here, status_of
from tests.support.orders import NOBODY, died_of_sigkill, key_of, make_order, runtime_dir, victim


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        yield folder


async def test_order_kills_and_both_are_on_record(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            order = make_order(key_of(child.pid), policy='dropper"\n{"what":"forged"}')
            outcome = await orders.ask(order)
            assert (outcome.order_id, outcome.result, outcome.by) == (order.order_id, Result.KILLED, "enforcer")
            assert outcome.dead and died_of_sigkill(child)
        status = await status_of(config)
    assert (status["mode"], status["orders"], status["budget_left"]) == ("enforce", {"taken": 1, "killed": 1}, 29)
    first, second = audit_lines(config)
    assert (first["what"], first["order"]) == ("order", json.loads(encode_order(order)))
    assert first["peer"] == {"pid": os.getpid(), "uid": os.geteuid()}
    assert second["what"] == "outcome"
    assert (second["outcome"]["order_id"], second["outcome"]["result"]) == (order.order_id, "killed")


async def test_refused_order_is_answered_and_on_record(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        outcome = await orders.ask(make_order(ProcessKey(1, 0, boot_id())))
        assert (outcome.result, outcome.code) == (Result.REFUSED, "init")
        assert (await status_of(config))["refused"] == {"init": 1}
    assert [line["what"] for line in audit_lines(config)] == ["order", "outcome"]


async def test_audit_mode_of_the_host_kills_nobody(run_dir: Path) -> None:
    config = config_in(run_dir, mode="audit")
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            outcome = await orders.ask(make_order(key_of(child.pid)))
            assert (outcome.result, outcome.code) == (Result.WOULD_KILL, "host_audit")
            assert child.poll() is None
        assert (await status_of(config))["budget_left"] == 30


async def test_peers_of_the_order_socket_are_never_killed(run_dir: Path) -> None:
    """Whoever orders is policyd: here a program of the test that connects and then only sits there."""
    config = config_in(run_dir)
    code = "import socket, sys, signal; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
    code += "print('in', flush=True); signal.pause()"
    async with enforcer_here(config), connection(config) as orders:
        peer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, config.order_socket, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert peer.stdout is not None
            await asyncio.wait_for(peer.stdout.readline(), DEADLINE_S)
            async with asyncio.timeout(DEADLINE_S):
                while (await status_of(config))["peers"]["open"] < 2:
                    pass
            outcome = await orders.ask(make_order(key_of(peer.pid)))
            assert outcome.code == "own_process" and peer.returncode is None
        finally:
            peer.kill()
            await peer.wait()


async def test_many_orders_in_one_piece_are_each_answered_once(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            wrong = dataclasses.replace(key_of(child.pid), start_ns=0)
            sent = [make_order(wrong) for _ in range(200)]
            await orders.send(*sent)
            outcomes = [await orders.outcome() for _ in sent]
            assert {outcome.order_id for outcome in outcomes} == {order.order_id for order in sent}
            assert {outcome.code for outcome in outcomes} == {"pid_reused"}
            assert child.poll() is None


async def test_order_of_a_peer_that_hung_up_is_carried_out_and_on_record(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config):
        with victim() as child:
            async with connection(config) as orders:
                await orders.send(make_order(key_of(child.pid)))
                orders.writer.transport.abort()
            async with asyncio.timeout(DEADLINE_S):
                while (await status_of(config))["orders"].get("killed") != 1:
                    pass
            assert died_of_sigkill(child)
    assert audit_lines(config)[-1]["outcome"]["result"] == "killed"


async def test_repeated_order_on_another_connection_gets_the_first_outcome(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config):
        with victim() as child:
            order = make_order(key_of(child.pid))
            async with connection(config) as first:
                outcome = await first.ask(order)
            async with connection(config) as second:
                assert await second.ask(order) == outcome
        assert (await status_of(config))["killed"] == 1


def bad_lines() -> list[bytes]:
    order = encode_order(make_order(ProcessKey(4711, 1, "0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00")))
    return [
        b"\x00\xff" * 40 + b"\n",
        random.Random(7).randbytes(4000).replace(b"\n", b"") + b"\n",
        b"{}\n",
        order.replace(b'"v":1', b'"v":2'),
        order.replace(b'"mode"', b'"also":1,"mode"'),
        order.replace(b'"action":"kill"', b'"action":"reboot"'),
        b"x" * (MAX_LINE_BYTES * 4) + b"\n",
        b"x" * (MAX_LINE_BYTES * 4),
        b'{"v":1',
    ]


@pytest.mark.parametrize("number", range(len(bad_lines())))
async def test_bad_line_gets_an_error_line_and_ends_that_connection_only(run_dir: Path, number: int) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as good:
        async with connection(config) as bad:
            bad.writer.write(bad_lines()[number])
            bad.writer.write_eof()
            lines = await bad.lines()
            assert len(lines) == 1 and lines[0].keys() == {"v", "error"}
        with victim() as child:
            assert (await good.ask(make_order(key_of(child.pid)))).result is Result.KILLED
        status = await status_of(config)
        assert (status["peers"]["bad"], status["orders"]) == (1, {"taken": 1, "killed": 1})
    assert [line["what"] for line in audit_lines(config)] == ["bad", "order", "outcome"]


async def test_connections_over_the_limit_are_turned_away(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config):
        held = [await asyncio.open_unix_connection(config.order_socket) for _ in range(8)]
        async with asyncio.timeout(DEADLINE_S):
            while (await status_of(config))["peers"]["open"] < 8:
                pass
        async with connection(config) as ninth:
            assert await ninth.lines() == [{"v": 1, "error": "too many connections"}]
        for _, writer in held:
            writer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="changing to another account needs root")
@pytest.mark.parametrize("permitted", [False, True])
async def test_only_configured_accounts_may_order(run_dir: Path, permitted: bool) -> None:
    """Also where the socket's mode would let them in."""
    config = config_in(run_dir, orderers=(NOBODY,) if permitted else ())
    code = """
import json, os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock.settimeout(10)
sock.connect(sys.argv[1])
try:
    sock.sendall(sys.argv[2].encode())
except BrokenPipeError:
    pass
sys.stdout.write(sock.makefile().readline())
"""
    async with enforcer_here(config):
        config.daemon_dir("enforcer").chmod(0o755)
        config.order_socket.chmod(0o666)
        with victim() as child:
            line = encode_order(make_order(key_of(child.pid))).decode()
            command = [sys.executable, "-c", code, os.fspath(config.order_socket), line]
            answer = json.loads(await asyncio.to_thread(subprocess.check_output, command, timeout=30))
            if permitted:
                assert answer["result"] == "killed" and died_of_sigkill(child)
            else:
                assert answer == {"v": 1, "error": "not permitted"}
                assert child.poll() is None
                assert (await status_of(config))["peers"]["refused"] == 1
    if not permitted:
        (refused,) = audit_lines(config)
        assert (refused["what"], refused["peer"]["uid"]) == ("peer_refused", NOBODY)


async def test_stopping_removes_the_sockets_and_answers_what_is_under_way(run_dir: Path) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            await orders.ask(make_order(key_of(child.pid), mode=Mode.AUDIT))
    assert not config.order_socket.exists() and not config.control_socket("enforcer").exists()
