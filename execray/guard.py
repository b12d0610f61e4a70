"""May this process be killed? The last word before a signal, in the enforcer and again in policyd's fallback.

Pure: facts about the process and the settings go in, a verdict comes out. Only `facts_of` reads /proc.
"""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from execray.config import Config
from execray.process import ProcessKey, boot_id, start_ticks_of
from execray.schema.records import compared
from execray.wire.orders import Mode, Order, Outcome

PF_KTHREAD: Final = 0x0020_0000  # include/linux/sched.h; field 9 of /proc/PID/stat
COMM_CHARS: Final = 15
#: Orders and events are stamped by one clock, on one host: what lies further ahead than this was not issued here.
MAX_AHEAD_NS: Final = 50_000_000
BUDGET_WINDOW_NS: Final = 60_000_000_000
REMEMBERED_ORDERS: Final = 4096
_THREADS_ASKED: Final = 8  # for the program they all run; only the first can have ended and still be listed


class Reason(enum.Enum):
    """Why an order was not carried out; the `code` of an outcome."""

    INIT = "init"
    KERNEL_THREAD = "kernel_thread"
    OWN_PROCESS = "own_process"
    PROTECTED_EXE = "protected_exe"
    PROTECTED_COMM = "protected_comm"
    WRONG_BOOT = "wrong_boot"
    PID_REUSED = "pid_reused"
    EXPIRED = "expired"
    FROM_FUTURE = "from_future"
    BUDGET = "budget"
    POLICY_BUDGET = "policy_budget"
    ID_REUSED = "id_reused"  # an order_id that named another order
    HOST_AUDIT = "host_audit"
    POLICY_AUDIT = "policy_audit"
    NO_PERMISSION = "no_permission"
    NO_TCPDUMP = "no_tcpdump"
    TCPDUMP_FAILED = "tcpdump_failed"
    CAPTURES_BUSY = "captures_busy"
    NO_ENFORCER = "no_enforcer"  # policyd's own word: nobody was there to capture


@compared(frozen=True, slots=True)
class Facts:
    """What /proc says of a process."""

    pid: int
    start_ticks: int
    flags: int
    comm: bytes
    exe: bytes | None  # None: a kernel thread's, or not ours to read
    ended: bool = False  # its first thread has; others may live on


@compared(frozen=True, slots=True)
class Allow:
    """It may be killed."""


@compared(frozen=True, slots=True)
class WouldKill:
    """It could be killed, but the host or the policy is in audit mode."""

    code: Reason
    text: str


@compared(frozen=True, slots=True)
class Refuse:
    """It must not be killed."""

    code: Reason
    text: str


Verdict: TypeAlias = Allow | WouldKill | Refuse


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What the host's configuration says. Names are bytes, as /proc gives them."""

    host_mode: Mode
    boot_id: str
    max_age_ns: int
    protect_exe: frozenset[bytes] = frozenset()
    protect_comm: frozenset[bytes] = frozenset()

    @property
    def protected_names(self) -> frozenset[bytes]:
        """The comms that protected programs have, unless they change it."""
        return frozenset(exe.rsplit(b"/", 1)[-1][:COMM_CHARS] for exe in self.protect_exe)


def settings_of(config: Config) -> GuardSettings:
    """Returns the guard's part of the configuration. A protected exe counts as written and with its links resolved."""
    exes = {
        name
        for exe in filter(None, config.protect_exe)
        for name in (os.fsencode(exe), os.path.realpath(os.fsencode(exe)))
    }
    return GuardSettings(
        host_mode=Mode(config.mode),
        boot_id=boot_id(),
        max_age_ns=int(config.enforcer.order_max_age_s * 1e9),
        protect_exe=frozenset(exes),
        protect_comm=frozenset(os.fsencode(comm)[:COMM_CHARS] for comm in config.protect_comm),
    )


def facts_of(pid: int) -> Facts:
    """Reads the facts. Raises FileNotFoundError or ProcessLookupError when the process is gone.

    What is read is of one process where the caller holds a pidfd of it and it isn't reaped meanwhile, which the pidfd tells
    afterwards: to send a signal fails, and it can be read from. Never /proc/PID/cmdline: it is read from the process's own
    memory, which may sit on a FUSE file that doesn't answer, and we would hang with it.
    """
    # System calls, not pathlib, and no more of them than must be: all this is in the time between an attack's last step and its
    # end, in a process whose caches others have emptied. By a descriptor of the folder it took 67 us, and takes 51.
    stat, exe = _read(f"/proc/{pid}/stat"), _exe_of(pid)
    # The comm in field 2 may hold spaces, parentheses and newlines: it ends, and the other fields begin, at the last ')'.
    end = stat.rindex(b")")
    fields = stat[end + 2 :].split(None, 20)
    comm = stat[stat.index(b"(") + 1 : end]
    return Facts(pid, int(fields[19]), int(fields[6]), comm, exe, fields[0] in (b"Z", b"X"))


def _read(file: str) -> bytes:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _exe_of(pid: int) -> bytes | None:
    try:
        return os.readlink(b"/proc/%d/exe" % pid)  # noqa: PTH115  # a name need not be text
    except FileNotFoundError:
        return _exe_of_another_thread(pid)
    except OSError:
        return None  # another account's needs CAP_SYS_PTRACE


def _exe_of_another_thread(pid: int) -> bytes | None:
    # A kernel thread has no program. Nor has a first thread that ended while others live on: by that alone, and a name of
    # its choice, a process could pass for one whose program can't be read.
    tasks = b"/proc/%d/task" % pid
    with contextlib.suppress(OSError):
        for tid in os.listdir(tasks)[:_THREADS_ASKED]:  # noqa: PTH208  # no more than names
            with contextlib.suppress(OSError):
                return os.readlink(b"%b/%b/exe" % (tasks, tid))  # noqa: PTH115  # nor here
    return None


class OwnProcesses:
    """ExecRay's own processes on this host, as far as we know them: (pid, start in clock ticks)."""

    def __init__(self) -> None:
        self._known: Counter[tuple[int, int]] = Counter()
        self.add(os.getpid())

    def add(self, pid: int) -> tuple[int, int] | None:
        """Takes in a process that is alive, and returns what to give to discard(); None when it isn't."""
        try:
            entry = pid, start_ticks_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        self._known[entry] += 1
        return entry

    def discard(self, entry: tuple[int, int] | None) -> None:
        """Takes back one add()."""
        if entry is not None:
            self._known[entry] -= 1
            if self._known[entry] <= 0:
                del self._known[entry]

    def __contains__(self, entry: tuple[int, int]) -> bool:
        return entry in self._known


def judge_order(order: Order, settings: GuardSettings, now_ns: int) -> Refuse | None:
    """Judges what can be judged without the process: the same for kills and captures. now_ns: CLOCK_BOOTTIME."""
    if order.process.boot_id != settings.boot_id:
        return Refuse(Reason.WRONG_BOOT, "the order names a process of another boot or host")
    if order.issued_ns > now_ns + MAX_AHEAD_NS:
        return Refuse(Reason.FROM_FUTURE, "the order was issued in the future")
    age_ns = now_ns - order.issued_ns
    if age_ns > settings.max_age_ns:
        return Refuse(
            Reason.EXPIRED, f"the order is {age_ns / 1e9:.1f} s old, {settings.max_age_ns / 1e9:g} s are allowed"
        )
    if order.process.pid <= 1:
        return Refuse(Reason.INIT, f"pid {order.process.pid} is never killed")
    return None


def judge_identity(key: ProcessKey, start_ticks: int) -> Refuse | None:
    """Judges whether the process that now has the pid is the one that is meant, to a clock tick (10 ms)."""
    if start_ticks != key.start_ticks:
        return Refuse(
            Reason.PID_REUSED, f"pid {key.pid} started at tick {start_ticks}, the one meant at {key.start_ticks}"
        )
    return None


def judge_process(order: Order, facts: Facts, settings: GuardSettings, own: OwnProcesses) -> Verdict:
    """Judges what is left of it for an order that judge_order() lets pass, and a process that judge_identity() does.

    The budget is asked afterwards, so that only real kills spend it.
    """
    refusal = _judge_facts(order, facts, settings, own)
    if refusal is not None:
        return refusal
    if settings.host_mode is not Mode.ENFORCE:
        return WouldKill(Reason.HOST_AUDIT, "the host is in audit mode")
    if order.mode is not Mode.ENFORCE:
        return WouldKill(Reason.POLICY_AUDIT, "the policy is in audit mode")
    return Allow()


def _judge_facts(order: Order, facts: Facts, settings: GuardSettings, own: OwnProcesses) -> Refuse | None:
    if facts.pid <= 1 or facts.pid != order.process.pid:
        return Refuse(Reason.INIT, f"pid {facts.pid} is never killed")
    if facts.flags & PF_KTHREAD:
        return Refuse(Reason.KERNEL_THREAD, f"pid {facts.pid} is a kernel thread")
    if (facts.pid, facts.start_ticks) in own:
        return Refuse(Reason.OWN_PROCESS, f"pid {facts.pid} is a process of ExecRay")
    if facts.comm in settings.protect_comm:
        return Refuse(Reason.PROTECTED_COMM, "the process's name is on the protected list")
    return _judge_exe(order, facts, settings)


def _judge_exe(order: Order, facts: Facts, settings: GuardSettings) -> Refuse | None:
    # A protected program that was upgraded while it runs reads `/usr/sbin/sshd (deleted)`, and stays protected.
    for exe in filter(None, (facts.exe, os.fsencode(order.exe))):
        if exe in settings.protect_exe or exe.removesuffix(b" (deleted)") in settings.protect_exe:
            return Refuse(Reason.PROTECTED_EXE, "the process's program is on the protected list")
    # Without CAP_SYS_PTRACE the link of another account's process can't be read. Then the order's exe decides, which the
    # kernel named in the event: a name proves nothing, since a process gives itself whichever it likes. Only where the order
    # has no exe is there nothing but the name, and that may only refuse.
    if facts.exe is None and not order.exe and facts.comm in settings.protected_names:
        return Refuse(Reason.PROTECTED_EXE, "its program isn't known, and its name is that of a protected one")
    return None


class Budget:
    """How many kills a minute, over all and for each policy: a mistaken policy must not empty the host."""

    def __init__(self, per_minute: int, per_policy: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._per_minute = per_minute
        self._per_policy = per_policy
        self._clock_ns = clock_ns
        self._spent: deque[tuple[int, str]] = deque()  # never longer than per_minute
        self._by_policy: Counter[str] = Counter()

    @property
    def left(self) -> int:
        """Kills that are left in this minute."""
        self._forget()
        return self._per_minute - len(self._spent)

    def refusal(self, policy: str) -> Refuse | None:
        """Returns why a kill for this policy is over the budget, None when it isn't. Spends nothing."""
        self._forget()
        if len(self._spent) >= self._per_minute:
            return Refuse(Reason.BUDGET, f"{self._per_minute} kills in the last minute are all the host allows")
        if self._by_policy[policy] >= self._per_policy:
            return Refuse(
                Reason.POLICY_BUDGET, f"{self._per_policy} kills in the last minute are all that one policy may do"
            )
        return None

    def spend(self, policy: str) -> None:
        """Counts one kill."""
        self._spent.append((self._clock_ns(), policy))
        self._by_policy[policy] += 1

    def _forget(self) -> None:
        horizon = self._clock_ns() - BUDGET_WINDOW_NS
        while self._spent and self._spent[0][0] <= horizon:
            _, policy = self._spent.popleft()
            self._by_policy[policy] -= 1
            if not self._by_policy[policy]:
                del self._by_policy[policy]


class OutcomeMemory:
    """The outcomes of the latest orders, so that a repeated order_id is answered and not done again."""

    def __init__(self, size: int = REMEMBERED_ORDERS) -> None:
        self._size = size
        self._known: OrderedDict[str, tuple[Order, Outcome]] = OrderedDict()

    def recall(self, order: Order) -> Outcome | Refuse | None:
        """Returns the first outcome of this order, a refusal when its id named another one, None when it is new."""
        found = self._known.get(order.order_id)
        if found is None:
            return None
        self._known.move_to_end(order.order_id)
        first, outcome = found
        return outcome if same_order(first, order) else other_order()

    def remember(self, order: Order, outcome: Outcome) -> None:
        """Keeps an outcome; the order that was longest not asked for is forgotten where there are too many."""
        self._known[order.order_id] = (order, outcome)
        self._known.move_to_end(order.order_id)
        if len(self._known) > self._size:
            self._known.popitem(last=False)


def same_order(first: Order, second: Order) -> bool:
    """Whether two orders under one id ask for the same."""
    return (first.action, first.process) == (second.action, second.process)


def other_order() -> Refuse:
    """The refusal of an order_id that named another order before."""
    return Refuse(Reason.ID_REUSED, "this order_id named another order before")
