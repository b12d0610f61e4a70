"""What a benchmark does when it is run by itself: measure, print the table, write the figures where asked."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import sysconfig
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


def main(doc: str | None, run: Callable[[], dict[str, Any]], table: Callable[[dict[str, Any]], str]) -> None:
    """Runs one benchmark. doc: its module's docstring, which is its help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    print(interpreter())
    result = run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps({"interpreter": interpreter(), **result}, indent=2) + "\n")


def interpreter() -> str:
    """Returns which Python this is, and its pace: one built with profile-guided optimisation is a third faster, or more."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    built = (
        ", --enable-optimizations" if "--enable-optimizations" in options else ""
    )  # Debian's isn't, but optimises all the same
    took_s = min(timeit.repeat(_TURNS, repeat=5, number=20)) / 20
    pace = f"10,000 turns of a loop of calls take {took_s * 1e6:,.0f} us"
    return f"Python {platform.python_version()} at {sys.executable}{built}; {pace}"


_TURNS: Final = """
def called(value, other=1):
    return (value, other)
found = {}
for number in range(10_000):
    found[number & 255] = called(number)
"""
