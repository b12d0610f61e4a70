"""How long a thread's turns on a processor are, as the kernel has it."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import pytest

from execray.scheduling import SLICE_NS

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}


def turn_ns(pid: int = 0) -> int:
    """Returns a thread's; skips the test where the kernel has none of its own for each."""
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release < (6, 12) or platform.machine() not in _SCHED_GETATTR:
        pytest.skip("all threads have the same turns here")
    raw = ctypes.create_string_buffer(48)
    if ctypes.CDLL(None, use_errno=True).syscall(_SCHED_GETATTR[platform.machine()], pid, raw, 48, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(struct.unpack("<IIQiIQQQ", raw.raw)[5])


def is_short(pid: int = 0) -> bool:
    """Whether they are what the daemons ask for."""
    return turn_ns(pid) == SLICE_NS
