"""The reference page of log lines: `python -m execray.logreference` prints it, in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from execray.logs import BURST, MAX_VALUE_BYTES, WINDOW_S
from execray.logwords import ALL, KEYS, WORDS, Word

_LEVELS: Final = {
    "critical": "Critical",
    "error": "Errors: somebody has to look",
    "warning": "Warnings: not as it should be, or worth knowing",
    "info": "Information",
    "any": "Any level",
}
_HEAD: Final = r"""# Log lines

The daemons log to stderr: under systemd into the journal, otherwise wherever it leads. Every line is

```
time=2026-11-22T04:13:28.980Z level=warning daemon=enforcer event="bad order" reason="not a line of JSON" uid=0 peer=47
```

In the journal a line has its priority in front (`<4>`, which journald takes off) and no `time`. `event` is one of those below,
and nothing else is ever an event. A value with a space, a quote, a backslash or `=` in it stands in quotes. Within them, `\"`,
`\\`, `\n`, `\r`, `\t`, `\xNN`, `\uNNNN` and `\UNNNNNNNN` are characters that could otherwise end the value or the line, or steer
a terminal; bytes that aren't UTF-8 are `\udcNN`. A value over {value} bytes is cut, and ends in `…`. A traceback is one value,
`trace`.

Of one event, at most {burst} lines are written in {window:g} s, and a log that nobody reads is never waited for: what was left
out is counted and told. What processes wrote, and their arguments, are never logged: they may be secrets, and stand in
[alerts](../alerts.md) only.

Generated from `execray/logwords.py` by `make docs`.
"""


def _row(event: str, word: Word) -> str:
    daemons = "all" if word.daemons == ALL else ", ".join(word.daemons)
    keys = ", ".join(f"`{key}`" for key in word.keys)
    return f"| `{event}` | {daemons} | {keys} | {word.meaning} | {word.todo} |"


def _lines() -> Iterator[str]:
    for level, title in _LEVELS.items():
        yield from (
            "",
            f"## {title}",
            "",
            "| event | from | keys | what it means | what to do |",
            "|---|---|---|---|---|",
        )
        yield from (_row(event, word) for event, word in WORDS.items() if word.level == level)
    yield from ("", "## Keys", "", "| key | what it is |", "|---|---|")
    yield from (f"| `{key}` | {meaning} |" for key, meaning in KEYS.items())


def page() -> str:
    """Returns the page."""
    head = _HEAD.format(value=MAX_VALUE_BYTES, burst=BURST, window=WINDOW_S)
    return head + "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
