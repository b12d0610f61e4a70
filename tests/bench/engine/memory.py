"""policyd's memory with its caches full and as many live partials as it may have.

A process of its own loads what policyd loads, then the policies, and takes the stream from its standard input; where that ends
it prints its figures as JSON. The stream is made outside, so that nothing but policyd's own is measured.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COUNTS = (100, 1000)
_BUSY = 40
_EVENTS = 160_000
_PART_EVENTS = 5_000
_READ_BYTES = 65_536
_TIMEOUT_S = 600


def run() -> list[dict[str, Any]]:
    """Measures each number of policies."""
    from execray.wire.frames import encode  # what is measured imports this module, and nothing by it
    from tests.bench.engine.stream import Scene

    found = []
    for count in COUNTS:
        command = [sys.executable, "-m", "tests.bench.engine.memory", str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            scene = Scene(new_paths=1.0)
            for _ in range(_EVENTS // _PART_EVENTS):
                for batch in scene.batches(_PART_EVENTS):
                    child.stdin.write(encode(batch))
            child.stdin.close()
            found.append(json.loads(child.stdout.read()))
            child.wait(_TIMEOUT_S)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the figures for people."""
    lines = ["policies  MB at start  with policies  caches and partials full  partials  cached rows  caches cleared"]
    lines += [
        f"{r['policies']:8,} {r['start_mb']:12} {r['loaded_mb']:14} {r['full_mb']:25} {r['partials']:9,} {r['rows']:12,}"
        f" {r['clears']:15,}"
        for r in rows
    ]
    return "\n".join(lines)


def _resident_mb() -> float:
    """VmRSS in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def _measure(count: int) -> dict[str, Any]:
    for name in ("policyd.cli", "policyd.daemon", "uvloop"):
        importlib.import_module(name)
    from execray.memory import Collector
    from execray.wire.frames import Batch, Decoder
    from policyd.engine.machine import Machine
    from tests.bench.engine.policies import policies

    start = _resident_mb()
    engine, decoder = Machine(), Decoder()
    engine.load(policies(count, _BUSY), 1)
    collector = Collector()
    collector.start()
    loaded, full = _resident_mb(), 0.0
    while data := sys.stdin.buffer.read(_READ_BYTES):
        for frame in decoder.feed(data):
            assert isinstance(frame, Batch)
            engine.feed(frame)
            collector.look(len(frame.events))
        full = max(full, _resident_mb())
    stats = engine.stats()
    return {
        "policies": count,
        "start_mb": start,
        "loaded_mb": loaded,
        "full_mb": full,
        "partials": stats["partials"],
        "rows": stats["row_cache_entries"],
        "clears": stats["row_cache_clears"],
    }


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
