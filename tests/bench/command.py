"""What a benchmark does when it is run by itself: measure, print the table, write the figures where asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(doc: str | None, run: Callable[[], dict[str, Any]], table: Callable[[dict[str, Any]], str]) -> None:
    """Runs one benchmark. doc: its module's docstring, which is its help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    result = run()
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
