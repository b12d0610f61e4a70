"""What the system itself says of files: the oracle of tests on paths and file ids."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

_FS_IOC_GETVERSION: Final = 0x80087601


def kernel_id(file: Path | bytes | int) -> bytes:
    """Returns `file.id` of a file on a filesystem whose device is that of stat(2) and that tells generations (ext4)."""
    fd = file if isinstance(file, int) else os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        (generation,) = struct.unpack_from("<I", fcntl.ioctl(fd, _FS_IOC_GETVERSION, bytes(8)))
    finally:
        if not isinstance(file, int):
            os.close(fd)
    return b"%d:%d:%d:%d" % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino, generation)
