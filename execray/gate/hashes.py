"""The gate's hashes of names: 64 bits, the same here and in bpf/include/execray/gate.h. One that is hit by mistake only passes.

A path is its components, from the root down. Of each, its length and its first bytes are hashed, as little-endian words, the last
one padded with zeros behind: names that agree in both are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

SEED: Final = 0x243F6A8885A308D3
_MULTIPLIER: Final = 0x9E3779B97F4A7C15
_TURN: Final = 29
_U64: Final = (1 << 64) - 1

#: What a key is of: mixed in last, so that equal hashes of different things are different keys.
EXACT: Final = 1
PREFIX: Final = 2
COMPONENT: Final = 3
LEAF: Final = 4
COMM: Final = 5
SUFFIX: Final = 16  # plus its length

#: Components of the deepest path that the kernel looks at; a deeper one is unknown to it.
MAX_DEPTH: Final = 32
#: Bytes of a component that are looked at.
MAX_NAME: Final = 32
MAX_SUFFIX: Final = 16
COMM_BYTES: Final = 16


def mix(state: int, word: int) -> int:
    """Returns the hash of what state is the hash of, and one word more."""
    product = (state ^ word) * _MULTIPLIER & _U64
    return (product << _TURN | product >> (64 - _TURN)) & _U64


def component_hash(name: bytes) -> int:
    """Returns the hash of one component, without slashes."""
    state = mix(SEED, len(name))
    for at in range(0, min(len(name), MAX_NAME), 8):
        state = mix(state, int.from_bytes(name[at : at + 8], "little"))
    return state


def components(path: bytes) -> list[bytes]:
    """Returns the components of an absolute path; none for the root itself."""
    return path[1:].split(b"/") if len(path) > 1 else []


def exact_key(path: bytes) -> int:
    """Returns the key of an absolute path."""
    return mix(_chain(components(path)), EXACT)


def prefix_key(folder: bytes) -> int:
    """Returns the key that every path below a folder has, at any depth: `/etc`, or `/` for all paths."""
    return mix(_chain(components(folder)), PREFIX)


def component_key(name: bytes) -> int:
    """Returns the key of a component anywhere in a path, the last one included."""
    return mix(component_hash(name), COMPONENT)


def leaf_key(name: bytes) -> int:
    """Returns the key of a path's last component."""
    return mix(component_hash(name), LEAF)


def suffix_key(suffix: bytes) -> int:
    """Returns the key of a path's last bytes, 1 to 16 of them."""
    return _mix16(suffix.rjust(MAX_SUFFIX, b"\0"), SUFFIX + len(suffix))


def comm_key(comm: bytes) -> int:
    """Returns the key of a thread's name, at most 15 bytes."""
    return _mix16(comm.ljust(COMM_BYTES, b"\0"), COMM)


def path_keys(path: bytes, suffixes: tuple[int, ...]) -> Iterator[int]:
    """Yields every key that an absolute path has. suffixes: the lengths that are looked at."""
    state = SEED
    hashes = [component_hash(name) for name in components(path)]
    for found in hashes:
        yield mix(state, PREFIX)
        yield mix(found, COMPONENT)
        state = mix(state, found)
    yield mix(state, EXACT)
    if hashes:
        yield mix(hashes[-1], LEAF)
    for length in suffixes:
        if length <= len(path):
            yield suffix_key(path[-length:])


def _chain(names: list[bytes]) -> int:
    state = SEED
    for name in names:
        state = mix(state, component_hash(name))
    return state


def _mix16(block: bytes, kind: int) -> int:
    low, high = int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")
    return mix(mix(mix(SEED, low), high), kind)
