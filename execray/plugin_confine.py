"""What a plug-in's process gives up, for good, before it loads any code that isn't ours.

A plug-in may then do what an unprivileged program does with files and the network, alone: no further process, no signal to
another one, no capability, no more than so much memory. So whatever goes wrong in it ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from execray.capabilities import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECCOMP,
    prctl,
    set_capabilities,
)
from execray.scheduling import leave_short_turns

NICENESS: Final = 10
MAX_FILES: Final = 128
#: Of the account, threads counted: where it is root's, the kernel asks nobody.
MAX_TASKS: Final = 128
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
_SECCOMP_MODE_FILTER: Final = 2
_MIB: Final = 1024 * 1024

# struct seccomp_data: number, architecture, instruction pointer, six arguments. Low word first: both are little-endian.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_FROM, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_EPERM, _ENOSYS = 1, 38
_CLONE_THREAD: Final = 0x10000
_X32: Final = 0x40000000
_AF_UNIX: Final = 1


@dataclass(frozen=True, slots=True)
class _Machine:
    """What one architecture calls itself, and the numbers of its system calls."""

    audit_arch: int
    numbers: dict[str, int]


_SAME_NUMBERS: Final = {"pidfd_send_signal": 424, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438}
_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        {"socket": 41, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101}
        | {"rt_sigqueueinfo": 129, "tkill": 200, "tgkill": 234, "unshare": 272, "rt_tgsigqueueinfo": 297}
        | {"prlimit64": 302, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "execveat": 322}
        | _SAME_NUMBERS,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {"unshare": 97, "ptrace": 117, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138, "socket": 198}
        | {"clone": 220, "execve": 221, "rt_tgsigqueueinfo": 240, "prlimit64": 261, "setns": 268}
        | {"process_vm_readv": 270, "process_vm_writev": 271, "execveat": 281}
        | _SAME_NUMBERS,
    ),
}
#: Never: further processes; other processes' memory, descriptors and ends; a namespace in which we would be root; and
#: io_uring, which does much of that without a system call that could be looked at.
_REFUSED: Final = (
    *("fork", "vfork", "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"),
    *("pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill", "unshare", "setns", "io_uring_setup"),
)


class _Instruction(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def confine(memory_mib: int, parent_pid: int) -> None:
    """Gives everything up. parent_pid: who started us; when it ends, we end. Raises OSError where the kernel refuses.

    Called by the only thread there is, in a process that runs nothing else.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before we asked to be told
        raise ProcessLookupError("the process that started us is gone")
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)  # whatever the daemon's own is
    leave_short_turns()
    with contextlib.suppress(PermissionError):  # a process that may not be looked at doesn't own its files there
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")  # the first to go where memory runs out
    _drop_capabilities()
    _limit(memory_mib)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _filter_calls()


def _drop_capabilities() -> None:
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    with contextlib.suppress(PermissionError):  # needs CAP_SETPCAP; without it, none of them can be got again anyway
        for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")) + 1):
            prctl(PR_CAPBSET_DROP, number)
    set_capabilities(0)


def _limit(memory_mib: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_mib * _MIB,
        resource.RLIMIT_NOFILE: MAX_FILES,
        resource.RLIMIT_NPROC: MAX_TASKS,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))


def _filter_calls() -> None:
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(_ENOSYS, f"plug-ins can't be confined on {platform.machine()}")
    made = _filter(machine, os.getpid())
    instructions = (_Instruction * len(made))(*made)
    program = _Program(len(made), instructions)
    prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _filter(machine: _Machine, pid: int) -> list[_Instruction]:
    """Returns the filter: calls of another architecture fail, those that _REFUSED names, and some arguments of others."""
    numbers = machine.numbers
    made = [
        _Instruction(_LOAD, 0, 0, _ARCH),
        _Instruction(_JUMP_EQUAL, 1, 0, machine.audit_arch),
        _give(_ERRNO | _EPERM),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_JUMP_FROM, 0, 1, _X32),  # x86-64's other numbering; elsewhere there is no such number
        _give(_ERRNO | _EPERM),
    ]
    for name in _REFUSED:
        if name in numbers:
            made += [_Instruction(_JUMP_EQUAL, 0, 1, numbers[name]), _give(_ERRNO | _EPERM)]
    # The C library then makes its threads with clone, whose flags are no pointer and can be looked at.
    made += [_Instruction(_JUMP_EQUAL, 0, 1, numbers["clone3"]), _give(_ERRNO | _ENOSYS)]
    made += _only(numbers["clone"], 0, _JUMP_BITS, _CLONE_THREAD)
    made += _only(numbers["kill"], 0, _JUMP_EQUAL, pid)
    made += _only(numbers["tgkill"], 0, _JUMP_EQUAL, pid)
    made += _only(numbers["prlimit64"], 0, _JUMP_EQUAL, 0)
    # The sockets of ExecRay's daemons let this account in; and what a policy must not do, a plug-in shall not by order.
    made += _only(numbers["socket"], 0, _JUMP_EQUAL, _AF_UNIX, refuse=True)
    return [*made, _give(_ALLOW)]


def _only(number: int, argument: int, test: int, value: int, *, refuse: bool = False) -> list[_Instruction]:
    """Lets a call through only where the low word of an argument passes the test, or with refuse only where it doesn't."""
    passes, fails = (_ERRNO | _EPERM, _ALLOW) if refuse else (_ALLOW, _ERRNO | _EPERM)
    return [
        _Instruction(_JUMP_EQUAL, 0, 4, number),
        _Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        _Instruction(test, 0, 1, value),
        _give(passes),
        _give(fails),
    ]


def _give(verdict: int) -> _Instruction:
    return _Instruction(_RETURN, 0, 0, verdict)
