"""The prebuilt BPF objects, by machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

OBJECT_DIR: Final = Path(__file__).parent / platform.machine()
