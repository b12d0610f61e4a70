"""Tricks that are known to go unseen, and why. docs/threat-model.md lists them too; a test compares both.

A trick that is detected here and still on the list fails the bench, until the list is mended.
"""

from __future__ import annotations

from typing import Final

from tests.evasion.bench import Outcome
from tests.evasion.table import NOTHING

#: Reasons, and the tricks that each is the reason for.
REASONS: Final = (
    (
        "A file below an overlay file system has another name and another identity there, and which folders it lies over is not "
        "in the mount's event.",
        ("names/overlay", "runs/overlaid"),
    ),
    (
        "Of an io_uring request that asks for no completion nothing is seen but `io_uring_setup`, before it.",
        ("hands/uring_silent",),
    ),
    (
        "The kernel opens the file for who watches it (fanotify), which is no event, and of sendfile only where the bytes go is "
        "known.",
        ("hands/fanotify_and_sendfile",),
    ),
    (
        "A list of programs says which program may read, not for whom it works: here it hands the secret to its starter.",
        ("hands/reader_asked",),
    ),
    (
        "What a write goes to is looked up as the call returns. One that has to wait gives a second thread the time to put "
        "another file in the descriptor's place.",
        ("ways/descriptor_swapped",),
    ),
    (
        "Reader and sender have neither line nor login in common. Who may write a login uid begins another entry by it; `key "
        "host` takes all together.",
        ("kin/parent_sends_other_login",),
    ),
    (
        "The pool of partials is bounded, and who fills it pushes out a partial of its own. Alerts then say `degraded`.",
        ("cover/crowd_of_logins",),
    ),
    ("The policy's time is over: whoever waits longer than `within` evades it.", ("cover/slow_outside_window",)),
    (
        "What an interpreter runs is data to the kernel: here an argument, read from the file by somebody else.",
        ("code/script_as_text",),
    ),
)

MISSES: Final[dict[str, str]] = {trick: reason for reason, tricks in REASONS for trick in tricks}


def surprise(outcome: Outcome) -> str:
    """What is not as it is known to be, or nothing."""
    trick, known = outcome.trick, outcome.trick.id in MISSES
    match outcome.verdict:
        case "failed":
            return f"the bench failed: {outcome.failed}"
        case "can't" if not trick.lacking:
            return f"nothing that it needs should be lacking: {outcome.cant}"
        case "detected" if known:
            return "it is listed as a miss: mend tests/evasion/misses.py and docs/threat-model.md"
        case "detected" if trick.goal is NOTHING:
            return "it does nothing forbidden"
        case "missed" if not known:
            return "it was detected before"
    return ""


def listing() -> str:
    """The table as docs/threat-model.md has it."""
    rows = [f"| {', '.join(f'`{trick}`' for trick in tricks)} | {reason} |" for reason, tricks in REASONS]
    return "\n".join(["| what goes unseen | why |", "|---|---|", *rows])
