"""What the system itself says of files: the oracle of tests on paths and file ids."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

_FS_IOC_GETVERSION: Final = 0x80087601
_AT_EMPTY_PATH: Final = 0x1000


def kernel_id(file: Path | bytes | int) -> bytes:
    """Returns `file.id` of a file on a filesystem whose device is that of stat(2) and that tells generations (ext4, tmpfs)."""
    fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        generation = _generation(fd)
    finally:
        if not isinstance(file, int):
            os.close(fd)
    return b"%d:%d:%d:%d" % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino, generation)


def fs_path(path: Path) -> bytes:
    """Returns `fspath` of a file on the filesystem that is mounted whole at the root."""
    assert path.stat().st_dev == Path("/").stat().st_dev
    return os.fsencode(path)


def _generation(fd: int) -> int:
    try:
        (generation,) = struct.unpack_from("<I", fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8)))
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        # tmpfs doesn't tell it by itself, but a handle of a file begins with it there
        handle, mount = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0) + bytes(128)), ctypes.c_int()
        if ctypes.CDLL(None).name_to_handle_at(fd, b"", handle, ctypes.byref(mount), _AT_EMPTY_PATH) != 0:
            raise
        (generation,) = struct.unpack_from("<I", handle.raw, 8)
    assert isinstance(generation, int)
    return generation
