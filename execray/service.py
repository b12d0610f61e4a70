"""What all three daemons need of the operating system: folders, sockets, peers, readiness."""

from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import pwd
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from execray.errors import OperatorError
from execray.trust import distrust

_UCRED: Final = struct.Struct("3i")
_SO_PEERGROUPS: Final = 59  # Linux 4.13; the socket module has no name for it


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket, by SO_PEERCRED: as it was when it connected."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()  # supplementary


def peer_of(sock: socket.socket) -> Peer:
    """Returns the peer of a connected Unix socket. Raises OSError, also for a peer in more than 256 groups."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    return Peer(pid, uid, gid, struct.unpack(f"{len(raw) // 4}I", raw))


def group_id(name: str) -> int | None:
    """Returns the gid of a group, None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def in_group(peer: Peer, gid: int) -> bool:
    """Whether the peer's primary or supplementary groups held gid when it connected.

    Not read from /proc: by now its pid may be another process's.
    """
    return gid == peer.gid or gid in peer.groups


def prepare_runtime(runtime_dir: Path, folder: Path, group: str, user: pwd.struct_passwd | None = None) -> None:
    """Makes the folder of one daemon's sockets, and the one of all daemons that it lies in. Raises OperatorError.

    Whoever can rename our folder or a socket away can pose as us: so runtime_dir belongs to root (or to us), and each
    folder in it to its daemon. Under systemd both are there already. user: the account that we are about to become.
    """
    try:
        try:
            runtime_dir.mkdir(parents=True)
            runtime_dir.chmod(0o755)  # whatever the umask: others have folders in it
        except FileExistsError:
            if not runtime_dir.is_dir():
                raise
        if doubt := distrust(runtime_dir, runtime_dir.stat(), {0, os.geteuid()}):
            raise OperatorError(f"{runtime_dir}: {doubt[0]}", doubt[1])
    except OSError as error:
        hint = "make it as root, or choose another runtime_dir"
        raise OperatorError(f"can't use {runtime_dir}: {error.strerror}", hint) from error
    prepare_dir(folder, 0o750, group, user)


def prepare_dir(path: Path, mode: int, group: str = "", user: pwd.struct_passwd | None = None) -> None:
    """Makes a folder of ours (with parents), or mends one that is there. Raises OperatorError for one of somebody else's.

    user: the account that root is about to become, and to which the folder is handed.
    """
    uid = os.geteuid() if user is None or os.geteuid() != 0 else user.pw_uid
    gid = group_id(group) if group else None
    if gid is None and user is not None and uid != os.geteuid():
        gid = user.pw_gid
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        # By descriptor, and never through a link: root must not change what another account puts in its place.
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if found.st_uid not in (uid, os.geteuid()):
                hint = f"does its service run, as another account? Else remove it, or chown {uid} {path}"
                raise OperatorError(f"{path} is not a folder of ours", hint)
            if found.st_uid != uid or (gid is not None and found.st_gid != gid):
                os.fchown(fd, uid, -1 if gid is None else gid)
            if stat.S_IMODE(found.st_mode) != mode:
                os.fchmod(fd, mode)
        finally:
            os.close(fd)
    except OSError as error:
        raise OperatorError(f"can't use {path}: {error.strerror}", "check its owner and mode") from error


def listen_unix(path: Path, group: str = "", backlog: int = 16) -> socket.socket:
    """Returns a listening stream socket at path, mode 0660, owned by group where that exists. Raises OperatorError.

    A socket file that nobody listens on any more is replaced; one that answers belongs to a running daemon and is not.
    """
    if len(os.fsencode(path)) > 107:
        raise OperatorError(f"socket path {path} is too long", "choose a runtime_dir of under 80 characters")
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(path))
            except (ConnectionRefusedError, FileNotFoundError):
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OperatorError(f"can't take over {path}: {error.strerror}", "is another instance busy?") from error
            else:
                raise OperatorError(f"another instance listens on {path}", "stop it, or choose another runtime_dir")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    old = os.umask(0o117)
    try:
        sock.bind(os.fspath(path))
        gid = group_id(group) if group else None
        if gid is not None and path.stat().st_gid != gid:  # a unit with that group may have no chown(2)
            os.chown(path, -1, gid)
    except PermissionError as error:
        sock.close()
        hint = f"check the folder's owner and mode; the account must be in the group `{group}`"
        raise OperatorError(f"can't listen on {path}: {error.strerror}", hint) from error
    except OSError as error:
        sock.close()
        raise OperatorError(f"can't listen on {path}: {error.strerror}", "check the folder's owner and mode") from error
    finally:
        os.umask(old)
    sock.listen(backlog)
    return sock


def notify(state: str, wait_s: float = 1.0) -> bool:
    """Tells systemd (sd_notify protocol) where NOTIFY_SOCKET names it; silently nothing elsewhere.

    wait_s: how long to wait for a manager that is behind with reading. Returns whether it was told.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(wait_s)
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            logging.getLogger("execray").warning("notify failed", extra={"kv": {"reason": error}})
            return False
    return True


def write(writer: asyncio.StreamWriter | asyncio.WriteTransport, data: bytes) -> None:
    """Hands bytes to a connection. Raises ConnectionResetError for one that is closed already.

    Of such a one uvloop's write says RuntimeError, which is nobody's to expect: a peer that goes away at the wrong moment would
    end the daemon.
    """
    if writer.is_closing():
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    writer.write(data)


async def close_writer(writer: asyncio.StreamWriter, timeout_s: float = 1.0) -> None:
    """Closes a connection and waits, within a bound, until it is closed. Never raises for a peer that is gone."""
    writer.close()
    try:
        # Not wait_for: before Python 3.12 it forgets a cancellation that comes just as the wait is over.
        async with asyncio.timeout(timeout_s):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
