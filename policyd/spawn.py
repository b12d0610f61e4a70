"""Starts a process without keeping the others in this one waiting.

subprocess holds the interpreter's lock until the new process has been scheduled and has begun its program. On a busy host that
takes milliseconds, in which nothing else here would run, kills included. The C library's own call runs without the lock.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

_SETSID: Final = 0x80  # POSIX_SPAWN_SETSID
_SETSIGMASK: Final = 0x08
_CLOSE_FROM: Final = "posix_spawn_file_actions_addclosefrom_np"  # glibc 2.34
#: More than any C library's posix_spawn_file_actions_t, posix_spawnattr_t and sigset_t take (80, 336 and 128 bytes).
_OPAQUE_BYTES: Final = 1024


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class Child:
    """A process of ours, alive or ended, until wait() has returned how it ended. Used by one thread."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], stdin: int, output: int) -> None:
        """Starts a program, named by its whole path, in a session of its own, with these descriptors.

        Others are closed; an old C library leaves those open that aren't close-on-exec. Raises OSError.
        """
        self.pid = _spawn(argv, env, stdin, output)
        self._status: int | None = None
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.kill()
            os.waitpid(self.pid, 0)
            raise

    def wait(self, timeout_s: float) -> int | None:
        """Returns the exit status, or the negated signal that ended it; None where it lives on after that time."""
        if self._status is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                return None
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
            os.close(self._pidfd)
        return self._status

    def kill(self) -> None:
        """Kills it. The pid is its own until wait() has returned how it ended."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)


def _spawn(argv: Sequence[str], env: Mapping[str, str], stdin: int, output: int) -> int:
    libc, pid = _libc(), ctypes.c_int()
    actions, attributes = (ctypes.create_string_buffer(_OPAQUE_BYTES) for _ in range(2))
    signals = ctypes.create_string_buffer(_OPAQUE_BYTES)
    words, values = _array(map(os.fsencode, argv)), _array(os.fsencode(f"{k}={v}") for k, v in env.items())
    _check(libc.posix_spawn_file_actions_init(actions))
    _check(libc.posix_spawnattr_init(attributes))
    try:
        for number, fd in enumerate((stdin, output, output)):
            _check(libc.posix_spawn_file_actions_adddup2(actions, fd, number))
        if hasattr(libc, _CLOSE_FROM):
            _check(getattr(libc, _CLOSE_FROM)(actions, 3))
        libc.sigemptyset(signals)
        _check(libc.posix_spawnattr_setsigmask(attributes, signals))
        _check(libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSID | _SETSIGMASK)))
        _check(libc.posix_spawn(ctypes.byref(pid), words[0], actions, attributes, words, values))
    finally:
        libc.posix_spawnattr_destroy(attributes)
        libc.posix_spawn_file_actions_destroy(actions)
    return pid.value


def _array(items: Iterable[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    found = [*items, None]
    return (ctypes.c_char_p * len(found))(*found)


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
