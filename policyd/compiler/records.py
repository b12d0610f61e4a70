"""Data classes that are quick to define: of the time that checking a policy takes, most goes into importing the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: type[T]) -> type[T]:
    """Makes a class a data class with slots, compared by identity.

    That nothing assigns to its fields, the type checker sees to: each method that `frozen`, `eq` and `repr` would add has to be
    compiled at every start, which takes four times as long as the rest.
    """
    made = dataclass(slots=True, eq=False, repr=False, match_args=False)(cls)
    made.__repr__ = _shown  # type: ignore[method-assign]
    return made


def _shown(self: object) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__slots__)  # type: ignore[attr-defined]
    return f"{type(self).__name__}({fields})"
