"""One guest: boots a kernel on the disk under QEMU's software processor and returns what it says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.vm.kernels import Image, NotFetched

#: Never KVM: the same result on every machine, a virtual one included.
#: QEMU 7.2 emulates cmpxchg16b wrongly, which Linux then uses in its allocator: without it nothing is lost.
MACHINE: Final = ("-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,cx16=off", "-smp", "2", "-m", "2G")
#: No initial RAM disk: NVMe and ext4 are built into Debian's cloud kernels.
#: Mitigations take half of a software processor's time, which leaks nothing.
COMMAND_LINE: Final = "console=ttyS0 quiet panic=-1 mitigations=off root=/dev/nvme0n1 rootfstype=ext4 rootwait"
INIT: Final = "rw init=/opt/execray/tests/vm/init.sh"
_POLL_S: Final = 0.5


@dataclass(slots=True)
class Report:
    """What a guest said, by kind of result."""

    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    console: Path = Path()
    lines: int = 0  # taken of what it has written

    @property
    def complete(self) -> bool:
        """Whether the guest came to its end."""
        return "done" in self.said


def boot(
    image: Image,
    disk: Path,
    work: Path,
    timeout_s: float,
    progress: Callable[[dict[str, Any]], None],
    init: str = INIT,
) -> Report:
    """Boots and waits for the end, telling each result as it comes. The console and results are kept in work.

    init: the end of the kernel's command line. What the guest writes to its disk is thrown away.
    """
    console, results = work / "console.log", work / "results.jsonl"
    results.write_bytes(b"")
    command = ["qemu-system-x86_64", *MACHINE, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-serial", f"file:{console}", "-serial", f"file:{results}", "-kernel", str(image.file)]
    command += [
        "-drive",
        f"if=none,id=root,file={disk},format=raw,snapshot=on",
        "-device",
        "nvme,serial=root,drive=root",
    ]
    command += ["-append", f"{COMMAND_LINE} {init}"]
    started = time.monotonic()
    try:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise NotFetched(f"{command[0]}: {error.strerror}", "apt-get install qemu-system-x86") from error
    report = Report(console=console)
    try:
        while machine.poll() is None and time.monotonic() - started < timeout_s:
            _take(results, report, progress)
            try:
                machine.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
    finally:
        machine.kill()
        _, errors = machine.communicate()
    _take(results, report, progress)
    report.seconds = time.monotonic() - started
    if errors and not report.said:
        raise NotFetched(f"qemu: {errors.strip()[-300:]}", "the machine didn't start")
    return report


def _take(results: Path, report: Report, progress: Callable[[dict[str, Any]], None]) -> None:
    lines = results.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for line in lines[report.lines :]:
        if line.endswith("\n"):
            report.lines += 1
            said = json.loads(line)
            report.said[said["what"]] = said
            progress(said)
