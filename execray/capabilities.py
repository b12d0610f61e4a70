"""prctl(2) and capset(2), which Python has no names for. Both act on the calling thread: call them before there are others."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

CAP_KILL: Final = 5
PR_SET_PDEATHSIG: Final = 1
PR_SET_KEEPCAPS: Final = 8
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct, one for each 32 capabilities."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int = 0, more: int = 0) -> None:
    """Calls prctl(2). value and more: its second and third argument, numbers or addresses. Raises OSError."""
    if _libc().prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(more), 0, 0) != 0:
        _fail()


def set_capabilities(mask: int) -> None:
    """Makes these, of the first 32, the thread's effective and permitted capabilities, and none inheritable. Raises OSError."""
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(_Data(mask, mask, 0), _Data(0, 0, 0))
    if _libc().capset(ctypes.byref(header), data) != 0:
        _fail()


def _fail() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
