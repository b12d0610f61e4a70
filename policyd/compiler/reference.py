"""The reference page of diagnostics: `python -m policyd.compiler.reference` prints it, in Markdown."""

from __future__ import annotations

import sys

from policyd.compiler.codes import CODES, PHASES


def reference() -> str:
    """Returns the reference page, in Markdown."""
    out = [
        "# Diagnostics",
        "",
        "What the policy compiler reports, by code. Codes keep their meaning for ever. An *error* keeps the file from being",
        "loaded; a *warning* is probably a mistake; a *note* is worth knowing. At most 20 are shown for one file.",
        "",
        "This page is generated: `make docs`.",
    ]
    for digits, phase in PHASES.items():
        out += ["", f"## {phase} (ER{digits}xx)"]
        for entry in CODES.values():
            if entry.code[2:4] == digits:
                out += ["", f"### {entry.code}: {entry.title}", "", f"*{entry.level.value.capitalize()}.* {entry.text}"]
                if entry.wrong:
                    out += ["", "Wrong:", "", _fenced(entry.wrong), "", "Right:", "", _fenced(entry.right)]
    return "\n".join(out) + "\n"


def _fenced(example: str) -> str:
    return "```\n" + example.rstrip("\n") + "\n```"


if __name__ == "__main__":
    sys.stdout.write(reference())
