"""Where things are on a host unless its configuration says otherwise. Imports next to nothing: some commands need no more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CONFIG_FILE: Final = Path("/etc/execray/execray.yaml")
#: What packages add: sinks, actions, events.
PLUGIN_DIR: Final = Path("/usr/local/lib/execray-plugins")
