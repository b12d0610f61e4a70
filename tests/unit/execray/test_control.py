"""The control server and its client, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from execray.control import ControlServer, Handler, argument
from execray.control_client import ControlClient, OperationFailed, Unreachable
from execray.errors import OperatorError
from execray.service import Peer
from execray.version import VERSION
from execray.wire.control import MAX_REQUEST_BYTES, Request

LOG = logging.getLogger("test")
NOBODY = 65534
DEADLINE_S = 5.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="er", dir="/run" if os.access("/run", os.W_OK) else None) as name:
        Path(name).chmod(0o755)
        for daemon in ("x", "tracerd"):
            (Path(name) / daemon).mkdir(mode=0o755)
        yield Path(name)


@contextlib.asynccontextmanager
async def serving(path: Path, handlers: Mapping[str, Handler], **options: float) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, "no-such-group", handlers, LOG, **options)  # type: ignore[arg-type]
    await server.open()
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server.close()  # a task cancelled before its first step never ran its own


async def echo(request: Request, _peer: Peer) -> object:
    return request.args


def in_thread_call(path: Path, op: str, **args: object) -> object:
    with ControlClient(path, DEADLINE_S) as client:
        return client.call(op, **args)


async def raw(path: Path, data: bytes) -> list[dict[str, object]]:
    """Sends bytes as they are and returns every line that comes back until the server closes."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
    writer.close()
    return [json.loads(line) for line in answer.splitlines()]


async def test_call_returns_what_the_handler_returns(run_dir: Path) -> None:
    async with serving(run_dir / "x" / "ctl.sock", {"echo": echo}) as server:
        assert await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "echo", a=1, b="\udcff") == {
            "a": 1,
            "b": "\udcff",
        }
        assert server.stats.accepted == 1


async def test_version_is_answered_by_every_server(run_dir: Path) -> None:
    async with serving(run_dir / "x" / "ctl.sock", {}):
        answer = await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "version")
    assert answer == {"name": "x", "version": VERSION, "pid": os.getpid(), "control": 1}


async def test_unknown_op_is_answered_with_the_known_ones(run_dir: Path) -> None:
    async with serving(run_dir / "x" / "ctl.sock", {"echo": echo}):
        with pytest.raises(OperationFailed, match="no operation `nope`") as caught:
            await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "nope")
    assert caught.value.hint == "it has echo, version"


async def test_operator_error_of_a_handler_reaches_the_client_with_its_hint(run_dir: Path) -> None:
    async def fails(_request: Request, _peer: Peer) -> object:
        raise OperatorError("no such alert", "list them first")

    async with serving(run_dir / "x" / "ctl.sock", {"fails": fails}):
        with pytest.raises(OperationFailed, match="no such alert") as caught:
            await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "fails")
    assert caught.value.hint == "list them first"


async def test_system_call_error_of_a_handler_is_answered(run_dir: Path) -> None:
    async def fails(_request: Request, _peer: Peer) -> object:
        return (run_dir / "missing").read_text()

    async with serving(run_dir / "x" / "ctl.sock", {"fails": fails}):
        with pytest.raises(OperationFailed, match="No such file"):
            await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "fails")


async def test_slow_handler_is_cut_off_with_an_answer(run_dir: Path) -> None:
    async def slow(_request: Request, _peer: Peer) -> object:
        await asyncio.get_running_loop().create_future()
        return None

    async with serving(run_dir / "x" / "ctl.sock", {"slow": slow}, request_timeout_s=0.05):
        with pytest.raises(OperationFailed, match="took longer than"):
            await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "slow")


async def test_bug_in_a_handler_ends_the_server(run_dir: Path) -> None:
    async def broken(_request: Request, _peer: Peer) -> object:
        raise ZeroDivisionError

    server = ControlServer(run_dir / "x" / "ctl.sock", "", {"broken": broken}, LOG)
    await server.open()
    task = asyncio.create_task(server.run())
    assert await raw(run_dir / "x" / "ctl.sock", b'{"v":1,"op":"broken"}\n') == []
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(task, DEADLINE_S)
    assert caught.value.subgroup(ZeroDivisionError)
    assert not (run_dir / "x" / "ctl.sock").exists()


async def test_follow_yields_items_until_the_daemon_ends_them(run_dir: Path) -> None:
    async def count(request: Request, _peer: Peer) -> AsyncGenerator[object, None]:
        for number in range(argument(request, "to", int)):
            yield number

    def follow() -> list[object]:
        with ControlClient(run_dir / "x" / "ctl.sock", DEADLINE_S) as client:
            return list(client.follow("count", to=100))

    async with serving(run_dir / "x" / "ctl.sock", {"count": count}):
        assert await asyncio.to_thread(follow) == list(range(100))
        with pytest.raises(OperationFailed, match="needs `to`"):
            await asyncio.to_thread(
                lambda: list(ControlClient(run_dir / "x" / "ctl.sock", DEADLINE_S).follow("count", to=True))
            )


async def test_follow_is_closed_in_the_handler_when_the_client_goes(run_dir: Path) -> None:
    closed = asyncio.Event()

    async def endless(_request: Request, _peer: Peer) -> AsyncGenerator[object, None]:
        try:
            yield "ready"
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    async with serving(run_dir / "x" / "ctl.sock", {"endless": endless}) as server:
        reader, writer = await asyncio.open_unix_connection(run_dir / "x" / "ctl.sock")
        writer.write(b'{"v":1,"op":"endless"}\n')
        assert json.loads(await reader.readline()) == {"ok": True, "item": "ready"}
        assert server.stats.open == 1
        writer.close()
        await asyncio.wait_for(closed.wait(), DEADLINE_S)


async def test_stopping_the_server_closes_followers_and_removes_the_socket(run_dir: Path) -> None:
    closed = asyncio.Event()

    async def endless(_request: Request, _peer: Peer) -> AsyncGenerator[object, None]:
        try:
            yield "ready"
            await asyncio.get_running_loop().create_future()
        finally:
            closed.set()

    async with serving(run_dir / "x" / "ctl.sock", {"endless": endless}):
        reader, writer = await asyncio.open_unix_connection(run_dir / "x" / "ctl.sock")
        writer.write(b'{"v":1,"op":"endless"}\n')
        await reader.readline()
    assert closed.is_set()
    assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    assert not (run_dir / "x" / "ctl.sock").exists()
    writer.close()


async def test_closing_leaves_the_socket_of_a_successor_alone(run_dir: Path) -> None:
    path = run_dir / "x" / "ctl.sock"
    async with serving(path, {}):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(os.fspath(path))
            inode = path.stat().st_ino
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\x00\xff\xfe garbage\n", "not a line of JSON"),
        (b"[1]\n", "not a JSON object"),
        (b'{"v":2,"op":"echo"}\n', "control protocol 2, and this is 1"),
        (b'{"v":1,"op":"echo","x":1}\n', "a request is an object with `v`, `op` and `args`"),
        (b'{"v":1,"op":7}\n', "a request is an object with `v`, `op` and `args`"),
        (b'{"v":1,"op":"echo"', "the line has no end"),
        (b"[" * 60_000 + b"\n", "not a line of JSON"),
        (b"a" * (MAX_REQUEST_BYTES + 1024) + b"\n", "the line is too long"),
    ],
)
async def test_bad_request_gets_one_error_line_and_the_connection_is_closed(
    run_dir: Path, line: bytes, error: str
) -> None:
    async with serving(run_dir / "x" / "ctl.sock", {"echo": echo}) as server:
        answers = await raw(run_dir / "x" / "ctl.sock", line + b'{"v":1,"op":"echo"}\n' * line.endswith(b"\n"))
        assert [(a["ok"], a["error"]) for a in answers] == [(False, error)]
        assert server.stats.bad == 1
        assert await asyncio.to_thread(in_thread_call, run_dir / "x" / "ctl.sock", "echo") == {}


async def test_connections_over_the_limit_are_turned_away(run_dir: Path) -> None:
    path = run_dir / "x" / "ctl.sock"
    async with serving(path, {"echo": echo}, max_connections=1) as server:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"v":1,"op":"version"}\n')
        await reader.readline()
        assert (await raw(path, b""))[0]["error"] == "too many connections"
        assert server.stats.over_limit == 1
        writer.close()
        async with asyncio.timeout(DEADLINE_S):
            while server.stats.open:  # noqa: ASYNC110  # a condition of the server's own, checked each turn of the loop
                await asyncio.sleep(0)
        assert await asyncio.to_thread(in_thread_call, path, "echo", a=1) == {"a": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="changing to another account needs root")
async def test_stranger_is_refused_with_the_group_in_the_hint(run_dir: Path) -> None:
    path = run_dir / "x" / "ctl.sock"
    code = f"""
import os, sys
from pathlib import Path
from execray.control_client import ControlClient, Unreachable
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
try:
    ControlClient(Path({str(path)!r})).call("echo")
except Unreachable as error:
    print(error.message, "|", error.hint)
"""

    def as_stranger() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    async with serving(path, {"echo": echo}) as server:
        expected = f"not permitted to talk to x ({path}) | be root, or a member of the group "
        # The file's mode keeps strangers out, and where it doesn't, the daemon does, and names its own group.
        assert await asyncio.to_thread(as_stranger) == expected + "`execray`"
        assert server.stats.refused == 0
        path.chmod(0o666)
        assert await asyncio.to_thread(as_stranger) == expected + "`no-such-group`"
        assert server.stats.refused == 1


def test_client_says_when_the_daemon_is_not_running(run_dir: Path) -> None:
    with pytest.raises(Unreachable, match="tracerd is not running") as caught:
        ControlClient(run_dir / "tracerd" / "ctl.sock").call("status")
    assert caught.value.hint == "start tracerd: systemctl start execray-tracerd, where it is a service"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(run_dir / "tracerd" / "ctl.sock"))
    with pytest.raises(Unreachable, match="tracerd is not running"):
        ControlClient(run_dir / "tracerd" / "ctl.sock").call("status")


def test_client_gives_up_on_a_daemon_that_does_not_answer(run_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.fspath(run_dir / "x" / "ctl.sock"))
        silent.listen(1)
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s"):
            ControlClient(run_dir / "x" / "ctl.sock", timeout_s=0.05).call("status")
