"""Every benchmark in turn: `make bench`, or `python -m tests.bench [NAME ...] [--json FILE]`. No figure passes or fails."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from tests.bench import (
    bench_compile,
    bench_decode,
    bench_flood,
    bench_gate,
    bench_gated,
    bench_inline,
    bench_job,
    bench_kill,
    bench_overhead,
    bench_reload,
    bench_stream,
    bench_tail,
)
from tests.bench.command import interpreter
from tests.bench.engine import measure

BENCHES = {
    "engine": (measure, "the engine alone; memory and a peer: python -m tests.bench.engine"),
    "kill": (bench_kill, "kill latency on the real kernel"),
    "inline": (bench_inline, "kills in the kernel itself"),
    "reload": (bench_reload, "reloads, and how long events wait for them"),
    "compile": (bench_compile, "compiling, and what `policy check` takes"),
    "decode": (bench_decode, "tracerd's decoding alone"),
    "stream": (bench_stream, "real events, kernel to engine"),
    "tail": (bench_tail, "what detection pays for those who follow events"),
    "gate": (bench_gate, "what the kernel drops of ordinary work, and the size of plans"),
    "gated": (bench_gated, "what an event costs that the kernel drops, and a flood of them"),
    "flood": (bench_flood, "a flood through the daemons, and sequences amid it"),
    "job": (bench_job, "what a C build and a web server pay for being watched"),
    "overhead": (bench_overhead, "what the watched pay"),
}


def main() -> None:
    """Runs them, prints their tables, and writes all figures to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], help="which; default: all")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file for the figures")
    arguments = parser.parse_args()
    figures: dict[str, object] = {
        "machine": f"{platform.release()}, {os.cpu_count()} processors",
        "interpreter": interpreter(),
    }
    print(figures["interpreter"], flush=True)
    for name in arguments.names or BENCHES:
        bench, title = BENCHES[name]
        print(f"\n{title}\n", flush=True)
        began = time.monotonic()
        figures[name] = found = bench.run()
        print(f"{bench.table(found)}\n({time.monotonic() - began:.0f} s)", flush=True)
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\nfigures in {arguments.json}")


if __name__ == "__main__":
    main()
