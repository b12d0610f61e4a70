"""How patient tests are. EXECRAY_PACE says how many times slower than a real processor this one is; unset, it is 1.

It stretches what a test waits for at most, and makes fewer of those that only keep the machine busy. What is asked of the
system stays the same.
"""

from __future__ import annotations

import os
from typing import Final

PACE: Final = float(os.environ.get("EXECRAY_PACE", "1"))


def patient(seconds: float) -> float:
    """How long to wait here, in s, for what takes at most so many seconds on a real processor."""
    return seconds * PACE


def fewer(count: int) -> int:
    """How many keep this machine as busy as so many do a real processor."""
    return max(1, int(count / PACE))
