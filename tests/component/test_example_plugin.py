"""The example package, installed by its own build files, in a policyd as it is run: alerts leave, addresses are put down."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from execray.config import Config
from execray.control_client import ControlClient, Unreachable
from execray.plugin_index import find
from execray.plugins import ACTIONS, SINKS
from tests.support.fake_tracerd import DEADLINE_S, FakeTracerd, until
from tests.support.playbook import Play
from tests.support.policyds import private_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "execray-example-plugin"
POLICY = """
path "calls_home" response enforce within 15s {
    meta { severity: high }
    connect { dst.ip not in ["10.0.0.0/8"] } as out
    exec { name = "sh" }
    on match { alert; notify "blocklist" with { ip = out.dst.ip } }
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, installed as pip would, by setuptools alone: nothing is fetched."""
    source, folder = tmp_path_factory.mktemp("example") / "source", tmp_path_factory.mktemp("plugins")
    shutil.copytree(EXAMPLE, source)
    build = [sys.executable, "-W", "ignore", "-c", "from setuptools import setup; setup()", "-q", "build_py"]
    install = ["install_lib", "--install-dir", str(folder), "install_egg_info", "--install-dir", str(folder)]
    done = subprocess.run([*build, *install], cwd=source, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    with private_config(tmp_path, {"a.policy": POLICY}) as made:
        yield made


class Receiver(http.server.ThreadingHTTPServer):
    """Somebody's server: keeps what it is sent, and answers with `answer`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.answer = 204


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(json.loads(body))
        self.server.tokens.add(self.headers["Authorization"])
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def policyd(config: Config, **own: Any) -> Iterator[subprocess.Popen[bytes]]:
    """One in a process of its own; it ends with the block."""
    file = config.runtime_dir / "execray.yaml"
    settings = {"policy_dirs": list(map(str, config.policyd.policy_dirs)), "sinks": ["file"], **own}
    folders = {"runtime_dir": str(config.runtime_dir), "state_dir": str(config.state_dir)}
    file.write_text(yaml.safe_dump({"mode": config.mode, "group": "", **folders, "policyd": settings}))
    file.chmod(0o600)
    process = subprocess.Popen([sys.executable, "-m", "policyd.cli", "--config", str(file)], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def status(config: Config) -> dict[str, Any]:
    try:
        with ControlClient(config.control_socket("policyd"), DEADLINE_S) as client:
            found = client.call("status")
    except Unreachable:
        return {"plugins": []}
    assert isinstance(found, dict)
    return found


def done(config: Config) -> dict[str, int]:
    return {plugin["name"]: plugin["done"] for plugin in status(config)["plugins"]}


async def test_alerts_are_posted_and_addresses_put_down(
    config: Config, folder: Path, receiver: Receiver, tmp_path: Path
) -> None:
    token, blocked = tmp_path / "token", tmp_path / "blocked"
    token.write_text("s3cret\n")
    plugins = {
        "webhook": {"url": f"http://127.0.0.1:{receiver.server_port}/", "token_file": str(token)},
        "blocklist": {"file": str(blocked)},
    }
    tracerd = FakeTracerd(config.stream_socket)
    await tracerd.start()
    own = {"sinks": ["file", "webhook"], "actions": ["blocklist"], "plugin_dir": str(folder), "plugins": plugins}
    with policyd(config, **own) as process:
        await until(lambda: tracerd.subscribed, "a subscription")
        play = Play()
        for number, ip in enumerate(("192.0.2.1", "192.0.2.1", "127.0.0.1", "2001:db8::1")):
            shell = play.process(exe=f"/bin/{number}/sh")
            play.event("connect", shell, family=2, dst_ip=ip, dst_port=443, ret=0)
            play.event("exec", shell, filename="sh", ret=0)
        await tracerd.send(play.batch())
        await until(lambda: done(config) == {"webhook": 4, "blocklist": 4}, "all of it")
        ctl = [str(Path(sys.executable).with_name("execray-ctl")), "--config", str(config.runtime_dir / "execray.yaml")]
        shown = await asyncio.to_thread(subprocess.run, [*ctl, "status"], capture_output=True, text=True, timeout=30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == 0
    await tracerd.stop()
    on_file = [json.loads(line) for line in config.alerts_file.read_text().splitlines()]
    assert receiver.got == on_file and len(on_file) == 4 and receiver.tokens == {"Bearer s3cret"}
    assert blocked.read_text().splitlines() == ["192.0.2.1", "2001:db8::1"]
    assert "sink webhook (execray-example-plugin 1.0): idle, 4 done, 0 waiting" in shown.stdout
    assert "action blocklist (execray-example-plugin 1.0): idle, 4 done" in shown.stdout


async def test_a_server_that_refuses_is_counted_and_told(config: Config, folder: Path, receiver: Receiver) -> None:
    receiver.answer = 500
    plugins = {"webhook": {"url": f"http://127.0.0.1:{receiver.server_port}/"}}
    tracerd = FakeTracerd(config.stream_socket)
    await tracerd.start()
    with policyd(config, sinks=["file", "webhook"], plugin_dir=str(folder), plugins=plugins):
        await until(lambda: tracerd.subscribed, "a subscription")
        play = Play()
        play.lost(3)
        await tracerd.send(play.batch())
        await until(lambda: status(config)["plugins"][0]["failed"] == 1, "a failure")
        assert "HTTP Error 500" in status(config)["plugins"][0]["last_error"]
    await tracerd.stop()


async def test_in_audit_mode_the_example_blocks_nothing(config: Config, folder: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    tracerd = FakeTracerd(config.stream_socket)
    await tracerd.start()
    (config.policyd.policy_dirs[0] / "a.policy").write_text(POLICY.replace("response enforce ", ""))
    own = {"actions": ["blocklist"], "plugin_dir": str(folder), "plugins": {"blocklist": {"file": str(blocked)}}}
    with policyd(config, **own):
        await until(lambda: tracerd.subscribed, "a subscription")
        play = Play()
        shell = play.process(exe="/bin/sh")
        play.event("connect", shell, family=2, dst_ip="192.0.2.1", dst_port=443, ret=0)
        play.event("exec", shell, filename="sh", ret=0)
        await tracerd.send(play.batch())
        await until(lambda: done(config) == {"blocklist": 1}, "the request")
    await tracerd.stop()
    assert not blocked.exists()


async def test_plugins_end_with_a_policyd_that_is_killed(config: Config, folder: Path, tmp_path: Path) -> None:
    own = {"actions": ["blocklist"], "plugin_dir": str(folder), "plugins": {"blocklist": {"file": "/nowhere"}}}
    with policyd(config, **own) as process:
        await until(lambda: done(config) == {"blocklist": 0} and "pid" in status(config)["plugins"][0], "a start")
        await until(lambda: status(config)["plugins"][0]["state"] == "idle", "its being ready")
        pid = status(config)["plugins"][0]["pid"]
        assert b"execray.plugin_host" in Path(f"/proc/{pid}/cmdline").read_bytes()  # noqa: ASYNC240  # procfs: nothing waits for a disk
        process.kill()
        await until(lambda: not os.path.exists(f"/proc/{pid}"), "its end")


def test_the_example_s_entry_points_are_found_under_its_name(folder: Path) -> None:
    assert find(SINKS, "webhook", folder).package == "execray-example-plugin 1.0"
    assert find(ACTIONS, "blocklist", folder).package == "execray-example-plugin 1.0"
