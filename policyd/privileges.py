"""From root to the service's own account, with at most one capability kept. Called once, before there are threads."""

from __future__ import annotations

import ctypes
import os
import pwd
from typing import Final

from execray.errors import OperatorError

CAP_KILL: Final = 5
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITY_VERSION_3: Final = 0x20080522


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct; pid 0 is the calling thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct, one for each 32 capabilities."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def account(name: str) -> pwd.struct_passwd:
    """Returns a user's entry. Raises OperatorError where there is no such user."""
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise OperatorError(f"there is no user `{name}`", "create it, or mend `policyd.user`") from error


def become(user: pwd.struct_passwd, keep_kill: bool) -> None:
    """Changes to a user and its groups for good; keeps CAP_KILL where asked, and nothing else. Raises OperatorError.

    Capabilities belong to threads, and a thread inherits them when it is made: so this comes before the first.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        _prctl(libc, _PR_SET_KEEPCAPS, int(keep_kill))
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        _set_capabilities(libc, 1 << CAP_KILL if keep_kill else 0)
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise OperatorError(
            f"can't become user `{user.pw_name}`: {error.strerror}", "start as root, or as that user"
        ) from error


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _set_capabilities(libc: ctypes.CDLL, mask: int) -> None:
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(_Data(mask, mask, 0), _Data(0, 0, 0))
    if libc.capset(ctypes.byref(header), data) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
