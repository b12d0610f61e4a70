"""Shows which tricks are detected: `make evasion`, or `python -m tests.evasion [--json] [TRICK ...]`. Needs root and gcc."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from typing import Final

from execray.terminal import Painter, painter, use_color
from tests.evasion.bench import Bench, Outcome
from tests.evasion.misses import MISSES, surprise
from tests.evasion.table import TRICKS

_STYLES: Final = {"detected": "good", "quiet": "good", "missed": "warning", "can't": "dim", "failed": "bad"}


def main() -> int:
    """Runs the tricks and prints a line for each. Returns 1 where one is not as it is known to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.evasion", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("tricks", nargs="*", metavar="TRICK", help="such as names/hard_link, or names/; default: all")
    options = parser.parse_args()
    chosen = [t for t in TRICKS if not options.tricks or any(t.id.startswith(name) for name in options.tricks)]
    if not chosen:
        parser.error("no trick is called that")
    if os.geteuid() != 0:
        parser.error("this needs root")
    paint = painter(use_color())
    outcomes = []
    with Bench() as bench:
        for trick in chosen:
            outcome = bench.run(trick)
            outcomes.append(outcome)
            if not options.json:
                print(_line(outcome, paint), flush=True)
    counts = Counter(outcome.verdict for outcome in outcomes)
    if options.json:
        print(json.dumps({"tricks": [_object(o) for o in outcomes], "counts": counts}, indent=2))
    else:
        print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    return int(any(surprise(outcome) for outcome in outcomes))


def _why(outcome: Outcome) -> str:
    if outcome.verdict == "detected":
        return ", ".join(outcome.detected_by)
    return outcome.failed or outcome.cant or MISSES.get(outcome.trick.id, "")


def _line(outcome: Outcome, paint: Painter) -> str:
    unlike = surprise(outcome)
    return "  ".join(
        (
            paint(f"{outcome.verdict:<8}", _STYLES[outcome.verdict]),
            f"{outcome.trick.id:<34}",
            f"{outcome.trick.behind:<62}",
            _why(outcome) + (paint(f"  ({unlike})", "bad") if unlike else ""),
        )
    )


def _object(outcome: Outcome) -> dict[str, object]:
    return {
        "trick": outcome.trick.id,
        "goal": outcome.trick.goal.words,
        "behind": outcome.trick.behind,
        "verdict": outcome.verdict,
        "detected_by": list(outcome.detected_by),
        "why_not": "" if outcome.detected_by else _why(outcome),
        "surprise": surprise(outcome),
    }


if __name__ == "__main__":
    sys.exit(main())
