"""What records are made of, whichever hook they come from: texts behind the fixed part, paths, results."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from tracerd.containers import container_of

_EINTR: Final = 4
_S_IFMT: Final = 0o170000
#: What has no place in any tree: its form in /proc, by the kind of its inode. Its name in the dcache is empty.
_NAMELESS: Final = {0o140000: b"socket:[%d]", 0o010000: b"pipe:[%d]"}


#: The words of the field `old.kind`, by the kind of inode. Before Linux 6.16 what is anonymous has none, since then a file's.
_KINDS: Final = {
    0o100000: b"file",
    0o040000: b"directory",
    0o120000: b"link",
    0o010000: b"pipe",
    0o140000: b"socket",
    0o020000: b"character",
    0o060000: b"block",
}


class BadRecord(ValueError):
    """A record that the layout doesn't admit: the objects and this code are not of one build, or memory is damaged."""


def cut(record: bytes, at: int, *lengths: int) -> tuple[bytes, ...]:
    """Returns the texts that lie back to back from `at` on. Raises BadRecord where the record is shorter."""
    out = []
    for length in lengths:
        end = at + length
        out.append(record[at:end])
        at = end
    if at > len(record):
        raise BadRecord("tail longer than the record")
    return tuple(out)


def walked_path(raw: bytes, i_mode: int, ino: int) -> bytes | None:
    """Returns a walked path. What has no place in any tree gets the name /proc would give it."""
    if raw.startswith(b"/"):
        return raw
    form = _NAMELESS.get(i_mode & _S_IFMT)
    if form:
        return form % ino
    # a memfd has a name of its own, as in `memfd:name`
    return raw or None


def kind_of_file(i_mode: int, raw: bytes) -> bytes:
    """Returns what a descriptor refers to, in a word of the field `old.kind`. raw: its walked path."""
    kind = _KINDS.get(i_mode & _S_IFMT, b"anonymous")
    has_name = raw.startswith((b"/", b"memfd:"))
    return b"anonymous" if kind == b"file" and not has_name else kind


def folder(raw: bytes) -> bytes | None:
    """Returns the walked path of a working directory; one that was unmounted has none."""
    return raw if raw.startswith(b"/") else None


def path_in_filesystem(path: bytes, own_len: int, below: bytes) -> bytes | None:
    """Returns a walked path's form within its filesystem: what stands below its mount, and its end in that mount."""
    if not path.startswith(b"/"):
        return None
    if own_len == len(path):
        return below + path
    return below + path[len(path) - own_len :] or b"/"


@lru_cache(maxsize=4096)
def file_id(dev: int, ino: int, generation: int) -> bytes | None:
    """Returns a file's identity as policies write it, None where there is no file."""
    return b"%d:%d:%d:%d" % (dev >> 20, dev & 0xFFFFF, ino, generation) if ino else None


def result(ret: int) -> int:
    """Returns a result as the caller will see it: the kernel's own "restart this call" (-512 to -516) is EINTR."""
    return -_EINTR if -516 <= ret <= -512 else ret


@lru_cache(maxsize=1024)
def container(cgroup: bytes, v1: bytes) -> bytes | None:
    """Returns the container by the names of a process's cgroups, each ended by a NUL, its own first."""
    found = container_of(cgroup.split(b"\0"))
    return found if found is not None or not v1 else container_of(v1.split(b"\0"))
