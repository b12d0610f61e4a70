"""Draws what a terminal showed as SVG: `script -qec "make demo" out`, then `python terminal.py "make demo" < out > demo.svg`.

Needs rich, in an environment of its own: nothing of ExecRay imports it.
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

WIDTH = 142
THEME = TerminalTheme(
    (16, 20, 27),
    (214, 220, 229),
    [
        (16, 20, 27),
        (240, 98, 98),
        (110, 207, 140),
        (229, 190, 92),
        (105, 160, 245),
        (190, 140, 235),
        (90, 200, 210),
        (214, 220, 229),
    ],
)


def picture(command: str, output: str) -> str:
    """Returns the SVG of a command and its output with ANSI colours. Fonts are the viewer's own: nothing is fetched."""
    console = Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(Text.from_ansi(f"$ {command}\n\n{output}"))
    svg = console.export_svg(title="ExecRay", theme=THEME)
    svg = re.sub(r"\s*@font-face \{.*?\}\s*(?=@font-face|\.terminal)", "\n    ", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "'DejaVu Sans Mono', Menlo, Consolas, monospace")
    return svg.replace("<text ", '<text xml:space="preserve" ')


if __name__ == "__main__":
    print(picture(sys.argv[1], sys.stdin.read().replace("\r", "").strip("\n")))
