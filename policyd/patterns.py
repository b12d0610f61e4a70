"""Regular expressions: RE2 over bytes, set up once so that the compiler and the engine agree about each pattern.

RE2 takes time linear in the text, so no policy can make the engine hang, and its memory is bounded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import re2

#: The most memory one pattern may take, in bytes: its program and the automata it builds while matching.
MAX_PATTERN_MEMORY = 8 << 20
# The engine holds the patterns of loaded policies itself; this only saves work between files and reloads.
_CACHE_SIZE = 1024


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: bytes) -> object | None:
        """Returns something other than None where the pattern matches anywhere in text."""


class PatternError(ValueError):
    """RE2 refuses the pattern; str() is its reason."""


def regex_options(ignore_case: bool = False) -> re2.Options:
    """Returns RE2's options: bytes, dot matches newline, `$` only at the very end, no capture groups, quiet."""
    import re2  # noqa: PLC0415  # slow to load, and many policies have no pattern

    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    options.dot_nl = True
    options.never_nl = False
    options.never_capture = True
    options.log_errors = False
    options.case_sensitive = not ignore_case
    return options


@lru_cache(maxsize=_CACHE_SIZE)
def compile_pattern(pattern: bytes, ignore_case: bool = False) -> Pattern:
    """Compiles a pattern for an unanchored search in bytes; `(?i)` in it is obeyed too. Raises PatternError."""
    import re2  # noqa: PLC0415

    try:
        compiled: Pattern = re2.compile(pattern, regex_options(ignore_case))
    except re2.error as error:
        reason = error.args[0] if error.args else "refused"
        raise PatternError(reason.decode("latin-1") if isinstance(reason, bytes) else str(reason)) from None
    return compiled
