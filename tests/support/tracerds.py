"""tracerd as a process of the test's own, on sockets of its own, and a subscriber to it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from execray.config import Config, TracerdConfig
from execray.control_client import ControlClient, Unreachable
from execray.schema.catalog import EVENT_BY_NAME
from execray.wire.frames import (
    Batch,
    Decoder,
    Frame,
    Hello,
    Subscribe,
    encode,
)
from tests.support.arena import eventually
from tracerd.daemon import Tracerd as Daemon


@contextmanager
def loaded_tracerd(mode: str = "enforce") -> Iterator[Daemon]:
    """One in this process, that is loaded, and whose loop doesn't run."""
    with tempfile.TemporaryDirectory(prefix="execray-", dir="/run") as name:
        config = Config(runtime_dir=Path(name), group="", mode=mode, tracerd=TracerdConfig(inline="on"))
        made = Daemon(config, logging.getLogger("tracerd"))
        try:
            yield made
        finally:
            made._sensor.close()


class Tracerd:
    """A tracerd of the test's own, on sockets of its own."""

    def __init__(self, **settings: Any) -> None:
        self.subscribers: list[Subscriber] = []
        self.dir = Path(tempfile.mkdtemp(prefix="execray-", dir="/run"))
        config = {"runtime_dir": str(self.dir), "group": "", "tracerd": {"heartbeat_s": 0.2, **settings}}
        (self.dir / "execray.yaml").write_text(yaml.safe_dump(config))
        self.start()

    def start(self) -> None:
        with (self.dir / "log").open("ab") as log:
            command = [sys.executable, "-m", "tracerd.cli", "--config", str(self.dir / "execray.yaml")]
            self.process = subprocess.Popen(command, stderr=log)
        try:
            eventually(self.answers, 40)  # as long as its start may take where others have the processor
        except BaseException:
            self.close()  # whoever asked for it gets nothing that they could close
            raise

    def answers(self) -> bool:
        self.alive()
        try:
            return bool(self.status()["pid"] == self.process.pid)
        except Unreachable:
            return False

    def alive(self) -> bool:
        assert self.process.poll() is None, self.log()
        return True

    def log(self) -> str:
        return (self.dir / "log").read_text()

    def control(self) -> ControlClient:
        return ControlClient(self.dir / "tracerd" / "ctl.sock")

    def status(self) -> dict[str, Any]:
        with self.control() as control:
            found: dict[str, Any] = control.call("status")
            return found

    def connect(self, **hello: Any) -> Subscriber:
        self.subscribers.append(Subscriber(self.dir / "tracerd" / "stream.sock", **hello))
        return self.subscribers[-1]

    def close(self) -> None:
        for subscriber in self.subscribers:
            subscriber.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.dir)


class Subscriber:
    """A policyd as far as the stream goes."""

    def __init__(self, path: Path, **hello: Any) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self.decoder = Decoder()
        self.waiting: list[Frame] = []
        self.send(Hello("policyd", {"version": "test", "pid": os.getpid(), "resume": None, **hello}))
        greeting = self.next()
        if not isinstance(greeting, Hello):
            self.close()
            raise AssertionError(greeting)
        self.hello = greeting

    def send(self, frame: Frame) -> None:
        self.sock.sendall(encode(frame))

    def subscribe(self, *names: str, content: bool = False) -> None:
        self.send(Subscribe(tuple(EVENT_BY_NAME[name].code for name in names), int(content)))

    def next(self) -> Frame:
        while not self.waiting:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError
            self.waiting += self.decoder.feed(data)
        return self.waiting.pop(0)

    def batches(self, seconds: float) -> list[Batch]:
        """Everything that comes within a time."""
        end, out = time.monotonic() + seconds, []
        while time.monotonic() < end:
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                frame = self.next()
            except TimeoutError:
                break
            if isinstance(frame, Batch):
                out.append(frame)
        self.sock.settimeout(10)
        return out

    def until(self, found: Callable[[Batch], bool], timeout_s: float = 10) -> list[Batch]:
        """Batches up to the first that has what is looked for."""
        end, out = time.monotonic() + timeout_s, []
        while time.monotonic() < end:
            frame = self.next()
            if isinstance(frame, Batch):
                out.append(frame)
                if found(frame):
                    return out
        raise TimeoutError

    def close(self) -> None:
        self.sock.close()


def has(text: bytes) -> Callable[[Batch], bool]:
    return lambda batch: text in batch.strings


def tells_of(rawpath: bytes) -> Callable[[Batch], bool]:
    """Whether an event has it, and not only the arguments of who opens other files first."""
    return lambda batch: any(
        batch.event(at).get("rawpath") == rawpath
        for at, row in enumerate(batch.events)
        if row[0] == EVENT_BY_NAME["open"].code
    )


def touch(path: Path) -> None:
    subprocess.run(["/bin/cat", path], check=False, capture_output=True)
