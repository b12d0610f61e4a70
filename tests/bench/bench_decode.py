"""tracerd's share: records of the ring to the stream's bytes, on one processor, with nothing else in between.

    python -m tests.bench.bench_decode --json decode.json

Real records are taken once (a shell that starts programs, and programs that open and write), then decoded over and over in
batches of the size that a busy tracerd makes. Needs root.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import Any

from execray.wire.frames import encode
from tests.bench import command
from tests.support.live import Live
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder
from tracerd.processes import ProcessTable

ROUNDS = 11
BATCH = 512
#: name -> (events wanted, shell command)
WORK = {
    "open": (
        ["open"],
        f"exec {sys.executable} -ISc \"import os\nfor i in range(20000): os.close(os.open('/etc/hostname', 0))\"",
    ),
    "write": (["write"], f"exec {sys.executable} -ISc \"import os\nfor i in range(20000): os.write(1, b'x' * 64)\""),
    "exec, fork, exit": (["exec", "fork", "exit"], "for i in $(seq 600); do /bin/true; done"),
}


def _capture(wanted: list[str], script: str) -> list[bytes]:
    """Returns the records that a shell's work leaves in the ring."""
    records: list[bytes] = []
    with Live(wanted, content=True, ring_bytes=1 << 24) as live:
        subprocess.run(["/bin/sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
        ring = live.sensor.ring
        while (record := ring.next()) is not None:
            records.append(bytes(ring.data[record[0] : record[0] + record[1]]))
        ring.release()
    return records


def _decode(records: list[bytes]) -> float:
    """Returns events per second."""
    table, builder = ProcessTable(65536), BatchBuilder()
    decoder = Decoder(table, builder)
    views = [memoryview(record) for record in records]
    start = time.process_time()
    for number, view in enumerate(views, 1):
        decoder.decode(view, 0, len(view))
        if number % BATCH == 0:
            encode(builder.take())
    encode(builder.take())
    took = time.process_time() - start
    assert decoder.refused == 0
    return len(records) / took


def run() -> dict[str, Any]:
    """Returns for each kind of work the events per second, and the bytes of a record."""
    result = {}
    for name, (wanted, script) in WORK.items():
        records = _capture(wanted, script)
        rates = [_decode(records) for _ in range(ROUNDS)]
        result[name] = {
            "events": len(records),
            "record_bytes": round(statistics.mean(map(len, records))),
            "events_per_s": round(statistics.median(rates)),
            "best": round(max(rates)),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = ["work                events   bytes a record   events/s   best"]
    lines += [
        f"{name:18} {r['events']:7} {r['record_bytes']:16} {r['events_per_s']:10} {r['best']:6}"
        for name, r in result.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
