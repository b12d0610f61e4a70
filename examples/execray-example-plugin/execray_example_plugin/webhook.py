"""The sink `webhook`: sends each alert as JSON to a URL.

Settings: url; token_file, whose first line is sent as a bearer token; min_severity (default low); timeout_s (default 3).
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from execray.plugins import Settings

EXECRAY_API = 1

SEVERITIES = ("informational", "low", "medium", "high", "critical")


class Webhook:
    """Sends alerts with a POST request each."""

    def __init__(self, url: str, token: str, least: int, timeout_s: float) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._least = least
        self._timeout_s = timeout_s

    def write(self, alert: dict[str, Any]) -> None:
        """Sends one alert. Raises OSError where the server can't be reached, or answers anything but 2xx."""
        if SEVERITIES.index(alert["execray"]["severity"]) < self._least:
            return
        body = json.dumps(alert).encode("ascii")
        request = urllib.request.Request(self._url, body, self._headers)
        with urllib.request.urlopen(request, timeout=self._timeout_s):
            pass

    def close(self) -> None:
        """Holds nothing open."""


def make(settings: Settings) -> Webhook:
    """Makes the sink. Raises ValueError for settings that make no sense: policyd then says so, and tries again later."""
    url, token_file = str(settings.get("url", "")), settings.get("token_file")
    if not url.startswith(("http://", "https://")):
        raise ValueError("`url` must begin with http:// or https://")
    # A file and not a setting: the configuration may be read by more people than a secret should be.
    token = Path(str(token_file)).read_text(encoding="ascii").split("\n")[0] if token_file else ""
    least = SEVERITIES.index(str(settings.get("min_severity", "low")))
    return Webhook(url, token, least, float(str(settings.get("timeout_s", 3))))
