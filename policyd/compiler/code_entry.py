"""What is on record for one diagnostic code."""

from __future__ import annotations

from execray.schema.records import compared
from policyd.compiler.diagnostics import Level


@compared(frozen=True, slots=True)
class Code:
    """One code. It keeps its meaning for ever; a code that is no longer used is kept and marked so in its text.

    wrong and right are whole files; wrong is empty where no short file shows it.
    """

    code: str
    title: str
    text: str
    wrong: str
    right: str
    level: Level = Level.ERROR
    encoding: str = "utf-8"  # of the wrong example
