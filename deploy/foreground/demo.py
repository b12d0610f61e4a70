"""`make demo`: a real attack on this machine, harmless and our own, caught on the real kernel and killed.

Everything lies in one folder (.execray/demo), and the policy names the attacking program by its path there, so nothing else
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
from typing import Any, Final, NoReturn

import click

from deploy.foreground.stack import Stack
from deploy.said import failed
from execray import timeline
from execray.errors import OperatorError
from execray.terminal import safe
from policyd.compiler import compile_source, render
from policyd.program import And, CompiledPolicy, Expr, Response, Test

HERE: Final = Path(__file__).parent / "attack"
WORK: Final = Path(".execray/demo")
DECOY: Final = "root:$6$execray$this.is.a.decoy.and.no.password:20000:0:99999:7:::\n"
ATTACK_TIMEOUT_S: Final = 15.0
#: What a policy that may kill here must name: nothing outside the demo has such a path.
CONFINED_TO: Final = b"/demo/"


def heading(text: str) -> None:
    """Prints a line that stands out on a terminal."""
    click.echo()
    click.secho(f"== {text}", bold=True)


def prepare(policy: Path) -> bool:
    """Lays out the demo's folder. Returns whether the policy may kill. Raises OperatorError for one that doesn't compile."""
    if WORK.exists():
        shutil.rmtree(WORK)
    (WORK / "decoy").mkdir(parents=True)
    (WORK / "policies").mkdir()
    (WORK / "decoy" / "shadow").write_text(DECOY)
    bash = shutil.which("bash")
    if bash is None:
        raise OperatorError("there is no bash to copy", "apt-get install bash")
    shutil.copy(bash, WORK / "attacker")
    shutil.copy(HERE / "attack.sh", WORK / "attack.sh")
    try:
        source = policy.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"can't read {policy}: {error.strerror}", "name a policy file: make demo POLICY=FILE"
        ) from error
    compiled = compile_source(source, str(policy))
    if compiled.diagnostics:
        click.echo(render(compiled.diagnostics, [compiled.source], color=sys.stdout.isatty()), err=True)
    if not compiled.policies:
        raise OperatorError(f"{policy} has nothing to run", "mend what is shown above")
    (WORK / "policies" / "demo.policy").write_bytes(source)
    (WORK / "policies" / "demo.policy").chmod(0o644)
    return all(confined(p) for p in compiled.policies if p.response is Response.ENFORCE)


def confined(policy: CompiledPolicy) -> bool:
    """Whether every way to begin the policy names a path of the demo's own, so that it can't kill anything else."""
    return all(_names_demo(policy.steps[t.step].condition) for t in policy.states[0].transitions)


def _names_demo(condition: Expr) -> bool:
    match condition:
        case And(items):
            return any(_names_demo(item) for item in items)
        case Test(field, _, value) if field.name in ("exe", "path") and field.alias is None:
            values = value if isinstance(value, tuple) else (value,)
            return bool(values) and all(isinstance(v, bytes) and CONFINED_TO in v for v in values)
        case _:
            return False


@contextmanager
def collector() -> Iterator[tuple[int, list[bytes]]]:
    """Where the loot would go: a listener on loopback. Yields its port and what arrived."""
    loot: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(ATTACK_TIMEOUT_S)

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(ATTACK_TIMEOUT_S)
                try:
                    loot.append(connection.recv(4096))
                    time.sleep(0.5)  # an operator at the other end; time for the capture to begin
                    connection.sendall(b"go\n")
                    while data := connection.recv(4096):
                        loot.append(data)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], loot
    thread.join(1)


def attack() -> int:
    """Runs the attack; returns its exit status, negative for a signal."""
    with collector() as (port, _):
        arguments = [str(WORK / "attack.sh"), str(WORK / "decoy" / "shadow"), str(port)]
        click.echo(f"  $ {WORK}/attacker " + " ".join(arguments))
        child = subprocess.Popen([(WORK / "attacker").resolve(), *arguments], stdin=subprocess.DEVNULL)
        try:
            return child.wait(ATTACK_TIMEOUT_S)
        finally:
            child.kill()
            child.wait()


def await_watching(stack: Stack, timeout_s: float = 10.0, hook: str = "open") -> None:
    """Waits until policyd has subscribed and the hook is attached. Raises OperatorError."""
    deadline = time.monotonic() + timeout_s
    with stack.control("tracerd") as control:
        while time.monotonic() < deadline:
            status = control.call("status")
            if status["subscriber"] and status["hooks"][hook]["attached"]:
                return
            time.sleep(0.05)
    raise OperatorError("policyd did not subscribe in time", f"see {stack.work_dir}/policyd.log")


def await_alert(stack: Stack, seen: set[str], timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Returns the newest alert that isn't in seen, None when none comes in time."""
    deadline = time.monotonic() + timeout_s
    with stack.control("policyd") as control:
        while time.monotonic() < deadline:
            for summary in control.call("alerts.list", limit=20)["alerts"]:
                own = summary["execray"]
                if own["kind"] == "match" and own["alert_id"] not in seen:
                    seen.add(own["alert_id"])
                    found: dict[str, Any] = control.call("alerts.show", id=own["alert_id"])
                    return found
            time.sleep(0.05)
    return None


def show_capture(stack: Stack, timeout_s: float = 6.0) -> None:
    """Waits for the capture to be complete and prints the packets it holds."""
    deadline = time.monotonic() + timeout_s
    with stack.control("enforcer") as control:
        while time.monotonic() < deadline and control.call("status")["captures"]["running"]:
            time.sleep(0.05)
    files = sorted((stack.work_dir / "state" / "captures").glob("*.pcap"))
    if not files:
        click.echo("  no capture: is tcpdump installed?")
        return
    out = subprocess.run(["tcpdump", "-nn", "-t", "-r", files[-1]], capture_output=True, text=True, check=False).stdout
    lines = out.splitlines()
    click.echo(f"  {files[-1]}: {len(lines)} packets of the victim's own connection")
    for line in lines[:4]:
        click.echo("    " + safe(line, 110))


def one_round(stack: Stack, seen: set[str]) -> bool:
    """Attacks once and shows what ExecRay made of it. Returns whether the attacker was killed."""
    started = time.monotonic()
    status = attack()
    click.echo(f"  the attacker {how_it_ended(status)} after {time.monotonic() - started:.2f} s")
    alert = await_alert(stack, seen)
    if alert is None:
        click.echo("  no alert: this policy doesn't match the attack")
        return False
    click.echo()
    click.echo(timeline.render(alert, color=sys.stdout.isatty()))
    return status == -signal.SIGKILL


def end_with(demo: Callable[[], bool], work: Path) -> NoReturn:
    """Runs a demo, whose end is that of the process: status 0 where it did what it should, 1 where not.

    work: the folder that it leaves behind.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        done = demo()
    except OperatorError as error:
        sys.exit(failed(error))
    except KeyboardInterrupt:
        click.echo("\ninterrupted; everything is taken down", err=True)
        sys.exit(130)
    heading(f"everything is taken down; what was kept lies in {work}")
    sys.exit(0 if done else 1)


def how_it_ended(status: int) -> str:
    """Returns in words how a process ended whose exit status this is, negative for a signal."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended by itself (status {status})"


def run(policy: Path) -> bool:
    """Runs the whole demo; returns whether both rounds did what they should."""
    may_kill = prepare(policy)
    if not may_kill:
        click.echo(
            f"note: {policy} could match outside the demo, so it runs in audit mode: name `/demo/` in its first step"
        )
    settings = {
        "mode": "enforce" if may_kill else "audit",
        "policyd": {"policy_dirs": [str((WORK / "policies").resolve())], "sinks": ["file"]},
        "enforcer": {"capture_interface": "lo"},
    }
    heading("starting tracerd, policyd and enforcer")
    with Stack(WORK.resolve(), settings) as stack:
        await_watching(stack)
        seen: set[str] = set()
        heading("attack 1: reads a credential file, connects out, sends what it read")
        first = one_round(stack, seen)
        show_capture(stack)
        heading("attack 2: the same, with the enforcer stopped")
        stack.stop("enforcer")
        second = one_round(stack, seen)
    return (first and second) or not may_kill


@click.command()
@click.option("--policy", type=click.Path(path_type=Path), default=HERE / "demo.policy", help="A policy of your own.")
def main(policy: Path) -> None:
    """Catch a real multi-step attack on this machine, kill it, and show why."""
    end_with(lambda: run(policy), WORK)


if __name__ == "__main__":
    main()
