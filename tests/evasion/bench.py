"""Runs tricks against real daemons, one after another, and says what became of each."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.evasion.table import HOLD, NOTHING, ROOT, THEFT, Trick
from tests.support.arena import Arena, eventually

HERE: Final = Path(__file__).parent
#: The families of tricks, and the programs that they need.
FAMILIES: Final = ("names", "hands", "ways", "kin", "cover", "runs", "code", "attach", "root", "innocent")
PARTS: Final = ("login", "payload", "victim", "become")
#: Programs that load libraries.
DYNAMIC: Final = ("reader",)
LIBRARIES: Final = ("preload", "loaded")
FOLDERS: Final = {"bin": 0o755, "old": 0o755, "work": 0o755, "scratch": 0o755, "sentinel": 0o755, "vault": 0o700}
ATTEMPTS: Final = 3
TRICK_TIMEOUT_S: Final = 20.0
COMPILE_TIMEOUT_S: Final = 40.0
LOGIN_UIDS: Final = 70000  # from here on: each trick is a login of its own
VICTIM_WORD: Final = "captured"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one trick."""

    trick: Trick
    detected_by: tuple[str, ...] = ()
    cant: str = ""  # why it can't be done here
    failed: str = ""  # why the bench itself is at fault

    @property
    def verdict(self) -> str:
        """`detected`, `missed`, `quiet` (of what is nothing forbidden), `can't` or `failed`."""
        if self.failed or self.cant:
            return "failed" if self.failed else "can't"
        silent = "quiet" if self.trick.goal is NOTHING else "missed"
        return "detected" if self.detected_by else silent


@dataclass(slots=True)
class _Account:
    """What a trick tells of itself, line by line."""

    pids: set[int] = field(default_factory=set)
    proofs: set[str] = field(default_factory=set)
    cant: str = ""
    failed: str = ""

    def take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "pid":
            self.pids.add(int(rest))
        elif word == "cant":
            self.cant = self.cant or rest
        elif word in {"ran", "held"}:
            self.proofs.add(word)
        elif word != "listen":
            self.failed = f"said {line!r}"


class Collector:
    """Takes what comes over TCP and UDP on one port of loopback, when it is asked to."""

    def __init__(self) -> None:
        self._tcp = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for door in (self._tcp, self._udp):
            door.setblocking(False)

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()

    def take(self) -> bytes:
        """Returns all that has come since the last time. The senders must have ended, so that nothing is waited for."""
        found = []
        while True:
            try:
                connection, _ = self._tcp.accept()
            except BlockingIOError:
                break
            found.append(read_all(connection))
        while True:
            try:
                found.append(self._udp.recv(65536))
            except BlockingIOError:
                return b"".join(found)


def read_all(connection: socket.socket) -> bytes:
    """Reads to the end, and closes."""
    with connection:
        connection.settimeout(5.0)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class Bench:
    """Daemons with the policies of evasion.policy, a folder with what the tricks need, and a way to run them.

    The folder lies below /var/tmp, where nobody else may write but everybody may look: some tricks are not root.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="execray-evasion-", dir="/var/tmp"))
        self._sentinels = 0
        self._fetched = b""
        self._alerts_read = 0
        self._lost = 0
        try:
            self._furnish()
            self._arena = Arena(self.root, policy_text(self.root), mode="audit")
            self.secret = f"root:$6${secrets.token_hex(16)}:20000:0:99999:7:::\n"
            self._arena.decoy.write_text(self.secret)
            (self._arena.decoy.parent / "motd").write_text("nothing to see here\n")
            self._arena.decoy.with_name("shadow-").write_text(
                self.secret
            )  # what has another name has two that may be reported
            os.link(self._arena.decoy.with_name("shadow-"), self.root / "old" / "name")
        except BaseException:
            shutil.rmtree(self.root)
            raise

    def __enter__(self) -> Self:
        try:
            self._arena.__enter__()
        except BaseException:
            shutil.rmtree(self.root)
            raise
        self._collector = Collector()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collector.close()
        self._arena.__exit__(kind, error, trace)
        shutil.rmtree(self.root)

    def _furnish(self) -> None:
        self.root.chmod(0o755)
        for name, mode in FOLDERS.items():
            (self.root / name).mkdir(mode=mode)
        bin_dir = self.root / "bin"
        compilers = [
            *(_compiler(name, bin_dir / name, "-static", "-pthread") for name in (*FAMILIES, *PARTS)),
            *(_compiler(name, bin_dir / name) for name in DYNAMIC),
            *(_compiler(name, bin_dir / f"{name}.so", "-shared", "-fPIC") for name in LIBRARIES),
        ]
        for compiler in compilers:
            compiler.communicate(timeout=COMPILE_TIMEOUT_S)
            if compiler.returncode:
                raise subprocess.CalledProcessError(compiler.returncode, compiler.args)
        script = bin_dir / "payload.sh"
        script.write_text("#!/bin/sh\necho ran >/proc/self/fd/$EVADE_REPORT\n")
        for path in bin_dir.iterdir():
            path.chmod(0o755)
        shutil.copy(bin_dir / "payload", self.root / "scratch" / "written_over")
        shutil.copy(bin_dir / "reader", self.root / "scratch" / "standing")
        _make_set_uid(bin_dir / "become", bin_dir / "set_uid_program")
        _make_capable(bin_dir / "become", bin_dir / "capable_program")

    def run(self, trick: Trick) -> Outcome:
        """Runs one trick to its end, waits until all it did has been through the pipeline, and judges.

        Where events were lost nothing can be said, and it is run again: the host may be busy with other things.
        """
        for _ in range(ATTEMPTS):
            if (outcome := self._attempt(trick)) is not None:
                return outcome
        return Outcome(trick, failed=f"events were lost, {ATTEMPTS} times in a row")

    def _attempt(self, trick: Trick) -> Outcome | None:
        """Runs it once. Returns None where events were lost meanwhile."""
        with self._victim(trick) as environment:
            account = self._perform(trick, environment)
            proven = self._proven(trick, account, environment)
        alerts = self._settled()
        for folder in ("work", "vault"):  # hard links of the secret, and the proof of a trick that may be run again
            shutil.rmtree(self.root / folder)
            (self.root / folder).mkdir(mode=FOLDERS[folder])
        if account.failed:
            return Outcome(trick, failed=account.failed)
        if self._lost_more():
            return None
        if account.cant:
            return Outcome(trick, cant=account.cant)
        if not proven:
            return Outcome(trick, failed="it ran, and nothing shows that it did what it is for")
        detected = {a["execray"]["policy"] for a in alerts if a.get("process", {}).get("pid") in account.pids}
        return Outcome(trick, tuple(sorted(detected & trick.goal.policies)))

    def _lost_more(self) -> bool:
        """Whether events were lost since the last time."""
        with self._arena.stack.control("tracerd", timeout_s=TRICK_TIMEOUT_S) as control:
            before, self._lost = self._lost, sum(control.call("status")["lost"].values())
        return self._lost > before

    @contextmanager
    def _victim(self, trick: Trick) -> Iterator[dict[str, Any]]:
        """Where the trick needs one: a process to be taken hold of, in the variables that tell of it."""
        if trick.goal is not HOLD:
            yield {}
            return
        with subprocess.Popen(
            [self.root / "bin" / "victim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            try:
                yield {"EVADE_VICTIM": str(victim.pid), "EVADE_WORD": victim.stdout.readline().strip(), "": victim}
            finally:
                victim.kill()

    def _perform(self, trick: Trick, environment: dict[str, Any]) -> _Account:
        reading, writing = os.pipe()
        variables = {
            **{name: value for name, value in environment.items() if name},
            "EVADE_ROOT": str(self.root),
            "EVADE_PORT": str(self._collector.port),
            "EVADE_REPORT": str(writing),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        account, bin_dir = _Account(), self.root / "bin"
        try:
            process = subprocess.Popen(
                [bin_dir / "login", str(LOGIN_UIDS + self._sentinels), bin_dir / trick.program, trick.name],
                env=variables,
                cwd=self.root,
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            self._listen(pipe.fileno(), account)
        if account.failed:
            _end(self.root, account.pids)
        _, words = process.communicate(timeout=TRICK_TIMEOUT_S)
        if process.returncode and not account.cant:
            account.failed = account.failed or f"status {process.returncode}: {words.decode(errors='replace').strip()}"
        return account

    def _listen(self, fd: int, account: _Account) -> None:
        """Reads a trick's account until nobody is left who could add to it."""
        deadline, rest = time.monotonic() + TRICK_TIMEOUT_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(fd, 4096)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    account.take(line.decode(errors="replace"))
                    if line.startswith(b"listen "):
                        self._fetched = read_all(socket.create_connection(("127.0.0.1", int(line[7:])), 5.0))
        account.failed = f"not done within {TRICK_TIMEOUT_S:g} s"

    def _proven(self, trick: Trick, account: _Account, environment: dict[str, Any]) -> bool:
        """Whether the trick did what it is for."""
        if trick.goal is THEFT:
            came, self._fetched = self._collector.take() + self._fetched, b""
            return self.secret.encode() in came
        if trick.goal is HOLD:
            return "held" in account.proofs or _word_of(environment[""]) == VICTIM_WORD
        if trick.goal is ROOT:
            made = self.root / "vault" / trick.name
            return made.exists() and made.stat().st_uid == 0
        return "ran" in account.proofs

    def _settled(self) -> list[dict[str, Any]]:
        """Returns the alerts raised since the last time, once an alert on something done just now is among them."""
        self._sentinels += 1
        mark = self.root / "sentinel" / str(self._sentinels)
        mark.touch()
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found.extend(self._new_alerts())
            return any(alert.get("file", {}).get("path") == str(mark) for alert in found)

        eventually(arrived, TRICK_TIMEOUT_S)
        return found

    def _new_alerts(self) -> list[dict[str, Any]]:
        """The alerts that were written since the last time."""
        file = self.root / "state" / "policyd" / "alerts.jsonl"
        if not file.exists():
            return []
        with file.open("rb") as alerts:
            alerts.seek(self._alerts_read)
            whole, end, _ = alerts.read().rpartition(b"\n")  # the last line may be in the making
        self._alerts_read += len(whole) + len(end)
        return [json.loads(line) for line in whole.splitlines()]


def policy_text(root: Path) -> str:
    """evasion.policy for a bench in that folder."""
    return (HERE / "evasion.policy").read_text(encoding="utf-8").replace("ROOT", str(root))


def _compiler(name: str, to: Path, *options: str) -> subprocess.Popen[bytes]:
    """Begins to compile one file."""
    source = HERE / "tricks" / f"{name}.c"
    return subprocess.Popen(["gcc", "-O1", "-Wall", "-Wextra", *options, "-o", to, source])


def _make_set_uid(program: Path, to: Path) -> None:
    shutil.copy(program, to)
    to.chmod(0o4755)


def _make_capable(program: Path, to: Path) -> None:
    """Gives a copy of a program CAP_SETUID, permitted and effective (struct vfs_cap_data, revision 2)."""
    shutil.copy(program, to)
    cap_setuid = 1 << 7
    attribute = b"".join(n.to_bytes(4, "little") for n in (0x02000001, cap_setuid, 0, 0, 0))
    with suppress(OSError):  # a file system without them: the trick then says that it can't
        os.setxattr(to, "security.capability", attribute)


def _word_of(victim: subprocess.Popen[str]) -> str:
    """What the victim says now."""
    assert victim.stdin is not None and victim.stdout is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
    return victim.stdout.readline().strip()


def _end(root: Path, pids: set[int]) -> None:
    """Ends what a trick left behind: of the processes that it told of, those that still have the bench in their environment."""
    for pid in pids:
        try:
            if f"EVADE_ROOT={root}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
