"""tracerd's share: records of the ring to the stream's bytes, on one processor, with nothing else in between.

    python -m tests.bench.bench_decode --json decode.json

Real records are taken once (a shell that starts programs, and programs that open and write; one of them opens 4,000 files in
turn, so that no batch has one twice), then decoded over and over in batches of the size that a busy tracerd makes. So is what is
kept of an hour of ordinary work (tests.bench.hour): a host's own mix. Then 200,000 processes that live for one program each, made
from one real one's records: what the table has grown by afterwards, and by how much at most while they ran. Needs root.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any, Final

from execray.schema.layout import ER_EVENT, HEADER, TASK, Task
from execray.wire.frames import encode
from tests.bench import command, hour
from tests.support.live import Live
from tracerd.batch import BatchBuilder
from tracerd.decode import Decoder, is_compiled
from tracerd.processes import ProcessTable

ROUNDS = 11
BATCH = 512
#: Events a second that are asked of every kind of work, of the decoder as it is installed: compiled, with Debian's Python.
BOUND = 150_000
_MANY = """
import os
names = [f"{folder}/{name}" for folder, _, names in os.walk(os.path.dirname(os.__file__)) for name in names][:4000]
for i in range(20000): os.close(os.open(names[i % len(names)], 0))
"""
LIVES: Final = "exec, fork, exit"
HOUR: Final = "an ordinary hour"
#: name -> (events wanted, shell command)
WORK = {
    "open": (
        ["open"],
        f"exec {sys.executable} -ISc \"import os\nfor i in range(20000): os.close(os.open('/etc/hostname', 0))\"",
    ),
    "open, many files": (["open"], f"exec {sys.executable} -ISc '{_MANY}'"),
    "write": (["write"], f"exec {sys.executable} -ISc \"import os\nfor i in range(20000): os.write(1, b'x' * 64)\""),
    LIVES: (["exec", "fork", "exit"], "for i in $(seq 600); do /bin/true; done"),
}
ROWS: Final = (*WORK, HOUR)


def _capture(wanted: list[str], script: str) -> list[bytes]:
    """Returns the records that a shell's work leaves in the ring."""
    records: list[bytes] = []
    content = "write" in wanted  # else no policy asks for any: environments of programs would come with it
    with Live(wanted, content=content, ring_bytes=1 << 24) as live:
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


SHORT_LIVED: Final = 200_000
#: Where a record has its kind, and its task's start time and pid; where a fork has its child's.
_KIND: Final = struct.Struct("<4xH")
_START, _PID = HEADER.size, HEADER.size + 8 * 4 + 16
_CHILD: Final = HEADER.size + TASK.size
_PIDS: Final = 32768


def _short_lived(records: Sequence[bytes]) -> dict[str, Any]:
    """Runs many processes through a table: a fork, an exec and an exit each, with pids that are used again."""
    kinds = {_KIND.unpack_from(record)[0]: record for record in records}
    fork, run, end = (bytearray(kinds[ER_EVENT[f"ER_EVENT_{name}"]]) for name in ("FORK", "EXEC", "EXIT"))
    assert Task._make(TASK.unpack_from(run, HEADER.size)).pid == struct.unpack_from("<I", run, _PID)[0]
    table, builder = ProcessTable(65536), BatchBuilder()
    decoder = Decoder(table, builder)
    tracemalloc.start()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    for number in range(SHORT_LIVED):
        pid, started = 1000 + number % _PIDS, 10**12 + number
        struct.pack_into("<QI", fork, _CHILD, started, pid)
        for record in (run, end):
            struct.pack_into("<Q", record, _START, started)
            struct.pack_into("<I", record, _PID, pid)
        for record in (fork, run, end):
            decoder.decode(memoryview(record), 0, len(record))
        if number % (BATCH // 3) == 0:
            encode(builder.take())
    took = time.process_time() - start
    encode(builder.take())
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.refused == 0
    return {
        "processes": SHORT_LIVED,
        "seconds": round(took, 1),
        "kept": len(table),
        "grown_kib": (now - before) // 1024,
        "peak_kib": (peak - before) // 1024,
    }


def run() -> dict[str, Any]:
    """Returns for each kind of work the events per second, and the bytes of a record; then what many processes leave behind."""
    result: dict[str, Any] = {"compiled": is_compiled()}
    for name in ROWS:
        records = hour.records() if name == HOUR else _capture(*WORK[name])
        rates = [_decode(records) for _ in range(ROUNDS)]
        result[name] = {
            "events": len(records),
            "record_bytes": round(statistics.mean(map(len, records))),
            "events_per_s": round(statistics.median(rates)),
            "best": round(max(rates)),
        }
        if name == LIVES:
            result["short-lived"] = _short_lived(records)
    return result


def table(result: dict[str, Any]) -> str:
    """Returns the result for people."""
    lines = [f"work                events   bytes a record   events/s   best   bound {BOUND}"]
    lines += [
        f"{name:18} {r['events']:7} {r['record_bytes']:16} {r['events_per_s']:10} {r['best']:6}"
        + ("   held" if r["events_per_s"] >= BOUND else "   NOT held")
        for name, r in result.items()
        if name in ROWS
    ]
    many = result["short-lived"]
    lines.append("" if result["compiled"] else "\nnot compiled: COMPILED=yes")
    lines.append(
        f"\n{many['processes']:,} short-lived processes: {many['kept']} kept, memory grown by {many['grown_kib']} KiB,"
        f" by {many['peak_kib']} KiB at most meanwhile"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    command.main(__doc__, run, table)
