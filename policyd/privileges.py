"""From root to the service's own account, with at most one capability kept. Called once, before there are threads."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from execray.capabilities import CAP_KILL, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS, prctl, set_capabilities
from execray.errors import OperatorError


def account(name: str) -> pwd.struct_passwd:
    """Returns a user's entry. Raises OperatorError where there is no such user."""
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise OperatorError(f"there is no user `{name}`", "create it, or mend `policyd.user`") from error


def may_kill() -> bool:
    """Whether this process may send signals to those of other accounts."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_KILL & 1)


def become(user: pwd.struct_passwd) -> None:
    """Changes to a user and its groups for good; keeps CAP_KILL and nothing else. Raises OperatorError.

    CAP_KILL in audit mode too: `execray-ctl mode enforce` may come later, and the direct kill must work then.

    Capabilities belong to threads, and a thread inherits them when it is made: so this comes before the first.
    """
    try:
        prctl(PR_SET_KEEPCAPS, 1)
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        set_capabilities(1 << CAP_KILL)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise OperatorError(
            f"can't become user `{user.pw_name}`: {error.strerror}", "start as root, or as that user"
        ) from error
