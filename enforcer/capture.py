"""Records the traffic of a process with tcpdump: bounded in seconds and bytes, and never longer than the enforcer lives.

tcpdump writes to a file that we opened, so it needs no right to any folder and may run as nobody with CAP_NET_RAW alone.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import os
import pwd
import re
import shutil
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enforcer.pcap import trim
from execray.config import EnforcerConfig
from execray.guard import OwnProcesses, Reason
from execray.killer import ended, stop_child
from execray.scheduling import leave_short_turns
from execray.wire.orders import CaptureSpec, Flow, Order

READY_TIMEOUT_S: Final = 2.0
STOP_TIMEOUT_S: Final = 1.0
#: A dead process's last packets are still on their way through the network stack, and the peer answers them.
GRACE_S: Final = 0.25
#: In immediate mode the kernel's ring has slots of this size, and a burst fills the 2 MiB that tcpdump asks for by itself.
#: 1,024 slots, half of them on loopback, hold what comes until tcpdump runs again.
SNAPLEN_BYTES: Final = 16 * 1024
RING_KIB: Final = 16 * 1024
_SUMMARY: Final = re.compile(rb"^(\d+) packets? (captured|dropped by kernel)", re.MULTILINE)
_TOOL_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_NET_CAPS: Final = {12: "net_admin", 13: "net_raw"}


class CaptureError(Exception):
    """Why there is no capture."""

    def __init__(self, code: Reason, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def busy(self) -> bool:
        """Whether it was only a matter of the moment."""
        return self.code is Reason.CAPTURES_BUSY


@dataclass(frozen=True, slots=True)
class Captured:
    """What a finished capture holds, and why it ended."""

    file: Path
    packets: int
    bytes: int
    text: str


@dataclass(slots=True)
class Capture:
    """One tcpdump that records."""

    file: Path
    fd: int  # of the file, for its size
    process: asyncio.subprocess.Process
    spec: CaptureSpec
    own: tuple[int, int] | None


class Capturer:
    """Starts captures within the configured bounds, and keeps the newest files."""

    def __init__(self, config: EnforcerConfig, folder: Path, own: OwnProcesses, log: logging.Logger) -> None:
        self.running = 0
        self.done = 0
        self._config = config
        self._folder = folder
        self._own = own
        self._log = log
        self._stopping = asyncio.Event()
        self._open_files: set[Path] = set()

    @property
    def tcpdump(self) -> str | None:
        """Where tcpdump is now, None where it isn't installed."""
        return shutil.which(self._config.tcpdump, path=_TOOL_PATH)

    def stop(self) -> None:
        """Ends every capture, and refuses new ones."""
        self._stopping.set()

    async def begin(self, order: Order) -> Capture:
        """Starts tcpdump, and returns when it is recording. Raises CaptureError."""
        assert order.capture is not None
        tcpdump = self.tcpdump
        if tcpdump is None:
            raise CaptureError(Reason.NO_TCPDUMP, f"{self._config.tcpdump} is not installed")
        if self.running >= self._config.captures_at_once or self._stopping.is_set():
            raise CaptureError(Reason.CAPTURES_BUSY, f"{self.running} captures are running")
        spec = CaptureSpec(
            min(order.capture.seconds, self._config.capture_max_s),
            min(order.capture.max_bytes, self._config.capture_max_mib << 20),
            order.capture.flows,
        )
        self.running += 1
        try:
            return await self._start(tcpdump, order.process.pid, spec)
        except BaseException:
            self.running -= 1
            raise

    async def finish(self, capture: Capture, pidfd: int) -> Captured:
        """Waits for the first of: time, size, the process's end and a grace, a stop; then ends tcpdump and says what it got."""
        why = "stopped"
        try:
            why = await self._wait(capture, pidfd)
        finally:
            errors = await self._end(capture)
            self.running -= 1
            self.done += 1
            os.close(capture.fd)
            self._open_files.discard(capture.file)
        return await self._facts(capture, errors, why)

    async def _start(self, tcpdump: str, pid: int, spec: CaptureSpec) -> Capture:
        self._prune()
        file, fd = self._create(pid)
        self._open_files.add(file)
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *command(tcpdump, self._config.capture_interface, spec),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=fd,
                stderr=asyncio.subprocess.PIPE,
                cwd="/",
                env={"PATH": _TOOL_PATH, "LC_ALL": "C"},
                start_new_session=True,  # a Ctrl-C in our terminal is for us; tcpdump is stopped in order
            )
            own = self._own.add(process.pid)
            capture = Capture(file, fd, process, spec, own)
            await self._ready(process)
            if process.returncode is None:  # by now nice(1) is done: it keeps the niceness that it finds
                leave_short_turns(process.pid)
        except BaseException as error:
            if process is not None:
                stop_child(process, signal.SIGKILL)
                await process.wait()
                self._own.discard(own)
            os.close(fd)
            file.unlink(missing_ok=True)
            self._open_files.discard(file)
            if isinstance(error, OSError):
                raise CaptureError(Reason.TCPDUMP_FAILED, f"can't run {tcpdump}: {error.strerror}") from error
            raise
        return capture

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        """Returns once tcpdump records: it says `listening on` after its socket is bound and its filter set."""
        assert process.stderr is not None
        said: list[bytes] = []
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while line := await process.stderr.readline():
                    if b"listening on " in line:
                        return
                    said = [*said[-4:], line.strip()]
        except (TimeoutError, ValueError) as error:
            raise CaptureError(Reason.TCPDUMP_FAILED, f"not recording within {READY_TIMEOUT_S:g} s") from error
        text = b" ".join(said).decode("utf-8", "replace")
        raise CaptureError(Reason.TCPDUMP_FAILED, text[:500] or "tcpdump ended at once")

    async def _wait(self, capture: Capture, pidfd: int) -> str:
        spec = capture.spec
        reasons = {
            asyncio.create_task(capture.process.wait()): "tcpdump ended",
            asyncio.create_task(self._stopping.wait()): "the enforcer stops",
        }
        dead = asyncio.create_task(ended(pidfd, spec.seconds))
        try:
            done, _ = await asyncio.wait({dead, *reasons}, timeout=spec.seconds, return_when=asyncio.FIRST_COMPLETED)
            if dead in done and dead.result():
                done, _ = await asyncio.wait(reasons, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
                return next((why for task, why in reasons.items() if task in done), "the process ended")
            return next((why for task, why in reasons.items() if task in done), "the time is over")
        finally:
            for task in (dead, *reasons):
                task.cancel()
            await asyncio.gather(dead, *reasons, return_exceptions=True)

    async def _end(self, capture: Capture) -> bytes:
        """Stops tcpdump, by force if need be, and returns what it said."""
        assert capture.process.stderr is not None
        stop_child(capture.process, signal.SIGINT)
        said = b""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                said = await capture.process.stderr.read()
        except TimeoutError:
            self._log.warning("tcpdump doesn't stop", extra={"kv": {"pid": capture.process.pid}})
        finally:
            stop_child(capture.process, signal.SIGKILL)
            await capture.process.wait()
            self._own.discard(capture.own)
        return said

    async def _facts(self, capture: Capture, errors: bytes, why: str) -> Captured:
        summary = {what: int(count) for count, what in _SUMMARY.findall(errors)}
        status = capture.process.returncode
        if status == 0 and b"captured" in summary:
            packets, size = summary[b"captured"], capture.file.stat().st_size
        else:  # it may have been stopped in the middle of a packet
            packets, size = await asyncio.to_thread(trim, capture.file)
        if status == -signal.SIGXFSZ:
            why = "the file is full"
        dropped = summary.get(b"dropped by kernel", 0)
        return Captured(capture.file, packets, size, f"{why}; {dropped} packets dropped" if dropped else why)

    def _create(self, pid: int) -> tuple[Path, int]:
        """Makes a new file, of a name without any text from outside."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        file = self._folder / f"{stamp}-{pid}.pcap"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return file, os.open(file, flags, 0o600)
        except OSError as error:
            raise CaptureError(Reason.TCPDUMP_FAILED, f"can't write to {self._folder}: {error.strerror}") from error

    def _prune(self) -> None:
        """Removes the oldest files beyond capture_keep, making room for one more; never one that is being written."""
        files = sorted(self._folder.glob("*.pcap"))
        for file in files[: max(0, len(files) + 1 - self._config.capture_keep)]:
            if file not in self._open_files:
                file.unlink(missing_ok=True)


def command(tcpdump: str, interface: str, spec: CaptureSpec) -> list[str]:
    """Returns the command line: tcpdump, on its leash, writing to stdout. Raises CaptureError."""
    # Without immediate mode, packets of the last second would be lost when tcpdump is stopped.
    record = [tcpdump, "-i", interface, "-n", "-U", "--immediate-mode", "-B", str(RING_KIB), "-s", str(SNAPLEN_BYTES)]
    record += ["-w", "-"]
    expression = filter_of(spec.flows)
    return [*_leash(spec.max_bytes), *record, *([expression] if expression else [])]


def _leash(max_bytes: int) -> list[str]:
    """Returns the nice(1), prlimit(1) and setpriv(1) commands that bind tcpdump to a size and to our life. Raises CaptureError.

    The kernel forgets a death signal when a process changes its user, which tcpdump does when root starts it. So setpriv
    changes the user before, and sets the signal last.
    """
    found = [shutil.which(name, path=_TOOL_PATH) for name in ("prlimit", "setpriv")]
    prlimit, setpriv = found
    if prlimit is None or setpriv is None:
        raise CaptureError(Reason.TCPDUMP_FAILED, "prlimit and setpriv (of util-linux) are not installed")
    caps = ",".join(["-all", *(f"+{name}" for bit, name in sorted(_NET_CAPS.items()) if _effective_caps() >> bit & 1)])
    # A core limit of 1, not 0: only that keeps a kernel that pipes core files from doing it for SIGXFSZ.
    leash = [*_unhurried(), prlimit, f"--fsize={max_bytes}", "--core=1"]
    leash += [setpriv, "--pdeathsig", "KILL", "--no-new-privs"]
    leash += [f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("tcpdump")
            uid, gid = user.pw_uid, user.pw_gid
        except KeyError:
            uid = gid = 65534
        leash += [f"--bounding-set={caps}", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    return leash


def _unhurried() -> list[str]:
    """Returns the nice(1) command that takes back the priority which the enforcer has for kills: recording is no hurry."""
    ahead = -os.getpriority(os.PRIO_PROCESS, 0)
    nice = shutil.which("nice", path=_TOOL_PATH) if ahead > 0 else None
    return [nice, "-n", str(ahead)] if nice is not None else []


def _effective_caps() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


def filter_of(flows: Iterable[Flow]) -> str:
    """Returns the filter for these flows in tcpdump's language, both directions; empty for none: everything."""
    return " or ".join(dict.fromkeys(f"({_clause(flow)})" for flow in flows))


def _clause(flow: Flow) -> str:
    parts = [flow.proto]
    for ip, port in ((flow.dst_ip, flow.dst_port), (flow.src_ip, flow.src_port)):
        if ip and not ipaddress.ip_address(ip).is_unspecified:
            parts.append(f"host {ip}")
        if port:
            parts.append(f"port {port}")
    return " and ".join(parts)
