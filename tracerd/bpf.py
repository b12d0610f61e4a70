"""bpf(2), called directly: what pylibbpf doesn't offer. Maps of our own, the shared slots, iterators, facts about programs.

Everything here works on file descriptors, so a map made by another process (a pin) can be used the same way.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import mmap
import os
import platform
import resource
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SYS_BPF: Final = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)
_ATTR_BYTES: Final = 128
_INFO_BYTES: Final = 256  # more than any kernel tells


class _Cmd(enum.IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_RUN = 10
    OBJ_GET_INFO_BY_FD = 15
    MAP_LOOKUP_BATCH = 24
    ITER_CREATE = 33


class MapType(enum.IntEnum):
    """Kinds of map that we make (`enum bpf_map_type`)."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    ARRAY_OF_MAPS = 12
    RINGBUF = 27


_BATCH: Final = 512  # elements; the kernel refuses fewer than one bucket holds

MAP_MMAPABLE: Final = 1 << 10
ANY: Final = 0
NOEXIST: Final = 1


def _bpf(cmd: _Cmd, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, max(_ATTR_BYTES, len(attr)))
    result: int = _libc.syscall(_SYS_BPF[platform.machine()], int(cmd), buffer, len(attr))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({cmd.name}): {os.strerror(code)}")
    return result


@dataclass(slots=True)
class Map:
    """A BPF map by file descriptor. Keys and values are bytes of the map's exact sizes."""

    fd: int
    key_size: int
    value_size: int
    max_entries: int
    kind: MapType | None = None  # None: made by somebody else

    @classmethod
    def create(
        cls,
        kind: MapType,
        name: str,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        inner: Map | None = None,
    ) -> Map:
        """Makes a map; inner: one like those that a map of maps is to hold. Raises OSError."""
        like, label = inner.fd if inner else 0, name.encode("ascii")[:15]
        attr = struct.pack("<7I16s", kind, key_size, value_size, max_entries, flags, like, 0, label)
        return cls(_bpf(_Cmd.MAP_CREATE, attr), key_size, value_size, max_entries, kind)

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """Sets one element. Raises OSError: EEXIST with NOEXIST, E2BIG when full."""
        assert len(key) == self.key_size and len(value) == self.value_size
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        _bpf(_Cmd.MAP_UPDATE_ELEM, self._attr(k, v, flags))

    def lookup(self, key: bytes) -> bytes | None:
        """Returns one element's value, None where there is none. Raises OSError."""
        k, v = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(self.value_size)
        try:
            _bpf(_Cmd.MAP_LOOKUP_ELEM, self._attr(k, v, 0))
        except FileNotFoundError:
            return None
        return v.raw

    def delete(self, key: bytes) -> bool:
        """Removes one element; False where there was none. Raises OSError."""
        k = ctypes.create_string_buffer(key, len(key))
        try:
            _bpf(_Cmd.MAP_DELETE_ELEM, self._attr(k, None, 0))
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> Iterator[bytes]:
        """Yields every key. Of a hash that changes meanwhile, some may come twice or not at all. Raises OSError."""
        previous: ctypes.Array[ctypes.c_char] | None = None
        following = ctypes.create_string_buffer(self.key_size)
        while True:
            try:
                _bpf(_Cmd.MAP_GET_NEXT_KEY, self._attr(previous, following, 0))
            except FileNotFoundError:
                return
            yield following.raw
            previous = ctypes.create_string_buffer(following.raw, self.key_size)

    def count(self) -> int:
        """Returns how many elements a hash has: about, where it changes meanwhile. Raises OSError."""
        return sum(len(keys) // self.key_size for keys in self.batches())

    def batches(self) -> Iterator[bytes]:
        """Yields the keys of a hash, many at once: about those, where it changes meanwhile. Raises OSError."""
        keys = ctypes.create_string_buffer(_BATCH * self.key_size)
        values = ctypes.create_string_buffer(_BATCH * self.value_size)
        place = ctypes.create_string_buffer(4)  # where in the hash to go on
        at, key, value = map(ctypes.addressof, (place, keys, values))
        begin = 0
        while True:
            head = struct.pack("<4QIIQQ", begin, at, key, value, _BATCH, self.fd, 0, 0)
            attr = ctypes.create_string_buffer(head, _ATTR_BYTES)
            result = _libc.syscall(_SYS_BPF[platform.machine()], int(_Cmd.MAP_LOOKUP_BATCH), attr, len(head))
            code = ctypes.get_errno()
            if result < 0 and code != errno.ENOENT:
                raise OSError(code, f"bpf(MAP_LOOKUP_BATCH): {os.strerror(code)}")
            yield keys.raw[: int(struct.unpack_from("<I", attr.raw, 32)[0]) * self.key_size]
            if result < 0:
                return
            begin = at

    def view(self) -> mmap.mmap:
        """Maps the values of an array that was made with MAP_MMAPABLE into memory, shared with the kernel."""
        page = mmap.PAGESIZE
        length = (self.max_entries * ((self.value_size + 7) & ~7) + page - 1) // page * page
        return mmap.mmap(self.fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def close(self) -> None:
        """Gives the descriptor back; the kernel frees the map when no program uses it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _attr(
        self, key: ctypes.Array[ctypes.c_char] | None, value: ctypes.Array[ctypes.c_char] | None, flags: int
    ) -> bytes:
        address = [ctypes.addressof(buffer) if buffer is not None else 0 for buffer in (key, value)]
        return struct.pack("<IIQQQ", self.fd, 0, *address, flags)


def value_size(map_fd: int) -> int:
    """Returns how many bytes an element of a map has, for each processor where it has one for each. Raises OSError."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _bpf(_Cmd.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", map_fd, _INFO_BYTES, ctypes.addressof(info)))
    (found,) = struct.unpack_from("<I", info.raw, 12)  # of struct bpf_map_info: behind type, id and key_size
    return int(found)


def run_program(prog_fd: int) -> int:
    """Runs a program of the kind `syscall` once, without a context, and returns its result. Raises OSError."""
    attr = ctypes.create_string_buffer(struct.pack("<II", prog_fd, 0), _ATTR_BYTES)
    if _libc.syscall(_SYS_BPF[platform.machine()], int(_Cmd.PROG_RUN), attr, 80) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf(PROG_RUN): {os.strerror(code)}")
    return int(struct.unpack_from("<I", attr.raw, 4)[0])


def lift_memory_lock() -> None:
    """Lets this process lock as much memory as it may. Before Linux 5.11 every map counts as locked memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, PermissionError):  # no CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def fill_slot(slot_fd: int, inner: Map) -> None:
    """Puts a shared map into an object's one-element array of maps (bpf/include/execray/maps.h). Raises OSError."""
    Map(slot_fd, 4, 4, 1).update(struct.pack("<I", 0), struct.pack("<I", inner.fd))


def read_iterator(link_fd: int, max_bytes: int = 256 * 1024 * 1024) -> bytes:
    """Runs a BPF iterator through its link and returns all that it wrote. Raises OSError."""
    fd = _bpf(_Cmd.ITER_CREATE, struct.pack("<II", link_fd, 0))
    try:
        out = bytearray()
        while len(out) < max_bytes:
            try:
                chunk = os.read(fd, 1 << 20)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    continue
                raise
            if not chunk:
                break
            out += chunk
        return bytes(out)
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """Facts the kernel keeps about a loaded program (`struct bpf_prog_info`)."""

    id: int
    name: str
    instructions_translated: int
    instructions_verified: int  # of a million that the verifier allows; Linux >= 5.16, else 0
    recursion_misses: int  # times it was skipped because it ran already on that CPU: events nobody saw


def program_info(prog_fd: int) -> ProgramInfo:
    """Returns facts about a program. Raises OSError."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    _bpf(_Cmd.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", prog_fd, _INFO_BYTES, ctypes.addressof(info)))
    raw = info.raw
    # offsets of linux/bpf.h: type, id, tag, jited len, xlated len ...; name at 64; recursion_misses at 208, Linux >= 5.12
    (ident,) = struct.unpack_from("<I", raw, 4)
    (translated,) = struct.unpack_from("<I", raw, 20)
    misses, verified = struct.unpack_from("<QI", raw, 208)
    return ProgramInfo(ident, raw[64:80].split(b"\0")[0].decode("ascii", "replace"), translated // 8, verified, misses)
