"""A sensor that may kill, processes for it to kill, and rules by which it does: what the tests of inline kills share."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from execray.gate.hashes import prefix_key
from execray.gate.inline import InlinePlan, InlinePolicy, NumberTest, Part, Rule, TextTest
from execray.gate.plan import ALL_BITS, ROW_ALL, CodeTest, GatePlan
from execray.schema.catalog import EVENT_BY_NAME, Flag
from execray.schema.field import KILLER_SHIFT
from tests.support.arena import eventually
from tests.support.live import PRELUDE, Live, Run
from tests.support.pace import patient
from tracerd.inline import Limits

EVENTS: Final = ["open", "write", "connect"]
TAG: Final = 0xC0FFEE01
HOUR_NS: Final = 3_600_000_000_000
PYTHON: Final = ("/usr/bin/python3", "-I", "-S", "-c")
LIMITS: Final = Limits(per_minute=64, per_policy=64, exes=frozenset(), comms=frozenset())


def text(path: Path | bytes, part: Part = Part.EXACT, *, negate: bool = False) -> TextTest:
    return TextTest(part, path if isinstance(path, bytes) else os.fsencode(path), negate)


def rule(name: str, *tests: TextTest | NumberTest, step: int = 0, slot: int = 0) -> Rule:
    numbers = tuple(test for test in tests if isinstance(test, NumberTest))
    texts = tuple(test for test in tests if isinstance(test, TextTest))
    return Rule(slot, step, EVENT_BY_NAME[name].code, numbers, texts)


def plan_of(*rules: Rule, within_ns: int = 0) -> InlinePlan:
    steps = 1 + max(found.step for found in rules)
    return InlinePlan((InlinePolicy(TAG, steps, within_ns),), rules)


@dataclasses.dataclass
class Held:
    """A process that waits."""

    process: subprocess.Popen[bytes]
    go: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def ends(self) -> int:
        """Lets it open the decoy; returns its status."""
        self.go.touch()
        return self.process.wait(patient(20))


@dataclasses.dataclass
class Killing:
    """A sensor that may kill, and a folder."""

    live: Live
    dir: Path
    nameless: bool = False  # whether writes to pipes and sockets are looked at: a busy host has many

    @property
    def decoy(self) -> Path:
        return self.dir / "decoy"

    @property
    def done(self) -> Path:
        """What a process would make after its last call."""
        return self.dir / "done"

    def load(self, plan: InlinePlan, *, leased: bool = True) -> None:
        codes = frozenset(EVENT_BY_NAME[name].code for name in EVENTS) | {found.code for found in plan.rules}
        assert not self.live.sensor.want(codes, False, plan=self._gate(), inline=plan)
        if leased:
            self.live.sensor.inline.renew(HOUR_NS)
        else:
            self.live.sensor.inline.end_lease()

    def _gate(self) -> GatePlan:
        """Keeps the rest of a busy host out of the ring: of opens and writes passes what is in the folder, or has no path."""
        tested = [EVENT_BY_NAME[name].code for name in ("open", "write")]
        codes = tuple(CodeTest(code, at, at + 1, 2, 0, 2 * self.nameless, 2, ROW_ALL) for at, code in enumerate(tested))
        rest = frozenset(range(1, 64)) - frozenset(tested)
        key = prefix_key(os.fsencode(self.dir))
        return GatePlan(codes, rest, (0, ALL_BITS, 1 | 1 << 64), {key: 2})

    def count(self, name: str) -> int:
        found: int = self.live.sensor.inline.status()[name]
        return found

    def run(self, code: str) -> Run:
        """Runs code in a process of its own, which then makes `done`."""
        source = f"{PRELUDE}\n{code}\nos.mkdir({str(self.done)!r})"
        run = self.live.run([*PYTHON, source])
        if self.done.exists():
            self.done.rmdir()
            assert run.status == 0, run.stderr
        else:
            assert run.status == -signal.SIGKILL, run.stderr
        return run

    @contextmanager
    def held(self, before: str = "") -> Iterator[Held]:
        """A process that does something, and then waits until it is let go."""
        ready, go = self.dir / "ready", self.dir / "go"
        source = (
            f"{PRELUDE}\n{before}\nos.mkdir({str(ready)!r})\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        )
        with subprocess.Popen([*PYTHON, f"{source}\nexec(sys.argv[1])", opens(self.decoy)]) as child:
            try:
                eventually(ready.exists, 20)
                yield Held(child, go)
            finally:
                child.kill()

    def kills(self, code: str) -> bool:
        """Whether the code doesn't come to its end; then the event says by whom that was, and no other event does."""
        before = self.count("killed")
        run = self.run(code)
        marked = [event for event in run.events if event.flags & Flag.KILLED]
        assert self.count("killed") - before == len(marked) == (run.status != 0)
        assert all(int(event.flags) >> KILLER_SHIFT == TAG for event in marked)
        return bool(marked)


def opens(path: Path) -> str:
    return f"os.open({str(path)!r}, os.O_RDONLY)"


def opens_32(path: Path) -> str:
    """Code that opens a file by int 0x80, its name below 4 GiB."""
    return (
        "import mmap\n"
        "where = libc.mmap; where.restype = ctypes.c_void_p\n"
        "page = where(ctypes.c_void_p(0), 4096, 7, 0x62, -1, 0)\n"
        f"name = {os.fsencode(path)!r} + bytes(1)\n"
        "ctypes.memmove(page + 1024, name, len(name))\n"
        "stub = b'\\x53\\xb8\\x05\\0\\0\\0\\xbb' + struct.pack('<I', page + 1024)\n"
        "stub += b'\\x31\\xc9\\x31\\xd2\\xcd\\x80\\x5b\\xc3'\n"
        "ctypes.memmove(page, stub, len(stub))\n"
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(page)() >= 0\n"
    )
