"""Events of sockets and descriptors."""

from __future__ import annotations

from typing import Final

from execray.schema.field import Field
from execray.schema.kinds import Kind
from execray.schema.row import FILE_ID, FILE_NAMES, OLD_KIND, RET, EventType, path

_FD: Final = Field("fd", Kind.INT, "The socket's descriptor.")
_FAMILY: Final = Field("family", Kind.INT, "Address family.", constants="AF_", ecs="network.type")
_SOURCE: Final = (
    Field("src.ip", Kind.IP, "The address; the socket's own record where the call succeeded.", ecs="source.ip"),
    Field("src.port", Kind.INT, "The port; of a bind to port 0, the one it got.", ecs="source.port"),
)
_DIRECTION: Final = Field(
    "direction",
    Kind.BYTES,
    "Who began it: `outbound`, this side; `inbound`, the other.",
    ecs="network.direction",
    words=("inbound", "outbound"),
)
_UNIX: Final = Field("path", Kind.BYTES, "For AF_UNIX: the address, where there is one.", ("pathname",))

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
                "Destination address; the socket's own record where the call succeeded. Missing, as are port and family, where"
                " the one that was passed could not be read or was too short.",
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
            _DIRECTION,
            RET,
        ),
        calls=("connect 42 362 fd socketcall=3 uring=16",),
        ecs_category="network",
        ecs_action="connection_attempted",
    ),
    EventType(
        26,
        "socket",
        "A socket was made, or that was tried.",
        (
            Field("family", Kind.INT, "Address family.", constants="AF_", ecs="network.type"),
            Field("type", Kind.INT, "Its type, without flags.", constants="SOCK_"),
            Field("proto", Kind.INT, "Protocol; 0: the usual one of family and type."),
            RET,
        ),
        calls=(
            "socket 41 359 family type&15 proto socketcall=1 uring=45",
            "socketpair 53 360 family type&15 proto socketcall=8",
        ),
        ecs_category="network",
        ecs_action="socket",
    ),
    EventType(
        27,
        "bind",
        "A socket was given an address of its own, or that was tried.",
        (_FD, _FAMILY, *_SOURCE, _UNIX, RET),
        calls=("bind 49 361 fd socketcall=2 uring=56",),
        ecs_category="network",
        ecs_action="bind",
    ),
    EventType(
        28,
        "listen",
        "A socket began to take connections, or that was tried.",
        (_FD, _FAMILY, *_SOURCE, _UNIX, Field("backlog", Kind.INT, "How many may wait, as passed."), RET),
        calls=("listen 50 363 fd socketcall=4 uring=57",),
        ecs_category="network",
        ecs_action="listen",
    ),
    EventType(
        29,
        "accept",
        "A connection was taken, or that was tried. The source is the other side, the destination our own.",
        (
            Field("fd", Kind.INT, "The descriptor of the socket that listens; the new one is `ret`."),
            _FAMILY,
            Field("src.ip", Kind.IP, "Who connects.", ecs="source.ip"),
            Field("src.port", Kind.INT, "Its port.", ecs="source.port"),
            Field("dst.ip", Kind.IP, "Our address.", ecs="destination.ip"),
            Field("dst.port", Kind.INT, "Our port.", ecs="destination.port"),
            _UNIX,
            _DIRECTION,
            RET,
        ),
        calls=("accept 43 - =fd socketcall=5", "accept4 288 364 =fd socketcall=18 uring=13"),
        ecs_category="network",
        ecs_action="connection_accepted",
    ),
    EventType(
        30,
        "sendto",
        "Bytes were sent through a socket by sendto, sendmsg or sendmmsg, or that was tried. Each is a `write`, too.",
        (
            _FD,
            _FAMILY,
            Field(
                "dst.ip",
                Kind.IP,
                "Destination address: the caller's where it names one to a socket that heeds it, else the connected socket's."
                " Missing, as are port and family, where it could not be read, or there is none.",
                ecs="destination.ip",
            ),
            Field("dst.port", Kind.INT, "Destination port.", ecs="destination.port"),
            _UNIX,
            Field("len", Kind.INT, "Bytes asked to be sent; known for sendto only.", ("length",), unit="bytes"),
            _DIRECTION,
            RET,
        ),
        calls=(
            "sendto 44 369 fd socketcall=11,9 uring=26,47",
            "sendmsg 46 370 fd x32=518 socketcall=16 uring=9,48",
            "sendmmsg 307 345 fd x32=538 socketcall=20",
        ),
        ecs_category="network",
        ecs_action="send",
    ),
    EventType(
        31,
        "dup",
        "A descriptor was copied, or that was tried: dup, dup2, dup3, fcntl with F_DUPFD, and pidfd_getfd, which copies one of"
        " another process.",
        (
            Field("fd", Kind.INT, "The descriptor that is copied.", ("oldfd",)),
            path("What it refers to, as for write."),
            OLD_KIND,
            FILE_ID,
            FILE_NAMES,
            Field("ret", Kind.INT, RET.doc, ("newfd",), constants="E"),
        ),
        calls=(
            "dup 32 41 fd",
            "dup2 33 63 fd",
            "dup3 292 330 fd",
            "pidfd_getfd 438 438 _ fd =fd",
            "fcntl 72 55,221 fd _?=0,1030",
        ),
        ecs_category="process",
        ecs_action="dup",
    ),
)
