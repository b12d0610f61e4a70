"""Alerts on standard output: a readable timeline on a terminal, JSON lines for everything else."""

from __future__ import annotations

import os
import sys

from execray.logs import in_journal
from execray.timeline import render
from policyd.sinks.base import Alert, alert_line, without_secrets


class StdoutSink:
    """Writes to a file descriptor and leaves its flags alone: others share it."""

    name = "stdout"

    def __init__(self, fd: int | None = None) -> None:
        self._fd = sys.stdout.fileno() if fd is None else fd
        self._terminal = os.isatty(self._fd)
        self._journal = in_journal(self._fd)

    def write(self, alert: Alert) -> None:
        """Writes one alert, and blocks while the reader doesn't read. Raises OSError when it has gone."""
        if self._terminal:
            text = render(alert, color=True).encode("utf-8", "replace") + b"\n"
        else:
            text = alert_line(without_secrets(alert) if self._journal else alert)
        while text:
            text = text[os.write(self._fd, text) :]

    def close(self) -> None:
        """Leaves the descriptor open; it isn't ours."""
