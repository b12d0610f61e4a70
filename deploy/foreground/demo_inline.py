"""`make demo-inline`: a reverse shell on this machine, harmless and our own, killed by the kernel before its first byte leaves.

It connects to a listener of ours on loopback. The policy names the program's own name and that listener's port, so nothing else
on the machine can match.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from deploy.foreground.demo import HERE, await_alert, await_watching, end_with, heading, how_it_ended
from deploy.foreground.stack import Stack
from execray import timeline
from execray.errors import OperatorError

WORK: Final = Path(".execray/demo-inline")
PROGRAM: Final = "execray-revsh"
TIMEOUT_S: Final = 15.0
POLICY: Final = """\
policy "reverse_shell" key process response enforce {
    meta { severity: critical attack: ["T1059.004"] }
    connect { comm = "PROGRAM" family = AF_INET dst.port = PORT ret >= 0 } as out
    on match { alert critical; kill }
}
"""


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """The other end of the shell. Yields its port, and what each connection brought until it ended."""
    brought: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    brought.append(_all_of(connection))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], brought
        finally:
            done.set()
            thread.join(TIMEOUT_S)


def _all_of(connection: socket.socket) -> bytes:
    connection.settimeout(1.0)
    found = b""
    try:
        connection.sendall(b"exit\n")
        while data := connection.recv(4096):
            found += data
    except OSError:
        return found
    return found


def _eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def prepare(port: int) -> None:
    """Lays out the demo's folder. Raises OperatorError."""
    if WORK.exists():
        shutil.rmtree(WORK)
    (WORK / "policies").mkdir(parents=True)
    bash = shutil.which("bash")
    if bash is None:
        raise OperatorError("there is no bash to copy", "apt-get install bash")
    shutil.copy(bash, WORK / PROGRAM)
    shutil.copy(HERE / "shell.sh", WORK / "shell.sh")
    policy = WORK / "policies" / "shell.policy"
    policy.write_text(POLICY.replace("PROGRAM", PROGRAM).replace("PORT", str(port)))
    policy.chmod(0o644)


def attack(port: int) -> int:
    """Runs the shell; returns its exit status, negative for a signal."""
    arguments = [str(WORK / "shell.sh"), str(port)]
    click.echo(f"  $ {WORK}/{PROGRAM} " + " ".join(arguments))
    child = subprocess.Popen([(WORK / PROGRAM).resolve(), *arguments], stdin=subprocess.DEVNULL)
    try:
        return child.wait(TIMEOUT_S)
    finally:
        child.kill()
        child.wait()


def one_round(inline: str, port: int, brought: list[bytes], seen: set[str]) -> bool:
    """Attacks once; returns whether the kernel killed before anything was sent."""
    heading(f"a reverse shell, with `tracerd.inline: {inline}`")
    settings = {
        "mode": "enforce",
        "tracerd": {"inline": inline},
        "policyd": {"policy_dirs": [str((WORK / "policies").resolve())], "sinks": ["file"]},
    }
    before = len(brought)
    with Stack(WORK.resolve(), settings) as stack:
        await_watching(stack, hook="connect")
        status = attack(port)
        alert = await_alert(stack, seen)
    if not _eventually(lambda: len(brought) > before):
        raise OperatorError("the shell did not connect", "is loopback up?")
    sent = b"".join(brought[before:])
    click.echo(
        f"  the shell {how_it_ended(status)}; the other end got {len(sent)} bytes: {sent.decode(errors='replace')!r}"
    )
    if alert is None:
        return False
    click.echo()
    click.echo(timeline.render(alert, color=sys.stdout.isatty()))
    return status == -signal.SIGKILL and not sent and alert["execray"].get("killed_by") == "kernel"


def both_rounds() -> bool:
    """Attacks with the kernel's own kills and without; returns whether the first round did what it should."""
    with listener() as (port, brought):
        prepare(port)
        seen: set[str] = set()
        done = one_round("on", port, brought, seen)
        one_round("off", port, brought, seen)
    return done


@click.command()
def main() -> None:
    """Let a reverse shell call out twice: killed in its connect by the kernel, and then, for comparison, by the enforcer."""
    end_with(both_rounds, WORK)


if __name__ == "__main__":
    main()
