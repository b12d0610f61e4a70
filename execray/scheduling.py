"""Short turns on a processor, for daemons that work a fraction of a millisecond at a time and must begin soon."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

#: The least that Linux takes. Its own is some milliseconds: so long, at worst, somebody else's turn goes on once we have work.
SLICE_NS: Final = 100_000
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}


class _Attributes(ctypes.Structure):
    """struct sched_attr, in its first form."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def take_short_turns() -> bool:
    """Asks for turns of SLICE_NS for this thread and all that it makes, processes too; returns whether the kernel took it.

    From Linux 6.12 on a thread that asks for shorter turns runs before others that have work, for no more time in all; older
    ones make nothing of it. Whom somebody gave another way of scheduling than the ordinary one, keeps it.
    """
    return _ask(0, SLICE_NS)


def leave_short_turns(pid: int = 0) -> bool:
    """Gives a thread the kernel's own turns again, and returns whether it took that: what a daemon starts inherits its turns.

    pid: whose; 0: this thread's.
    """
    return _ask(pid, 0)


def _ask(pid: int, turn_ns: int) -> bool:
    number = _SCHED_SETATTR.get(platform.machine())
    try:
        if number is None or os.sched_getscheduler(pid) != os.SCHED_OTHER:
            return False
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:  # it has ended, or a security module keeps us out
        return False
    asked = _Attributes(size=ctypes.sizeof(_Attributes), policy=os.SCHED_OTHER, nice=nice, runtime=turn_ns)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(ctypes.c_long(number), ctypes.c_long(pid), ctypes.byref(asked), ctypes.c_long(0)) == 0)
