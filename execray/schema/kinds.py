"""The kinds of value an event field can hold, and the named constants a policy may use with them."""

from __future__ import annotations

import enum
import errno
import os
import signal
import socket
import stat

from execray.schema.constants import MORE_CONSTANTS


class Kind(enum.Enum):
    """What a field holds, as the policy language sees it, and as the stream carries it.

    On the stream (see execray.wire.frames) text kinds are an index into the batch's string table, or nil when missing.
    """

    __hash__ = object.__hash__  # a name's hash takes a call, and tests are hashed by the thousand

    INT = "int"
    BOOL = "bool"
    BYTES = "text"  # any bytes; Python `bytes`
    PATH = "path"  # absolute, as the mount namespace names it; Python `bytes`
    TEXTS = "list of text"  # tuple of bytes
    IP = "ip"  # 4 or 16 packed bytes
    BITS = "bit set"  # int, with named constants
    PROCESS = "process id"  # (pid, start_ns)
    DURATION = "duration"  # int nanoseconds

    @property
    def is_text(self) -> bool:
        """Whether the stream carries this kind as an index into the string table."""
        return self in (Kind.BYTES, Kind.PATH, Kind.IP)

    @property
    def is_number(self) -> bool:
        """Whether values compare as integers."""
        return self in (Kind.INT, Kind.BITS, Kind.DURATION)


def _family(prefix: str, module: object) -> dict[str, int]:
    members = {name: getattr(module, name) for name in dir(module) if name.startswith(prefix)}
    return {name: int(value) for name, value in members.items() if isinstance(value, int)}


_PTRACE = """TRACEME PEEKTEXT PEEKDATA PEEKUSER POKETEXT POKEDATA POKEUSER CONT KILL SINGLESTEP . . GETREGS SETREGS GETFPREGS
SETFPREGS ATTACH DETACH GETFPXREGS SETFPXREGS . . . . SYSCALL"""

#: Constant families, by the prefix that names them in the catalogue.
CONSTANTS: dict[str, dict[str, int]] = {
    "O_": _family("O_", os),
    "S_": _family("S_I", stat),
    "AF_": _family("AF_", socket),
    "PTRACE_": {
        **{f"PTRACE_{name}": number for number, name in enumerate(_PTRACE.split()) if name != "."},
        "PTRACE_SETOPTIONS": 0x4200,
        "PTRACE_GETEVENTMSG": 0x4201,
        "PTRACE_GETSIGINFO": 0x4202,
        "PTRACE_SETSIGINFO": 0x4203,
        "PTRACE_GETREGSET": 0x4204,
        "PTRACE_SETREGSET": 0x4205,
        "PTRACE_SEIZE": 0x4206,
        "PTRACE_INTERRUPT": 0x4207,
        "PTRACE_LISTEN": 0x4208,
    },
    "ACCESS_": {"READ": 1, "WRITE": 2},
    "E": {name: number for number, name in errno.errorcode.items()},
    "SOCK_": {name: number & 15 for name, number in _family("SOCK_", socket).items() if number < 16},
    **MORE_CONSTANTS,
    "SIG": {s.name: int(s) for s in signal.Signals},
}
