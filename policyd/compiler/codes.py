"""The registry of diagnostic codes: 00 lexical, 01 syntax, 02 names, 03 types, 04 automaton, 05 lints. Codes are for ever."""

from __future__ import annotations

from policyd.compiler.code_entry import Code
from policyd.compiler.codes_lints import FLOW_LINTS
from policyd.compiler.codes_meaning import NAMES, TYPES
from policyd.compiler.codes_reading import LEXICAL, READING_LINTS, SYNTAX
from policyd.compiler.codes_shape import AUTOMATON, LINTS

__all__ = ["CODES", "PHASES", "Code", "explain"]

#: The phases, by the two digits that name them.
PHASES = {
    "00": "Lexical",
    "01": "Syntax",
    "02": "Names",
    "03": "Types",
    "04": "Automaton",
    "05": "Lints",
}
CODES: dict[str, Code] = {
    entry.code: entry
    for entry in sorted(
        (*LEXICAL, *SYNTAX, *NAMES, *TYPES, *AUTOMATON, *LINTS, *FLOW_LINTS, *READING_LINTS),
        key=lambda entry: entry.code,
    )
}


def explain(code: str) -> str:
    """Returns what is on record for a code, as text for a terminal. Raises KeyError."""
    entry = CODES[code]
    parts = [f"{entry.level.value}[{entry.code}]: {entry.title}", "", entry.text]
    if entry.wrong:
        parts += ["", "Wrong:", "", _indented(entry.wrong), "", "Right:", "", _indented(entry.right)]
    return "\n".join(parts) + "\n"


def _indented(example: str) -> str:
    return "\n".join(f"    {line}" for line in example.rstrip("\n").split("\n"))
