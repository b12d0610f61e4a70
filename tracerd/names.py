"""What policies call files: the one thing that the resolver's thread and the decoder share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

#: The exact paths of policies, by the identity of the file that each stands for.
Names: TypeAlias = Mapping[bytes | None, tuple[bytes, ...]]
