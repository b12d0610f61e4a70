"""Data classes that are quick to define, and to make: of a short command's time, most goes into importing what it needs.

Each method that `dataclass` writes has to be compiled at every start; those below are the same functions for every class. And a
frozen one takes three times as long to make. That nothing assigns to a field, the type checker sees to: it takes both decorators
for `dataclass(frozen=True, slots=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

__all__ = ["compared", "record"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: type[T]) -> type[T]:
    """Makes a class a data class with slots, compared by identity."""
    made = dataclass(slots=True, eq=False, repr=False, match_args=False)(cls)
    made.__repr__ = _shown  # type: ignore[method-assign]
    return made


if TYPE_CHECKING:
    from dataclasses import dataclass as compared
else:

    def compared(*, frozen: bool, slots: bool) -> Callable[[type[T]], type[T]]:
        """Makes a class a data class with slots, compared and hashed by its fields but for those with `compare=False`."""
        assert frozen and slots

        def decorate(cls: type[T]) -> type[T]:
            made = dataclass(slots=True, eq=False, repr=False)(cls)
            names = [field.name for field in fields(made) if field.compare]
            read = attrgetter(*names) if names else _nothing

            def equal(self: Any, other: Any) -> Any:
                return read(self) == read(other) if other.__class__ is made else NotImplemented

            made.__eq__, made.__hash__, made.__repr__ = equal, lambda self: hash(read(self)), _shown
            return made

        return decorate


def _nothing(_: object) -> tuple[()]:
    return ()


def _shown(self: object) -> str:
    names = [name for cls in type(self).__mro__ for name in getattr(cls, "__slots__", ())]
    return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
