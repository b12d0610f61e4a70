"""Errors that an operator or a peer can cause; everything else is a bug and keeps its traceback."""

from __future__ import annotations


class OperatorError(Exception):
    """Something the person running ExecRay can mend: one line, and a hint how."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(OperatorError):
    """The configuration file can't be used."""


class PeerError(Exception):
    """The other end of a socket broke the protocol: close that connection, count it, live on."""
