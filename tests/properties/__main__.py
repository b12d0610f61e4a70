"""Compares the engine with the reference, and with itself behind the gate, on many random cases.

`make properties`, or `python -m tests.properties --help`.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable

from tests.properties.cases import Case, compare, random_case
from tests.properties.gate import address_case, compare_awaited, compare_stateless, gate_case
from tests.properties.shrink import Compare, shrink

CHECKS: tuple[tuple[Callable[[str], Case], Compare], ...] = (
    (random_case, compare),
    (gate_case, compare_stateless),
    (gate_case, compare_awaited),
    (address_case, compare_stateless),
)


def main() -> int:
    """Runs the cases of one seed, shows how far it is, and ends at the first difference with status 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the first one on (default: a new one)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    options = parser.parse_args()
    began = time.monotonic()
    print(f"seed {options.seed}, {options.cases} cases")
    for done in range(options.cases):
        number = options.first + done
        for make, check in CHECKS:
            found = check(make(f"{options.seed}:{number}"))
            if found is not None:
                sys.stdout.write(f"\n\ncase {number} of seed {options.seed} differs; the smallest like it:\n\n")
                sys.stdout.write(f"{shrink(found, check)}\n")
                return 1
        if done % 50 == 49 or done + 1 == options.cases:
            rate = (done + 1) / (time.monotonic() - began)
            progress = f"{done + 1} of {options.cases} agree, {rate:.0f} a second"
            # A terminal has one line that is written over; a log one line for each tenth.
            if sys.stdout.isatty():
                sys.stdout.write(f"\r{progress}")
            elif (done + 1) % max(1, options.cases // 10) == 0:
                sys.stdout.write(f"{progress}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
