"""Captures by the enforcer in process, with the real tcpdump on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.capture import filter_of
from execray.wire.orders import CaptureSpec, Flow, Mode, Outcome, Result
from tests.support.enforcers import (
    audit_lines,
    config_in,
    connection,
    enforcer_here,
    enforcer_process,
    status_of,
)
from tests.support.orders import died_of_sigkill, key_of, make_order, runtime_dir, victim
from tests.support.turns import is_short

pytestmark = pytest.mark.skipif(
    os.environ.get("EXECRAY_REQUIRE_KERNEL") != "1" and (os.geteuid() != 0 or shutil.which("tcpdump") is None),
    reason="capturing needs root and tcpdump",
)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with runtime_dir() as folder:
        yield folder


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """A UDP socket of the test's own on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def flow_to(receiver: socket.socket) -> Flow:
    return Flow("udp", "127.0.0.1", receiver.getsockname()[1])


def send_to(receiver: socket.socket, *payloads: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for payload in payloads:
            sock.sendto(payload, receiver.getsockname())
            assert receiver.recv(65536) == payload


def read_back(file: str | None, *arguments: str) -> list[str]:
    """Returns the lines that tcpdump prints for a file; fails for one that it finds broken."""
    assert file is not None
    done = subprocess.run(
        ["tcpdump", "-nn", *arguments, "-r", file], check=True, capture_output=True, text=True, timeout=30
    )
    assert "truncated" not in done.stderr
    return done.stdout.splitlines()


async def test_capture_holds_the_packets_sent_after_it_said_it_records(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            spec = CaptureSpec(30.0, 1 << 20, (flow_to(receiver),))
            order = make_order(key_of(child.pid), capture=spec)
            begun = await orders.ask(order)
            assert (begun.result, begun.by, begun.order_id) == (Result.CAPTURING, "enforcer", order.order_id)
            assert (await status_of(config))["captures"] == {"running": 1, "done": 0}
            await asyncio.to_thread(send_to, receiver, b"stolen secret", b"second")
            child.kill()
            done = await orders.outcome()
        assert (done.result, done.file, done.text) == (Result.CAPTURED, begun.file, "the process ended")
        lines = read_back(done.file, "-A")
        assert any("stolen secret" in line for line in lines) and any("second" in line for line in lines)
        assert done.packets == 2 and done.bytes == Path(done.file or "").stat().st_size  # noqa: ASYNC240  # a small file of the test's own
        assert (await status_of(config))["captures"] == {"running": 0, "done": 1}
    file = Path(done.file or "")
    assert file.parent == config.capture_dir and stat.S_IMODE(file.stat().st_mode) == 0o600  # noqa: ASYNC240  # a small file of the test's own
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}\.\d{{6}}-{child.pid}\.pcap", file.name)
    assert [line["what"] for line in audit_lines(config)] == ["order", "outcome", "outcome"]


async def test_tcpdump_has_none_of_the_priority_that_the_enforcer_has_for_kills(run_dir: Path, tmp_path: Path) -> None:
    config = config_in(run_dir)
    with enforcer_process(config, tmp_path) as enforcer, victim() as child:
        assert enforcer.process is not None
        for thread in Path(f"/proc/{enforcer.process.pid}/task").iterdir():  # noqa: ASYNC240  # procfs: nothing waits for a disk
            os.setpriority(os.PRIO_PROCESS, int(thread.name), -10)
        async with connection(config) as orders:
            begun = await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(30.0, 1 << 20)))
            assert begun.result is Result.CAPTURING
            (recorder,) = children_of(enforcer.process.pid)
            assert Path(f"/proc/{recorder}/comm").read_text() == "tcpdump\n"  # noqa: ASYNC240  # procfs: nothing waits for a disk
            assert os.getpriority(os.PRIO_PROCESS, enforcer.process.pid) == -10
            assert os.getpriority(os.PRIO_PROCESS, recorder) == 0
            assert is_short(enforcer.process.pid) and not is_short(recorder)
            child.kill()
            assert (await orders.outcome()).result is Result.CAPTURED


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


async def test_packets_of_other_flows_are_not_recorded(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            other.settimeout(5)
            spec = CaptureSpec(30.0, 1 << 20, (flow_to(receiver),))
            await orders.ask(make_order(key_of(child.pid), capture=spec))
            await asyncio.to_thread(send_to, other, b"somebody else's")
            await asyncio.to_thread(send_to, receiver, b"the flow's")
            child.kill()
            done = await orders.outcome()
    assert done.packets == 1
    assert not any("somebody" in line for line in read_back(done.file, "-A"))


async def test_capture_without_flows_records_everything(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(30.0, 1 << 20)))
            await asyncio.to_thread(send_to, receiver, b"anything")
            child.kill()
            done = await orders.outcome()
    assert any("anything" in line for line in read_back(done.file, "-A"))


async def test_capture_ends_when_its_time_is_over_and_the_process_lives_on(run_dir: Path) -> None:
    config = config_in(run_dir, capture_max_s=0.2)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(3600.0, 1 << 20)))
            began = time.monotonic()
            done = await orders.outcome()
            assert (done.result, done.text) == (Result.CAPTURED, "the time is over")
            assert 0.2 <= time.monotonic() - began < 1.5
            assert child.poll() is None


async def test_capture_ends_when_the_file_is_full_at_a_whole_packet(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            spec = CaptureSpec(30.0, 20_000, (flow_to(receiver),))
            await orders.ask(make_order(key_of(child.pid), capture=spec))
            await asyncio.to_thread(send_to, receiver, *[bytes(1000)] * 40)
            done = await orders.outcome()
            assert child.poll() is None
    assert done.text.startswith("the file is full")
    assert done.bytes is not None and 18_000 < done.bytes <= 20_000
    assert done.bytes == Path(done.file or "").stat().st_size  # noqa: ASYNC240  # a small file of the test's own
    assert done.packets == len(read_back(done.file)) == 18


async def test_kill_is_not_delayed_by_captures(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            key = key_of(child.pid)
            capture = make_order(key, capture=CaptureSpec(30.0, 1 << 20, (flow_to(receiver),)), mode=Mode.AUDIT)
            kill = make_order(key)
            await orders.send(capture, kill)
            first = await orders.outcome()
            assert (first.order_id, first.result) == (kill.order_id, Result.KILLED)
            assert died_of_sigkill(child)
            rest = [await orders.outcome(), await orders.outcome()]
    assert [outcome.result for outcome in rest] == [Result.CAPTURING, Result.CAPTURED]
    assert {outcome.order_id for outcome in rest} == {capture.order_id}


async def test_missing_tcpdump_is_a_clear_outcome_and_kills_go_on(run_dir: Path) -> None:
    config = config_in(run_dir, tcpdump="no-such-tcpdump")
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            outcome = await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(1.0, 1 << 20)))
            assert (outcome.result, outcome.code) == (Result.FAILED, "no_tcpdump")
            assert outcome.text == "no-such-tcpdump is not installed"
            assert (await orders.ask(make_order(key_of(child.pid)))).result is Result.KILLED
        assert (await status_of(config))["tcpdump"] is None


async def test_tcpdump_that_fails_is_told_in_its_own_words_and_leaves_no_file(run_dir: Path) -> None:
    config = config_in(run_dir, capture_interface="no-such-if")
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            outcome = await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(1.0, 1 << 20)))
    assert (outcome.result, outcome.code) == (Result.FAILED, "tcpdump_failed")
    assert "no-such-if" in outcome.text
    assert list(config.capture_dir.iterdir()) == []


async def test_tcpdump_that_never_begins_is_given_up(run_dir: Path) -> None:
    silent = run_dir / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    config = config_in(run_dir, tcpdump=os.fspath(silent))
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            outcome = await orders.ask(make_order(key_of(child.pid), capture=CaptureSpec(1.0, 1 << 20)))
            assert (outcome.code, outcome.text) == ("tcpdump_failed", "not recording within 2 s")
            assert (await status_of(config))["captures"]["running"] == 0


async def test_captures_beyond_the_limit_are_refused(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir, captures_at_once=1)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            spec = CaptureSpec(30.0, 1 << 20, (flow_to(receiver),))
            assert (await orders.ask(make_order(key_of(child.pid), capture=spec))).result is Result.CAPTURING
            second = await orders.ask(make_order(key_of(child.pid), capture=spec))
            assert (second.result, second.code) == (Result.REFUSED, "captures_busy")


async def test_capture_of_a_process_that_is_gone_or_another_is_not_begun(run_dir: Path) -> None:
    config = config_in(run_dir)
    spec = CaptureSpec(1.0, 1 << 20)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            key = key_of(child.pid)
            other = await orders.ask(make_order(dataclasses.replace(key, start_ns=0), capture=spec))
            assert other.code == "pid_reused"
        assert (await orders.ask(make_order(key, capture=spec))).result is Result.GONE
    assert list(config.capture_dir.iterdir()) == []


async def test_repeated_capture_order_joins_the_running_one(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as first, connection(config) as second:
        with victim() as child:
            order = make_order(key_of(child.pid), capture=CaptureSpec(30.0, 1 << 20, (flow_to(receiver),)))
            begun = await first.ask(order)
            assert await second.ask(order) == begun
            child.kill()
            ends: set[Outcome] = {await first.outcome(), await second.outcome()}
            assert len(ends) == 1 and ends.pop().result is Result.CAPTURED
            assert (await second.ask(order)).result is Result.CAPTURED
        assert (await status_of(config))["captures"] == {"running": 0, "done": 1}


async def test_only_the_newest_files_are_kept(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir, capture_keep=2)
    files = []
    async with enforcer_here(config), connection(config) as orders:
        for _ in range(4):
            with victim() as child:
                spec = CaptureSpec(0.001, 1 << 20, (flow_to(receiver),))
                files.append((await orders.ask(make_order(key_of(child.pid), capture=spec))).file)
                await orders.outcome()
    assert sorted(os.fspath(path) for path in config.capture_dir.iterdir()) == files[-2:]


async def test_stopping_ends_captures_with_their_outcome(run_dir: Path, receiver: socket.socket) -> None:
    config = config_in(run_dir)
    async with enforcer_here(config), connection(config) as orders:
        with victim() as child:
            spec = CaptureSpec(30.0, 1 << 20, (flow_to(receiver),))
            await orders.ask(make_order(key_of(child.pid), capture=spec))
            os.kill(os.getpid(), 15)
            done = await orders.outcome()
            assert (done.result, done.text) == (Result.CAPTURED, "the enforcer stops")
            assert await orders.lines() == []


def tcpdumps_of(folder: Path) -> list[int]:
    """The processes whose output is a file of ours."""
    found = []
    for fd in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if fd.readlink().is_relative_to(folder) and (fd.parents[1] / "comm").read_text() == "tcpdump\n":
                found.append(int(fd.parents[1].name))
        except OSError:
            continue
    return found


async def test_tcpdump_runs_without_root_and_dies_with_the_enforcer(
    run_dir: Path, tmp_path: Path, receiver: socket.socket
) -> None:
    config = config_in(run_dir)
    with enforcer_process(config, tmp_path) as enforcer, victim() as child:
        async with connection(config) as orders:
            spec = CaptureSpec(60.0, 1 << 20, (flow_to(receiver),))
            assert (await orders.ask(make_order(key_of(child.pid), capture=spec))).result is Result.CAPTURING
            (tcpdump,) = tcpdumps_of(config.capture_dir)
            status = Path(f"/proc/{tcpdump}/status").read_text()  # noqa: ASYNC240  # procfs: nothing waits for a disk
            assert "\nUid:\t0\t" not in status
            assert "\nCapEff:\t0000000000003000\n" in status and "\nCapBnd:\t0000000000003000\n" in status
            pidfd = os.pidfd_open(tcpdump)
            assert enforcer.process is not None
            enforcer.process.kill()
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(pidfd, gone.set)
            await asyncio.wait_for(gone.wait(), 2.0)
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        assert child.poll() is None


def test_filter_names_both_ends_once_and_leaves_out_what_is_unknown() -> None:
    flows = [
        Flow("tcp", "192.0.2.1", 443, "198.51.100.7", 50000),
        Flow("tcp", "192.0.2.1", 443, "198.51.100.7", 50000),
        Flow("udp", "2001:db8::1", 53),
        Flow("tcp", "0.0.0.0", 80, "0.0.0.0", 0),
    ]
    assert filter_of(flows) == (
        "(tcp and host 192.0.2.1 and port 443 and host 198.51.100.7 and port 50000)"
        " or (udp and host 2001:db8::1 and port 53) or (tcp and port 80)"
    )
    assert filter_of([]) == ""
    compiled = subprocess.run(
        ["tcpdump", "-i", "lo", "-d", filter_of(flows)], check=True, capture_output=True, timeout=30
    )
    assert compiled.stdout
