"""How patient tests are. EXECRAY_PACE says how many times slower than a real processor this one is; unset, it is 1.

It stretches what a test waits for at most, never what it asks for.
"""

from __future__ import annotations

import os
from typing import Final

PACE: Final = float(os.environ.get("EXECRAY_PACE", "1"))


def patient(seconds: float) -> float:
    """How long to wait here, in s, for what takes at most so many seconds on a real processor."""
    return seconds * PACE
