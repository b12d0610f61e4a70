"""policyd as its users start it: readiness, signals, a user of its own, mistakes in the configuration."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import grp
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from execray.capabilities import CAP_KILL
from execray.config import Config
from execray.control_client import ControlClient
from policyd.sinks.jsonl import read_newest_first
from tests.support.fake_tracerd import DEADLINE_S, FakeTracerd, until
from tests.support.playbook import Play
from tests.support.policyds import THEFT, TOUCH, private_config, theft, write_policy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": THEFT}, "audit") as made:
        yield made


@dataclass(slots=True)
class Child:
    """A policyd in a process of its own, with the socket that it tells its readiness to."""

    process: subprocess.Popen[bytes]
    ready: socket.socket
    config: Config

    def heard(self) -> str:
        """Waits for the next sd_notify message that isn't only about how it is."""
        while (said := self.ready.recv(4096).decode()).startswith("STATUS="):
            pass
        return said

    def ask(self, op: str, **args: Any) -> Any:
        with ControlClient(self.config.control_socket("policyd"), DEADLINE_S) as client:
            return client.call(op, **args)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def arguments(config: Config, *more: str) -> list[str]:
    file = config.runtime_dir / "execray.yaml"
    file.write_text(yaml.safe_dump({"group": config.group, "policyd": {"sinks": ["stdout", "file"]}}))
    dirs = ["--runtime-dir", str(config.runtime_dir), "--state-dir", str(config.state_dir)]
    policies = ["--policy-dir", str(config.policyd.policy_dirs[0])]
    return [sys.executable, "-m", "policyd.cli", "--config", str(file), *dirs, *policies, *more]


@contextlib.contextmanager
def policyd(config: Config, *more: str) -> Iterator[Child]:
    """Starts one and waits until it says that it is ready; leaves nothing behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        address = config.runtime_dir / f"notify-{time.monotonic_ns()}"
        ready.bind(str(address))
        address.chmod(0o666)
        ready.settimeout(DEADLINE_S)
        process = subprocess.Popen(
            arguments(config, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
        )
        child = Child(process, ready, config)
        try:
            try:
                assert child.heard() == "READY=1"
            except TimeoutError:
                process.kill()
                pytest.fail(f"not ready: {process.communicate(timeout=DEADLINE_S)[1].decode()}")
            yield child
        finally:
            process.kill()
            process.communicate(timeout=DEADLINE_S)


@contextlib.asynccontextmanager
async def tracerd_for(config: Config) -> AsyncIterator[FakeTracerd]:
    fake = FakeTracerd(config.stream_socket)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


def test_it_says_when_it_is_ready_reloading_and_stopping(config: Config) -> None:
    with policyd(config) as child:
        assert child.ask("status")["policies"] == 1
        write_policy(config.policyd.policy_dirs[0] / "b.policy", TOUCH)
        child.process.send_signal(signal.SIGHUP)
        assert child.heard().startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert child.heard() == "READY=1"
        assert child.ask("status")["policies"] == 2
        assert child.end() == 0
        assert child.heard() == "STOPPING=1"
        assert not config.control_socket("policyd").exists()


async def test_sigterm_writes_what_is_under_way(config: Config) -> None:
    play = Play()
    theft(play)
    play.lost(3)
    play.lost(4)
    async with tracerd_for(config) as tracerd:
        with policyd(config) as child:
            batch = play.batch()
            await tracerd.send(batch)
            await tracerd.acknowledged(batch)
            assert await asyncio.to_thread(child.end) == 0
    kinds = [alert["execray"]["kind"] for alert in read_newest_first(config.alerts_file, 1, 10)]
    assert kinds == ["sensor_loss", "sensor_loss", "match"]  # the second loss was still being summed up


async def test_killed_and_restarted_it_raises_each_alert_once(config: Config) -> None:
    play = Play()
    theft(play)
    first = play.batch()
    theft(play, play.process(exe="/tmp/second"))
    second = play.batch()
    async with tracerd_for(config) as tracerd:
        with policyd(config) as child:
            await tracerd.send(first)
            await tracerd.acknowledged(first)
            await asyncio.to_thread(child.end, signal.SIGKILL)
        await until(lambda: not tracerd.subscribed, "the end of the connection")
        with policyd(config) as child:
            await tracerd.send(first, second)  # as if the acknowledgement had been lost
            await tracerd.acknowledged(second)
            await asyncio.to_thread(child.end)
    found = [alert["process"]["executable"] for alert in read_newest_first(config.alerts_file, 1, 10)]
    assert found == ["/tmp/second", "/tmp/thief"]


async def test_killed_and_restarted_it_tells_each_loss_once(config: Config) -> None:
    play = Play()
    play.lost(3)
    theft(play)
    batch = play.batch()
    async with tracerd_for(config) as tracerd:
        for _ in range(2):  # the second time as if the acknowledgement had been lost
            with policyd(config) as child:
                await tracerd.send(batch)
                await tracerd.acknowledged(batch)
                duplicates = child.ask("status")["alerts"]["duplicates"]
                await asyncio.to_thread(child.end, signal.SIGKILL)
            await until(lambda: not tracerd.subscribed, "the end of the connection")
            tracerd.acks.clear()
    found = [alert["execray"]["kind"] for alert in read_newest_first(config.alerts_file, 1, 10)]
    assert (found, duplicates) == (["match", "sensor_loss"], 2)


async def test_alerts_on_a_pipe_are_json_lines(config: Config) -> None:
    play = Play()
    theft(play)
    async with tracerd_for(config) as tracerd:
        with policyd(config) as child:
            await tracerd.send(play.batch())
            assert child.process.stdout is not None
            line = await asyncio.to_thread(child.process.stdout.readline)
    assert yaml.safe_load(line)["rule"]["name"] == "theft"


@needs_root
@pytest.mark.parametrize("mode", ["audit", "enforce"])
async def test_started_by_root_it_becomes_the_user_and_still_works(mode: str) -> None:
    nobody = pwd.getpwnam("nobody")
    with contextlib.ExitStack() as stack:
        # Below a folder that anyone may enter, as /var/lib is; pytest's own may be entered by root only.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/run", prefix="exr-")))
        folder.chmod(0o755)  # noqa: ASYNC240  # a small file of the test's own
        config: Config = stack.enter_context(private_config(folder, {"a.policy": THEFT}))
        config = dataclasses.replace(config, group=grp.getgrgid(nobody.pw_gid).gr_name)
        async with tracerd_for(config) as tracerd:
            tracerd.path.chmod(0o666)
            play = Play()
            for number in range(2):  # the second time, everything is there already
                theft(play, play.process(exe=f"/tmp/{number}"))
                with policyd(config, "--user", "nobody", "--mode", mode) as child:
                    status = Path(f"/proc/{child.process.pid}/status").read_text()  # noqa: ASYNC240  # a small file of the test's own
                    facts = dict(line.split(":", 1) for line in status.splitlines())
                    assert facts["Uid"].split() == [str(nobody.pw_uid)] * 4
                    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 1 << CAP_KILL
                    batch = play.batch()
                    await tracerd.send(batch)
                    await tracerd.acknowledged(batch)
                    assert await asyncio.to_thread(child.end) == 0
                await until(lambda: not tracerd.subscribed, "the end of the connection")
        assert config.alerts_file.stat().st_uid == nobody.pw_uid
        assert len(list(read_newest_first(config.alerts_file, 1, 10))) == 2


@needs_root
def test_a_user_who_may_not_enter_the_folder_of_the_sockets_is_a_clear_error(config: Config) -> None:
    config.runtime_dir.chmod(0o700)
    done = subprocess.run(
        arguments(config, "--user", "nobody"), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1 and "can't enter" in done.stderr and "folder above" in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
def test_a_user_outside_the_group_is_told_so(config: Config) -> None:
    config = dataclasses.replace(config, group="daemon")
    done = subprocess.run(
        arguments(config, "--user", "nobody"), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1 and "can't listen" in done.stderr and "in the group `daemon`" in done.stderr


@needs_root
@pytest.mark.parametrize("name", ["policyd", "state"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(config: Config, tmp_path: Path, name: str) -> None:
    """The user may write into what was handed to it, and root comes back at the next start."""
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    place = config.daemon_dir("policyd") if name == "policyd" else config.alerts_file.parent
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(precious)
    done = subprocess.run(
        arguments(config, "--user", "nobody"), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1 and f"can't use {place}" in done.stderr
    assert precious.stat().st_uid == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--user", "no-such-user"), "no user `no-such-user`"),
        (("--config", "/nonexistent/c.yaml"), "can't read /nonexistent/c.yaml"),
        (("--state-dir", "/proc/nowhere"), "can't use /proc/nowhere"),
        (("--sink", "fax"), "there is no alert sink `fax`"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line_and_a_hint(config: Config, more: tuple[str, ...], words: str) -> None:
    if "--user" in more and os.geteuid() != 0:
        pytest.skip("only root changes users")
    done = subprocess.run(arguments(config, *more), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and words in done.stderr and "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_one_on_the_same_sockets_is_refused_and_the_first_lives(config: Config) -> None:
    with policyd(config) as child:
        done = subprocess.run(arguments(config), capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1 and "another instance" in done.stderr
        assert child.ask("status")["policies"] == 1


@pytest.mark.parametrize("args", [("--mode", "kill"), ("--nonsense",)])
def test_wrong_usage_ends_with_2(config: Config, args: tuple[str, ...]) -> None:
    done = subprocess.run(arguments(config, *args), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
