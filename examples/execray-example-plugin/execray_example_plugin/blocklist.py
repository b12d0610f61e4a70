"""The action `blocklist`: appends addresses to a file, one a line, for a firewall's own tool to take up.

    on match { alert; kill; notify "blocklist" with { ip = out.dst.ip } }

Settings: file; spare, a list of networks that are never put down (default: loopback and private ones).
"""

from __future__ import annotations

import ipaddress
import sys
from collections import OrderedDict
from pathlib import Path

from execray.plugins import ActionRequest, Settings

EXECRAY_API = 1

SPARE = ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"]
REMEMBERED = 4096  # addresses that were put down lately


class Blocklist:
    """Puts each address down once."""

    def __init__(self, file: Path, spare: list[str]) -> None:
        self._file = file
        self._spare = [ipaddress.ip_network(network) for network in spare]
        self._known: OrderedDict[str, None] = OrderedDict()

    def act(self, request: ActionRequest) -> None:
        """Puts one address down. Raises ValueError where the policy handed over none."""
        address = ipaddress.ip_address(str(request.arguments.get("ip")))
        if any(address in network for network in self._spare) or str(address) in self._known:
            return
        if "audit" in (request.mode, request.response):
            # `notify` runs in audit mode too, and what it does then is up to the plug-in. What it prints is in the status.
            sys.stdout.write(f"would block {address} for {request.policy}\n")
            return
        with self._file.open("a", encoding="ascii") as file:
            file.write(f"{address}\n")
        # In this order: what could not be written is tried again with the next request.
        self._known[str(address)] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def make(settings: Settings) -> Blocklist:
    """Makes the action. Raises ValueError or KeyError for settings that make no sense."""
    spare = settings.get("spare", SPARE)
    if not isinstance(spare, list):
        raise ValueError("`spare` must be a list of networks")
    return Blocklist(Path(str(settings["file"])), [str(network) for network in spare])
