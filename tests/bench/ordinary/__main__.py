"""Records ordinary work on this machine, and says what the shipped policies make of it. Root, Debian, package mirrors in reach.

    python -m tests.bench.ordinary                            # about ten minutes
    python -m tests.bench.ordinary --pause 15                 # about an hour: with time to think between two commands
    python -m tests.bench.ordinary --keep tests/data/ordinary/work.jsonl.zst

Packages, accounts, git, a C build, pip, npm, ssh, cron, services, editors, containers: work/*.sh, in a throw-away copy of the
running system (an overlay that is never written back). tracerd records it without loss; the policies are then run over the
recording.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import zstandard

from deploy.foreground.stack import Stack
from execray.eventfile import EventReader, open_events
from policyd.compiler import compile_set
from policyd.engine.machine import Machine
from policyd.program import CompiledPolicy, Severity
from policyd.workbench.replay import Found, Replay
from tests.bench.ordinary.reduce import Work, reduced
from tests.bench.ordinary.sensor import recorded, recording

HERE: Final = Path(__file__).parent
POLICIES: Final = Path("policies")
ENTER: Final = [
    "unshare",
    "--mount",
    "--pid",
    "--uts",
    "--ipc",
    "--fork",
    "--kill-child",
    "--propagation",
    "private",
    "bash",
]


def record(output: Path, work_dir: Path, chapters: str, pause_s: float) -> None:
    """Does the work and records all that the machine does meanwhile. Raises OperatorError."""
    machine = Machine()
    machine.load(compiled(), 1)
    stack = Stack(work_dir / "daemons", {"tracerd": {"buffer_mib": 512}})
    stack.order = ("tracerd",)
    with stack, recording(stack.runtime_dir / "tracerd" / "stream.sock", output, machine.needs().codes):
        do_work(work_dir, chapters, pause_s)


def do_work(work_dir: Path, chapters: str, pause_s: float) -> None:
    """Does the work; what it says of itself is in work_dir/log."""
    folder = work_dir / "copy"
    folder.mkdir()
    began = time.monotonic()
    with (work_dir / "log").open("wb") as log:
        subprocess.run(
            [*ENTER, HERE / "enter.sh", folder, HERE / "work"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
            env={**os.environ, "CHAPTERS": chapters, "PAUSE": str(pause_s)},
        )
    print(f"the work took {time.monotonic() - began:.0f} s", flush=True)


def compiled() -> Sequence[CompiledPolicy]:
    """Returns the shipped policies."""
    return compile_set([(file.name, file.read_bytes()) for file in sorted(POLICIES.glob("*.policy"))]).policies


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes an event file that ends in .zst, as small as it gets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zstandard.open(path, "wb", cctx=zstandard.ZstdCompressor(level=19)) as file:
        for item in records:
            file.write(json.dumps(item, separators=(",", ":")).encode() + b"\n")


def report(title: str, found: Iterable[Found]) -> None:
    """Prints what alerts there are."""
    raised = [item for item in found if item.suppressed is None]
    high = [item for item in raised if item.severity >= Severity.HIGH]
    print(f"\n{title}: {len(raised)} alerts, {len(high)} of them high or critical", flush=True)
    kinds = Counter((item.policy, item.severity, item.process.partition("[")[0]) for item in raised)
    for (policy, severity, process), count in kinds.most_common():
        print(f"  {count:3}  {severity.name.lower():8} {policy}  {process}", flush=True)


def main() -> None:
    """Records, reduces and replays."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ordinary", description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="event file to write the reduced recording to")
    parser.add_argument("--chapters", default="", help="only these, for example '10-packages 60-ssh'")
    parser.add_argument("--pause", type=float, default=0.0, metavar="SECONDS", help="between two commands (default: 0)")
    parser.add_argument("--work-dir", type=Path, help="keep everything in this folder (default: a temporary one)")
    parser.add_argument("--again", action="store_true", help="take the recording that --work-dir holds already")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.work_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ordinary-")))
        folder.mkdir(parents=True, exist_ok=True)
        everything = folder / "all.frames.zst"
        if not options.again:
            record(everything, folder, options.chapters, options.pause)
        keep, work = options.keep or folder / "reduced.jsonl.zst", Work()
        found: list[Found] = []
        write(keep, reduced(work, recorded(everything), Replay(compiled()), found))
        report(f"of {work.events} events, while {work.lost} of the whole host were lost", found)
        with open_events(keep) as lines:
            report(
                f"kept, {keep.stat().st_size / 1e6:.2f} MB",
                Replay(compiled()).run(EventReader(lines, keep.name).batches()),
            )


if __name__ == "__main__":
    main()
