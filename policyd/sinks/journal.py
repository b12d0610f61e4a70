"""Alerts in the systemd journal, by its native datagram protocol: every field can be asked for with journalctl.

Without what processes wrote and their arguments: the journal has other readers than alerts, and goes to other places.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Any, Final

from execray.terminal import safe
from policyd.sinks.base import Alert, alert_line, without_secrets

SOCKET: Final = Path("/run/systemd/journal/socket")
#: Marks an alert of ours: `journalctl MESSAGE_ID=...`.
MESSAGE_ID: Final = "b3d5f6c81a0e4f0c9d0b6d1d5f1c7e2a"
MAX_MESSAGE: Final = 1000  # characters
_PRIORITY: Final = {"critical": 2, "high": 3, "medium": 4, "low": 5, "informational": 6}
_LENGTH: Final = struct.Struct("<Q")


class JournalSink:
    """Sends each alert as one entry. No journal there is an error of each write, so it is counted."""

    name = "journal"

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = os.fspath(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.settimeout(1.0)

    def write(self, alert: Alert) -> None:
        """Sends one entry. Raises OSError."""
        fields = entry(alert)
        try:
            self._sock.sendto(encode(fields), self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            # Too big for a datagram: the entry without its evidence says at least where that is.
            del fields["EXECRAY_ALERT"]
            self._sock.sendto(encode(fields), self._path)

    def close(self) -> None:
        """Closes the socket."""
        self._sock.close()


def entry(alert: Alert) -> dict[str, str]:
    """Returns the journal's fields for an alert."""
    own: Any = alert.get("execray", {})
    severity = str(own.get("severity", ""))
    return {
        "MESSAGE": safe(alert.get("message", "alert"), MAX_MESSAGE),  # journalctl shows it as lines of a terminal
        "PRIORITY": str(_PRIORITY.get(severity, 4)),
        "SYSLOG_IDENTIFIER": "execray",
        "MESSAGE_ID": MESSAGE_ID,
        "EXECRAY_ALERT_ID": str(own.get("alert_id", "")),
        "EXECRAY_POLICY": str(own.get("policy", "")),
        "EXECRAY_SEVERITY": severity,
        "EXECRAY_ALERT": alert_line(without_secrets(alert)).decode("ascii").rstrip("\n"),
    }


def encode(fields: dict[str, str]) -> bytes:
    """Returns the datagram. Every value in the form with its length, so that none can end itself and begin another field."""
    parts = []
    for name, value in fields.items():
        raw = value.encode("utf-8", "backslashreplace")
        parts.append(name.encode("ascii") + b"\n" + _LENGTH.pack(len(raw)) + raw + b"\n")
    return b"".join(parts)
