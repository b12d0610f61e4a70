"""bpf/scan.bpf.c: the processes that were there before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from execray.process import start_ticks_of
from execray.schema.catalog import Flag
from tests.support.live import NAP, Live, sleeper
from tracerd.processes import Process


def test_scan_knows_every_process_and_its_line() -> None:
    with sleeper() as child, Live([]) as live:
        found = live.table.find(child.pid)
        assert found is not None
        assert found.exe == os.fsencode(os.path.realpath("/bin/sleep"))
        assert found.argv == b"/bin/sleep\x00%s\x00" % NAP.encode()
        assert found.comm == b"sleep"
        assert found.start_ns * os.sysconf("SC_CLK_TCK") // 1_000_000_000 == start_ticks_of(child.pid)
        assert found.parent is not None and found.parent.pid == os.getpid()
        line: list[Process] = []
        at: Process | None = found
        while at is not None:
            line.append(at)
            at = at.parent
        assert line[-1].pid in (0, 1) or line[-1].parent is None
        mine = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()}
        missing = [pid for pid in mine if live.table.find(pid) is None and Path(f"/proc/{pid}").exists()]
        assert len(missing) <= 2, missing  # born between the scan and this listing


def test_the_scan_says_where_arguments_were_cut() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read -r _", "x" * 20000], stdin=subprocess.PIPE) as child:
        with Live([]) as live:
            found = live.table.find(child.pid)
        child.communicate(b"\n")
    assert found is not None and found.argv is not None
    assert len(found.argv) == 16384 and found.flags & Flag.ARGV_TRUNCATED


def test_no_process_falls_between_hooks_and_scan() -> None:
    """A storm of forks while the sensor starts: each child alive afterwards is known, with the right parent."""
    storm = f"import os, time\nfor _ in range(150):\n    if os.fork() == 0: time.sleep({NAP}); os._exit(0)\n"
    code = storm + f"print('done', flush=True); time.sleep({NAP})"
    parent = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, process_group=0)
    try:
        with Live([]) as live:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"done\n"
            live.drain()
            children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
            assert len(children) == 150
            for pid in children:
                process = live.table.find(pid)
                assert process is not None and process.parent is not None, pid
                assert process.parent.pid == parent.pid
    finally:
        os.killpg(parent.pid, 9)
        parent.wait()
        assert parent.stdout is not None
        parent.stdout.close()
