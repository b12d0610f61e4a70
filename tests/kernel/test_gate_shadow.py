"""The gate on real work, watched only: whatever it would have dropped, the engine can do without.

One run in which everything passes, flagged with the verdict. Two runs of live work are never the same.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from execray.gate.encoding import decode_plan
from execray.gate.verdict import possible
from execray.schema.catalog import EVENTS, LOST, Flag
from execray.wire.frames import Batch, encode
from execray.wire.frames import Decoder as FrameDecoder
from policyd.compiler import compile_set
from policyd.gate.plan import build_plan
from policyd.gate.twin import facts_of, passes
from policyd.gate.ways import is_gated
from tests.properties.cases import last_of, run_engine
from tests.properties.gate import passed_of, tables_of
from tests.support.live import PRELUDE, Live
from tests.support.pace import patient

SHIPPED = Path(__file__).parents[2] / "policies"
WORK = """
folder = sys.argv[1]
os.chdir(folder)
for number in range(40):
    open(f"file{number}.txt", "w").write("x" * number)
    os.chmod(f"file{number}.txt", 0o755 if number % 7 == 0 else 0o600)
    os.rename(f"file{number}.txt", f"other{number}.dat")
for name in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/self/status", "/usr/bin/env", "missing", "/root/.ssh/id_rsa"):
    try: open(name, "rb").read(100)
    except OSError: pass
r, w = os.pipe()
os.write(w, b"through a pipe")
os.write(os.memfd_create("anonymous"), b"x")
a, b = socket.socketpair()
a.send(b"x")
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].close()
client.close()
os.makedirs("deep/" * 35)
open("deep/" * 35 + "file", "w").close()
os.link("other1.dat", "linked")
open("other3.dat").close()
open("linked").read()
open("payload", "w").write("#!/bin/sh\\ncat /etc/passwd > copied\\n")
os.chmod("payload", 0o755)
import subprocess
subprocess.run(["./payload"], check=True)
subprocess.run(["/bin/sh", "-c", "ls -l > listing; cat listing | wc -l > count; rm count; kill -0 $$"], check=True)
pid = os.fork()
if not pid:
    syscall(105, 65534)
    os._exit(0)
os.waitpid(pid, 0)
syscall(257, -100, 8, 0, 0)
"""


#: Begins once, in one process, so that what waits is dropped before, and whatever else the host does.
WAITS = """
path "waits" key process within 1m {
    open { path = "FOLDER/other3.dat" access has READ ret >= 0 }
    open { path startswith "FOLDER/" access has WRITE ret >= 0 }
}
"""


def _batches(live: Live, pid: int, timeout_s: float) -> list[Batch]:
    found: list[Batch] = []
    end, first = time.monotonic() + patient(timeout_s), 0
    while time.monotonic() < end:
        select.select([live.sensor.ring.fd], [], [], 0.1)
        while (record := live.sensor.ring.next()) is not None:
            live.decoder.decode(live.sensor.ring.data, *record)
        live.sensor.ring.release()
        batch = live.builder.take()
        (batch,) = FrameDecoder().feed(encode(batch))  # type: ignore[assignment]
        if batch.events:
            found.append(batch)
            first += len(batch.events)
            events = [batch.event(n) for n, row in enumerate(batch.events) if row[0] != LOST]
            if any(event.type.name == "exit" and event.actor.id[0] == pid for event in events):
                return found
    raise TimeoutError(f"no exit of {pid}; {first} events")


def test_the_engine_finds_the_same_in_what_the_kernel_would_have_passed(tmp_path: Path) -> None:
    sources = [(file.name, file.read_bytes()) for file in sorted(SHIPPED.glob("*.policy"))]
    sources.append(("waits.policy", WAITS.replace("FOLDER", str(tmp_path)).encode()))
    policies = compile_set(sources).policies
    built = build_plan(tables_of(policies))
    plan = decode_plan(built.raw)
    wanted = {*(test.code for test in plan.codes), *plan.open_codes}
    with Live([], content=True, ring_bytes=1 << 25, gate="shadow") as live:
        me = live.table.find(os.getpid())
        assert me is not None
        live.sensor.hide(me.pid, me.start_ns)
        live.drain()
        codes = wanted & {event.code for event in EVENTS}
        assert not live.sensor.want(codes, True, plan=plan)
        assert live.sensor.gate.settle(live.sensor.gate.generation, {})
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", PRELUDE + WORK, tmp_path], stderr=subprocess.PIPE)
        try:
            batches = _batches(live, child.pid, 45)
            _, said = child.communicate(timeout=patient(10))
        finally:
            child.kill()
            child.wait()
        assert child.returncode == 0, said.decode()
    events = [batch.event(n) for batch in batches for n, row in enumerate(batch.events) if row[0] != LOST]
    gated = [event for event in events if is_gated(event.type.code)]
    dropped = [event for event in gated if event.flags & Flag.GATE_DROP]
    first = plan.rows[plan.first]
    wrong = [event.to_json() for event in dropped if possible(plan, facts_of(event)) & first]
    assert not wrong, wrong[:3]
    kept = [event for event in gated if not event.flags & Flag.GATE_DROP]
    generous = [event.to_json() for event in kept if not passes(plan, event)]
    assert len(generous) <= 0.01 * len(gated), generous[:5]
    assert len(dropped) > 0.2 * len(gated)
    assert any(possible(plan, facts_of(event)) for event in dropped), "some wait for what hasn't begun"
    passed = list(passed_of(batches, lambda event: not event.flags & Flag.GATE_DROP))
    whole, part = run_engine(policies, batches, last_of(batches)), run_engine(policies, passed, last_of(batches))
    assert whole == part
    assert whole[0], "something is found in this work"
