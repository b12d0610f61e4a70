"""What still takes effect of the call in which the kernel kills: the table of docs/kernel-kills.md, a call at a time.

The process gives itself a name that no other has just before that call, and the rule asks for the name and the kind of event.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from execray.gate.inline import Part
from tests.support.arena import alive, eventually
from tests.support.inline_kills import Killing, plan_of, rule, text
from tests.support.live import Live, sleeper
from tests.support.pace import patient

NAME: Final = b"inlineeffect"
#: From here on the process is one that may not do it.
NOW: Final = f"libc.prctl(15, {NAME!r}, 0, 0, 0)\n"


@dataclass
class Scene:
    """What a call is about, outside of the process that makes it."""

    dir: Path
    victim: int
    tcp: socket.socket
    udp: socket.socket
    accepted: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.tcp.getsockname()[1]
        return port

    def peer(self) -> socket.socket:
        connection, _ = self.tcp.accept()
        connection.settimeout(patient(10))
        self.accepted.append(connection)
        return connection


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        victim = stack.enter_context(sleeper())
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        for sock in (tcp, udp):
            sock.settimeout(patient(10))
        (tmp_path / "old").write_text("old")
        found = Scene(tmp_path, victim.pid, tcp, udp)
        yield found
        for connection in found.accepted:
            connection.close()


def tracer(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("TracerPid"))


def gone(pid: int) -> bool:
    return not alive(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def connecting(scene: Scene) -> str:
    return f"s = socket.create_connection(('127.0.0.1', {scene.port}))\n"


#: event -> (what is done, with NOW in it; whether it took effect)
Case = tuple[str, Callable[[Scene], str], Callable[[Scene], bool]]
CASES: Final[dict[str, Case]] = {
    "a file is made": (
        "open",
        lambda s: f"{NOW}os.open('{s.dir}/new', os.O_CREAT | os.O_WRONLY)",
        lambda s: (s.dir / "new").exists(),
    ),
    "a file is emptied by open": (
        "open",
        lambda s: f"{NOW}os.open('{s.dir}/old', os.O_TRUNC | os.O_WRONLY)",
        lambda s: (s.dir / "old").read_text() == "",
    ),
    "a file is written": (
        "write",
        lambda s: f"f = os.open('{s.dir}/old', os.O_WRONLY)\n{NOW}os.write(f, b'new')",
        lambda s: (s.dir / "old").read_text() == "new",
    ),
    "bytes go to a peer": (
        "write",
        lambda s: f"{connecting(s)}{NOW}os.write(s.fileno(), b'loot')",
        lambda s: s.peer().recv(10) == b"loot",
    ),
    "a datagram goes to a peer": (
        "sendto",
        lambda s: (
            f"s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n{NOW}"
            f"s.sendto(b'loot', ('127.0.0.1', {s.udp.getsockname()[1]}))"
        ),
        lambda s: s.udp.recv(10) == b"loot",
    ),
    "a connection is made": ("connect", lambda s: NOW + connecting(s), lambda s: s.peer().recv(10) == b""),
    "a name is taken away": (
        "unlink",
        lambda s: f"{NOW}os.unlink('{s.dir}/old')",
        lambda s: not (s.dir / "old").exists(),
    ),
    "a name is changed": (
        "rename",
        lambda s: f"{NOW}os.rename('{s.dir}/old', '{s.dir}/new')",
        lambda s: (s.dir / "new").exists(),
    ),
    "a folder is made": ("mkdir", lambda s: f"{NOW}os.mkdir('{s.dir}/new')", lambda s: (s.dir / "new").is_dir()),
    "permissions are changed": (
        "chmod",
        lambda s: f"{NOW}os.chmod('{s.dir}/old', 0o4755)",
        lambda s: (s.dir / "old").stat().st_mode & 0o7777 == 0o4755,
    ),
    "a signal is sent": ("kill", lambda s: f"{NOW}os.kill({s.victim}, 15)", lambda s: _in_time(lambda: gone(s.victim))),
    "nobody stays traced": (
        "ptrace",
        lambda s: f"{NOW}syscall(101, 16, {s.victim}, 0, 0)",
        lambda s: _in_time(lambda: tracer(s.victim) == 0) and alive(s.victim),
    ),
}


def _in_time(condition: Callable[[], bool]) -> bool:
    eventually(condition, 10)
    return True


@pytest.mark.parametrize("what", CASES)
def test_the_call_itself_has_happened_and_nothing_after_it(deadly: Live, scene: Scene, what: str) -> None:
    event, code, took_effect = CASES[what]
    arena = Killing(deadly, scene.dir, nameless=event == "write")
    try:
        arena.load(plan_of(rule(event, text(NAME, Part.COMM))))
        assert arena.kills(code(scene))
        assert took_effect(scene)
    finally:
        arena.load(plan_of(rule("connect", text(b"nobody", Part.COMM))), leased=False)


def test_who_shares_a_descriptor_goes_on_with_it(deadly: Live, scene: Scene) -> None:
    # a child that was there before the last call lives, and has the same socket
    waits = "    while os.getppid() == main: time.sleep(0.01)\n"
    child = f"if os.fork() == 0:\n{waits}    os.write(s.fileno(), b'late')\n    os._exit(0)\n"
    code = f"main = os.getpid()\ns = socket.socket()\n{child}{NOW}s.connect(('127.0.0.1', {scene.port}))"
    arena = Killing(deadly, scene.dir)
    try:
        arena.load(plan_of(rule("connect", text(NAME, Part.COMM))))
        assert arena.kills(code)
        assert scene.peer().recv(10) == b"late"
    finally:
        arena.load(plan_of(rule("connect", text(b"nobody", Part.COMM))), leased=False)


def test_a_memory_that_is_shared_stays_as_it_was_left(deadly: Live, scene: Scene) -> None:
    (scene.dir / "shared").write_bytes(bytes(4096))
    code = (
        f"import mmap\nf = os.open('{scene.dir}/shared', os.O_RDWR)\nm = mmap.mmap(f, 4096)\nm[0] = 1\n{NOW}"
        f"os.open('{scene.dir}/old', 0)\nm[1] = 1"
    )
    arena = Killing(deadly, scene.dir)
    try:
        arena.load(plan_of(rule("open", text(NAME, Part.COMM))))
        assert arena.kills(code)
        assert (scene.dir / "shared").read_bytes()[:2] == b"\1\0"
    finally:
        arena.load(plan_of(rule("connect", text(b"nobody", Part.COMM))), leased=False)
