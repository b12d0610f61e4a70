"""Events of sockets and descriptors."""

from __future__ import annotations

from typing import Final

from execray.schema.field import Field
from execray.schema.kinds import Kind
from execray.schema.row import RET, EventType

NET_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        7,
        "connect",
        "A socket was connected, or that was tried.",
        (
            Field("fd", Kind.INT, "The socket's descriptor."),
            Field("family", Kind.INT, "Address family.", constants="AF_", ecs="network.type"),
            Field(
                "dst.ip",
                Kind.IP,
                "Destination address; the socket's own record where the call succeeded.",
                ecs="destination.ip",
            ),
            Field("dst.port", Kind.INT, "Destination port.", ecs="destination.port"),
            Field("src.ip", Kind.IP, "Local address, once known.", ecs="source.ip"),
            Field("src.port", Kind.INT, "Local port, once known.", ecs="source.port"),
            Field(
                "path",
                Kind.BYTES,
                "For AF_UNIX: the address as passed; an abstract one begins with a NUL.",
                ("pathname",),
            ),
            RET,
        ),
        calls=("connect 42 362 fd socketcall=3",),
        ecs_category="network",
        ecs_action="connection_attempted",
    ),
)
