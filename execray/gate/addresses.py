"""An address as one number of 64 bits, for ranges of addresses: what bpf/include/execray/gate_address.h computes.

An address of 128 bits stands at its upper half, and one of ::/80, where the host itself and the IPv4 addresses are, at its
lower half. The reserved addresses between those two share one place. The order is that of the addresses.
"""

from __future__ import annotations

from typing import Final

_V4_MAPPED: Final = 0xFFFF << 32
_ODD: Final = 1 << 48
_SIGN: Final = 1 << 63  # numbers are compared with a sign: the first place is the lowest number
_HALF: Final = (1 << 64) - 1


def as_v6(address: bytes) -> int:
    """Returns an address of 4 or 16 bytes as one of 128 bits; an IPv4 address a.b.c.d as ::ffff:a.b.c.d."""
    return int.from_bytes(address) | (_V4_MAPPED if len(address) == 4 else 0)


def place_at(address: int) -> int:
    """Returns where an address of 128 bits stands."""
    upper = address >> 64
    return (max(upper, _ODD) if upper else min(address, _ODD)) - _SIGN


def place_of(address: bytes) -> int:
    """Returns where an address of 4 or 16 bytes stands."""
    return place_at(as_v6(address))


def addresses_at(place: int) -> tuple[int, int]:
    """Returns the first and the last address of 128 bits that stand there."""
    upper = place + _SIGN
    if upper < _ODD:
        return upper, upper
    return _ODD if upper == _ODD else upper << 64, upper << 64 | _HALF


#: The first and the last place of IPv4 addresses, and of those within IPv6.
V4_PLACES: Final = place_of(bytes(4)), place_of(b"\xff" * 4)
