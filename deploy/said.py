"""How the programs here end when an operator can mend what went wrong. Plain, since installing has only Python to run with."""

from __future__ import annotations

import sys

from execray.errors import OperatorError


def failed(error: OperatorError) -> int:
    """Says on standard error what went wrong, and what to do about it; returns the exit status."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return 1
