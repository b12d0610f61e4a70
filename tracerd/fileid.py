"""A path to the identity that events have for its file, `MAJOR:MINOR:INODE:GENERATION`, by system calls that open nothing.

The generation comes out of the handle that name_to_handle_at(2) gives: NFS servers hand these out, so their forms stay as they
are. A form that isn't known here, or whose inode isn't that of stat(2), gives no identity.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from tracerd.mounts import MountTable

_libc = ctypes.CDLL(None, use_errno=True)
_AT_EMPTY_PATH: Final = 0x1000
#: Of a symbolic link they open the link itself.
_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE_HEAD: Final = struct.Struct("<Ii")  # struct file_handle: handle_bytes, handle_type
_MAX_HANDLE: Final = 128
_PROTECTED: Final = Path("/proc/sys/fs/protected_hardlinks")

_WORDS: Final = {
    errno.ENOENT: "not there, or not in the sensor's view",
    errno.ENOTDIR: "not there, or not in the sensor's view",
    errno.EACCES: "in a folder that the sensor may not enter",
    errno.ELOOP: "a symbolic link is on the way, so no event has this path",
}


class Unresolved(Exception):
    """A path has no identity; the text says why, and is one of few."""


def _inode_32(handle: bytes) -> tuple[int, int]:
    # FILEID_INO32_GEN: ext2, ext3, ext4, and xfs made with inode32
    inode, generation = struct.unpack_from("<II", handle)
    return inode, generation


def _inode_64(handle: bytes) -> tuple[int, int]:
    # xfs: struct xfs_fid64
    inode, generation = struct.unpack_from("<QI", handle)
    return inode, generation


def _shmem(handle: bytes) -> tuple[int, int]:
    generation, low, high = struct.unpack_from("<III", handle)
    return high << 32 | low, generation


#: How a handle of each type is read: to an inode number and a generation.
Forms: TypeAlias = dict[int, Callable[[bytes], tuple[int, int]]]
_EXT: Final[Forms] = {1: _inode_32}
#: Filesystems whose generations tell a file from an earlier one of its inode number, by type; and what their handles hold.
#: btrfs isn't one: its subvolumes have one device and the same inode numbers, so that a snapshot's file has its original's
#: identity. overlayfs has no generations. Of the others nobody has looked.
FORMS: Final[dict[str, Forms]] = {
    "ext2": _EXT,
    "ext3": _EXT,
    "ext4": _EXT,
    "xfs": {1: _inode_32, 0x81: _inode_64},
    "tmpfs": {1: _shmem},
}


def identity(path: bytes, mounts: MountTable, *, linked: bool) -> bytes:
    """Returns the identity of the file that has this path now. Raises Unresolved.

    A symbolic link anywhere in it is an end: who may make one could let the path stand for any file of the host, and no event
    has such a path. linked: whether files that have other names too are taken.
    """
    if not suits(path, mounts):
        raise Unresolved(_unsuited(mounts.kind_at(path)))
    try:
        fd = _open_path(path)
        try:
            return _identity_of(fd, mounts, linked)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unresolved(_WORDS.get(error.errno or 0) or os.strerror(error.errno or 0)) from error


def suits(path: bytes, mounts: MountTable) -> bool:
    """Whether a path lies on a filesystem that gives identities. Touches no filesystem."""
    return mounts.kind_at(path) in FORMS


def links_are_protected() -> bool:
    """Whether a user can make hard links only to what is theirs, or what they may read and write (fs.protected_hardlinks)."""
    try:
        return _PROTECTED.read_text("ascii").strip() == "1"
    except OSError:
        return False


def _identity_of(fd: int, mounts: MountTable, linked: bool) -> bytes:
    found = os.fstat(fd)
    device = os.major(found.st_dev), os.minor(found.st_dev)
    kind = mounts.kind_of(device)
    if kind not in FORMS:  # something was mounted meanwhile, or a mount hides another
        raise Unresolved(_unsuited(kind))
    if found.st_nlink > 1 and not linked and not stat.S_ISDIR(found.st_mode):
        raise Unresolved("it has other names too, and fs.protected_hardlinks is off")
    form, handle = _handle(fd)
    read = FORMS[kind].get(form)
    if read is None:
        raise Unresolved(f"{kind} gives handles of a form that isn't known")
    try:
        inode, generation = read(handle)
    except struct.error as error:
        raise Unresolved(f"{kind} gives handles of a form that isn't known") from error
    if inode != found.st_ino:
        raise Unresolved(f"{kind} gives handles of a form that isn't known")
    if not generation:
        raise Unresolved("its inode has no generation")
    return b"%d:%d:%d:%d" % (*device, inode, generation)


def _unsuited(kind: str) -> str:
    return f"on {kind}, whose inodes don't tell files apart for sure" if kind else "on a filesystem that isn't known"


def _open_path(path: bytes) -> int:
    # By one call each, and not by openat2, which a filter of system calls can't look into: systemd takes it from every unit that
    # may not make set-user-ID files.
    if b"\0" in path:
        raise OSError(errno.ENOENT, "a byte that no path has")
    fd = os.open(b"/", _FLAGS)
    try:
        for part in filter(None, path.split(b"/")):
            above, fd = fd, os.open(part, _FLAGS, dir_fd=fd)
            os.close(above)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, "a symbolic link")
    except OSError:
        os.close(fd)
        raise
    return fd


def _handle(fd: int) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(_HANDLE_HEAD.pack(_MAX_HANDLE, 0), _HANDLE_HEAD.size + _MAX_HANDLE)
    mount = ctypes.c_int()
    if _libc.name_to_handle_at(fd, b"", buffer, ctypes.byref(mount), _AT_EMPTY_PATH) < 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    size, form = _HANDLE_HEAD.unpack_from(buffer.raw)
    return form, buffer.raw[_HANDLE_HEAD.size : _HANDLE_HEAD.size + size]
