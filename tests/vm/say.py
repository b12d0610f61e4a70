"""How a guest speaks: lines of JSON on its second serial port, which the host reads as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path("/dev/ttyS1")


def say(what: str, **facts: Any) -> None:
    """Writes one result."""
    with RESULTS.open("w") as port:
        port.write(json.dumps({"what": what, **facts}) + "\n")
