"""Events a second through the engine with 1, 100 and 1,000 policies, from decoded batches and from the socket's bytes.

    python -m tests.bench.bench_engine --json engine.json

The sizes take turns, so that what else the machine does falls on all of them alike; medians are compared. The stream is made of
what a build, a web server and shells do; hardly any event meets a step. `busy` is another set of policies, whose first step one
event in twenty meets. There is no pass or fail.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from execray.wire.frames import Batch, Decoder, encode
from policyd.engine.machine import Machine
from policyd.program import CompiledPolicy, KeyKind, Not, Op, Or, Step
from tests.support.playbook import Play, Proc
from tests.support.programs import eq, policy, step, test

EVENTS = 60_000
BATCH_EVENTS = 64
ROUNDS = 7
_LIBRARIES = [
    f"/usr/lib/x86_64-linux-gnu/lib{name}.so.{n}" for name in ("c", "m", "ssl", "crypto", "z") for n in range(8)
]
_SOURCES = [f"/home/dev/project/src/module{n % 40}/file{n}.c" for n in range(1500)]
_PAGES = [f"/srv/www/html/section{n % 12}/page{n}.html" for n in range(600)]


def policies(count: int) -> list[CompiledPolicy]:
    """Returns that many different policies of the kinds that are common: one to three steps, literals and patterns."""
    return [_KINDS[number % len(_KINDS)](number) for number in range(count)]


def _secret_then_send(n: int) -> CompiledPolicy:
    first = step(
        "open",
        test("path", Op.MATCH, (f"^/etc/(secret{n}|shadow{n})$",)),
        test("access", Op.HAS, 1),
        test("ret", Op.GE, 0),
        Not(test("exe", Op.IN, ("/usr/bin/sudo", "/usr/sbin/sshd", f"/opt/agent{n}"))),
        alias="o",
    )
    return policy(f"send{n}", first, step("write|connect", alias="out"), key=KeyKind.TREE, within_s=60)


def _dropped(n: int) -> CompiledPolicy:
    made = step("open", eq("created", True), test("path", Op.STARTSWITH, (f"/tmp/.x{n}/", f"/dev/shm/y{n}")), alias="d")
    armed = step("chmod", test("mode", Op.HASANY, 0o111), alias="c")
    run = step("exec", test("exe", Op.STARTSWITH, (f"/tmp/.x{n}/", f"/dev/shm/y{n}")), test("ret", Op.GE, 0), alias="r")
    return policy(f"drop{n}", made, armed, run, key=KeyKind.TREE)


def _shell_of_server(n: int) -> CompiledPolicy:
    accepted = step("connect", Not(test("dst.port", Op.IN, (80, 443, n))), eq("exe", f"/opt/server{n}"), alias="c")
    shell = step("exec", test("name", Op.IN, ("sh", "bash", "dash")), test("cmdline", Op.CONTAINS, (f"-c {n}",)))
    return policy(f"shell{n}", accepted, shell, within_s=15)


def _suffix(n: int) -> CompiledPolicy:
    only = step("open", Or((test("path", Op.ENDSWITH, (f".key{n}",)), test("path", Op.CONTAINS, (f"/vault{n}/",)))))
    return policy(f"key{n}", only, within_s=None)


def _tool(n: int) -> CompiledPolicy:
    only = step("exec", test("argv[0]", Op.MATCH, (f"(^|/)miner{n}[a-z]*$",)), test("uid", Op.NE, 0))
    return policy(f"tool{n}", only, within_s=None)


_KINDS: list[Callable[[int], CompiledPolicy]] = [_secret_then_send, _dropped, _shell_of_server, _suffix, _tool]


def busy_policies(count: int) -> list[CompiledPolicy]:
    """Returns policies whose first step one event in twenty meets, each with another second step that never comes."""
    first: Step = step("open", test("path", Op.STARTSWITH, ("/srv/www/",)), alias="o")
    return [policy(f"busy{n}", first, step("write", eq("path", f"/never{n}")), within_s=5) for n in range(count)]


def stream(events: int, seed: int = 1) -> list[Batch]:
    """Returns decoded batches of what a build, a web server and a few shells do."""
    rng = random.Random(seed)
    play = Play()
    init = play.process(uid=0, euid=0, exe="/usr/lib/systemd/systemd", comm="systemd", argv=["/sbin/init"])
    server = play.process(init, uid=33, exe="/usr/sbin/nginx", comm="nginx", argv=["nginx", "-g", "daemon off;"])
    login = play.process(init, exe="/usr/bin/bash", comm="bash", argv=["-bash"])
    make = play.process(login, exe="/usr/bin/make", comm="make", argv=["make", "-j8"])
    workers = [play.process(server) for _ in range(4)]
    batches: list[Batch] = []
    made = 0
    while made < events:
        size = sum(_job(play, rng, make)) if rng.random() < 0.5 else sum(_request(play, rng, rng.choice(workers)))
        made += size
    batches.extend(play.batches(BATCH_EVENTS))
    return batches


def _job(play: Play, rng: random.Random, make: Proc) -> list[int]:
    # One compiler run.
    source = _SOURCES[min(int(rng.paretovariate(0.5)) - 1, len(_SOURCES) - 1)]
    cc = play.fork(make)
    cc.values.update(exe="/usr/bin/gcc", comm="gcc", argv=["gcc", "-O2", "-c", source, "-o", source + ".o"])
    play.event("exec", cc, filename="/usr/bin/gcc", file_id="8:1:4711", ret=0)
    for path in (*rng.sample(_LIBRARIES, 4), source, *rng.sample(_SOURCES, 5)):
        play.event(
            "open", cc, path=path, rawpath=path, flags=os.O_RDONLY, mode=0, created=False, file_id="8:1:9", ret=3
        )
    play.event("open", cc, path=source + ".o", rawpath=source + ".o", flags=0o1101, mode=0o644, created=True, ret=4)
    for _ in range(4):
        play.event("write", cc, fd=4, path=source + ".o", len=4096, ret=4096)
    play.exit(cc)
    return [18]


def _request(play: Play, rng: random.Random, worker: Proc) -> list[int]:
    # One page served: nginx opens the file, writes the answer and the log, and sometimes asks an upstream.
    page = _PAGES[min(int(rng.paretovariate(0.7)) - 1, len(_PAGES) - 1)]
    play.event("open", worker, path=page, rawpath=page, flags=os.O_RDONLY, mode=0, created=False, ret=12)
    play.event("write", worker, fd=9, path="socket:", len=8192, ret=8192)
    play.event("write", worker, fd=5, path="/var/log/nginx/access.log", len=120, ret=120)
    if rng.random() < 0.3:
        play.event("connect", worker, fd=13, family=2, dst_ip=f"10.0.0.{rng.randrange(1, 20)}", dst_port=8080, ret=0)
    return [3]


def _decoded(engine: Machine, batches: Sequence[Batch], _: Sequence[bytes]) -> int:
    return sum(len(engine.feed(batch)) for batch in batches)


def _from_bytes(engine: Machine, _: Sequence[Batch], chunks: Sequence[bytes]) -> int:
    decoder = Decoder()
    return sum(len(engine.feed(f)) for chunk in chunks for f in decoder.feed(chunk) if isinstance(f, Batch))


def measure(sets: dict[str, list[CompiledPolicy]], rounds: int = ROUNDS, events: int = EVENTS) -> list[dict[str, Any]]:
    """Returns a row for each set of policies and each kind of input."""
    batches = stream(events)
    count = sum(len(batch.events) for batch in batches)
    whole = b"".join(encode(batch) for batch in batches)
    chunks = [whole[at : at + 65536] for at in range(0, len(whole), 65536)]
    engines: dict[str, Machine] = {}
    for name, loaded in sets.items():
        engines[name] = Machine()
        engines[name].load(loaded, 1)
    times: dict[tuple[str, str], list[float]] = {}
    inputs = {"batches": _decoded, "bytes": _from_bytes}
    for turn in range(rounds + 1):  # the first one fills the caches and is measured apart
        for name, engine in engines.items():
            for kind, run in inputs.items():
                gc.collect()
                start = time.perf_counter()
                run(engine, batches, chunks)
                seconds = time.perf_counter() - start
                label = "cold" if turn == 0 else kind
                if turn or kind == "batches":
                    times.setdefault((name, label), []).append(seconds)
    return [
        {
            "policies": name,
            "input": kind,
            "events": count,
            "events_per_s": round(count / statistics.median(seconds)),
            "ns_per_event": round(statistics.median(seconds) / count * 1e9),
            "spread": round(max(seconds) / min(seconds), 2),
            "fired": engines[name].stats()["fired"] // (2 * (rounds + 1)),
        }
        for (name, kind), seconds in times.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the figures as text, each also relative to one policy on the same input."""
    base = {row["input"]: row["events_per_s"] for row in rows if row["policies"] == "1"}
    lines = [
        f"{'policies':>10} {'input':>8} {'events/s':>10} {'ns/event':>9} {'of 1 policy':>12} {'max/min':>8} {'fired':>7}"
    ]
    for row in rows:
        ratio = row["events_per_s"] / base[row["input"]]
        lines.append(
            f"{row['policies']:>10} {row['input']:>8} {row['events_per_s']:>10,} {row['ns_per_event']:>9,}"
            f" {ratio:>11.0%} {row['spread']:>8} {row['fired']:>7,}"
        )
    return "\n".join(lines)


def run(rounds: int = ROUNDS, events: int = EVENTS) -> list[dict[str, Any]]:
    """Measures the standard sets."""
    sets = {str(count): policies(count) for count in (1, 100, 1000)}
    return measure({**sets, "busy 20": busy_policies(20)}, rounds, events)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes the rows as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times each set is run (default %(default)s)")
    parser.add_argument("--events", type=int, default=EVENTS, help="length of the stream (default %(default)s)")
    options = parser.parse_args(argv)
    rows = run(options.rounds, options.events)
    print(table(rows))
    if options.json is not None:
        options.json.write_text(json.dumps({"engine": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
