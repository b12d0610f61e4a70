"""The engine's benchmark: `python -m tests.bench.engine [--json FILE] [--peer PYTHON]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.bench.engine import measure, memory, peer


def main() -> None:
    """Prints the tables, and writes the figures where asked."""
    parser = argparse.ArgumentParser(description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS, help="parts of the stream (default %(default)s)")
    parser.add_argument("--events", type=int, default=measure.EVENTS, help="events of a part (default %(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="leave out what takes longest")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="an interpreter with the package eql, for scale")
    arguments = parser.parse_args()
    result = measure.run(arguments.rounds, arguments.events)
    print(measure.table(result), flush=True)
    if not arguments.no_memory:
        result["memory"] = memory.run()
        print("\n" + memory.table(result["memory"]), flush=True)
    if arguments.peer is not None:
        result["peer"] = peer.run(arguments.peer)
        print("\n" + peer.table(result["peer"]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
