"""What tracerd tells of its side in the kernel, in words for `status` and `doctor`: the gate, the ring, tables, programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from execray.ctl.context import as_map
from execray.terminal import safe

#: Of a table or the ring, in use, before it is said.
NEARLY_FULL: Final = 0.75
_VERIFIABLE: Final = 1_000_000  # instructions that the kernel's verifier looks at
_MANY: Final = 1000  # events, before it is told that none of them was dropped
_SKIPPED: Final = "events nobody saw; another tracing tool? `bpftool prog` lists them"
_ALL_MET: Final = "each met what policies ask of it: name a path in such steps, or end with another event"
#: What each table holds, and what it costs when it is full.
_TABLES: Final = {
    "er_self": ("ExecRay's own processes", "events of processes that ExecRay starts are recorded like others"),
    "er_creds": ("threads' ids", "setuid events lack the ids from before"),
    "er_armed": ("armed processes", "no further process is armed"),
    "er_ring_names": ("names of io_uring's operations", "the events of further operations lack them"),
    "er_gate_files": ("files of exact paths", "further exact paths are matched by name only"),
    "er_gate_cells": ("processes in which a policy began", "what begins in further ones counts for the whole host"),
    "gate_bits": ("ways to meet a step", "of the events with most steps all are sent"),
    "gate_rows": ("sets of steps", "of the events with most steps all are sent"),
    "gate_keys": ("names in policies", "of the events with most steps all are sent"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: state is ok, note or bad; cost is what it means when it isn't ok."""

    state: str
    name: str
    found: str
    cost: str = ""


def gate_words(gate: dict[str, Any]) -> str:
    """Returns in a line what the gate does: its mode, the share that is dropped, and what it can't look at."""
    passed, dropped = (_sum(gate.get(what)) for what in ("passed", "dropped"))
    words = [f"{safe(gate.get('mode', '?'))}", _share(passed, dropped) + " in the kernel"]
    if gate.get("generation"):
        words.insert(1, f"plan {safe(gate['generation'])}")
    if names := _names(gate.get("open")):
        words.append(f"all sent of {', '.join(names)}")
    if names := _names(gate.get("followed")):
        words.append(f"followed: {', '.join(names)}")
    if refused := _count(gate.get("refused")):
        words.append(f"{refused:,} not sent to who follows, to keep room")
    if isinstance(deep := gate.get("deep_paths"), int) and deep:
        words.append(f"{deep:,} paths too deep to look at")
    return ", ".join(words)


def plan_words(gate: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields what policyd says of the plan that it made, in words and as a style, where there is anything to say."""
    for name, why in as_map(gate.get("open")).items():
        yield f"every {safe(name)} is sent: {safe(why)}", "warning"
    if needed := _count(gate.get("needed")):
        yield f"{needed:,} events that it would have dropped were needed: a bug worth reporting", "bad"


def full_words(stats: dict[str, Any]) -> Iterator[str]:
    """Yields what is nearly full: the ring, and tables."""
    for finding in (*ring_findings(as_map(stats.get("ring"))), *table_findings(as_map(stats.get("tables")))):
        if finding.state != "ok":
            yield f"{finding.name}: {finding.found}"


def skipped_words(skipped: dict[str, Any]) -> str:
    """Returns which programs the kernel skipped, and how often; "" for none."""
    return ", ".join(f"{safe(name)} {safe(count)} times" for name, count in skipped.items() if count)


def gate_findings(gate: dict[str, Any]) -> Iterator[Finding]:
    """Yields a line for the gate, and one for each event that it sees."""
    if not gate:
        return
    mode = gate.get("mode")
    costs = {
        "off": "every event of a kind that some policy asks for is sent: tracerd.gate is `off`",
        "open": "every event of a kind that some policy asks for is sent: policyd has sent no plan yet",
        "shadow": "everything is sent, and flagged: tracerd.gate is `shadow`",
    }
    yield Finding("note" if mode in costs else "ok", "gate", gate_words(gate), costs.get(str(mode), ""))
    passed, dropped = as_map(gate.get("passed")), as_map(gate.get("dropped"))
    untested = _names(gate.get("open"))
    for name in sorted({*passed, *dropped, *untested}):
        sent, gone = _count(passed.get(name)), _count(dropped.get(name))
        if str(name) in untested:
            cost = (
                "some policy asks for all of them, or for nothing that the kernel tests: `execray-ctl policy explain`"
            )
            yield Finding("note", f"  {name}", f"{_share(sent, gone)}; now all are sent", cost)
        elif sent >= _MANY and not gone and mode == "on":
            yield Finding("note", f"  {name}", _share(sent, gone), _ALL_MET)
        else:
            yield Finding("ok", f"  {name}", _share(sent, gone))


def ring_findings(ring: dict[str, Any]) -> Iterator[Finding]:
    """Yields a line for the ring, by its high-water mark."""
    size, most = _count(ring.get("size")), _count(ring.get("used_max"))
    if size:
        nearly = most >= NEARLY_FULL * size
        cost = "where it is full events are lost: name a path in steps of `open` and `write`" if nearly else ""
        words = f"{size / 2**20:,.0f} MiB, never more than {100 * most / size:.1f} % in use"
        yield Finding("note" if nearly else "ok", "ring", words, cost)


def table_findings(tables: dict[str, Any]) -> Iterator[Finding]:
    """Yields a line for each table of the kernel that can be full."""
    for name, raw in tables.items():
        used, most = _count(as_map(raw).get("used")), _count(as_map(raw).get("max"))
        holds, cost = _TABLES.get(name, ("", "what has no room is not looked at"))
        nearly = used >= NEARLY_FULL * most
        words = f"{used:,} of {most:,} {holds}".rstrip()
        yield Finding("note" if nearly else "ok", f"table {name}", words, f"when full, {cost}" if nearly else "")


def program_words(program: dict[str, Any]) -> tuple[str, str]:
    """Returns what the kernel counts of a program in words, and what that costs, "" where it costs nothing."""
    words = []
    if verified := _count(program.get("verified_instructions")):
        words.append(f"{verified:,} of {_VERIFIABLE:,} verified instructions")
    if misses := _count(program.get("recursion_misses")):
        words.append(f"skipped {misses:,} times")
    return ", ".join(words), _SKIPPED if misses else ""


def _share(passed: int, dropped: int) -> str:
    events = passed + dropped
    if not events:
        return "no events yet to drop"
    if not dropped:
        return f"none of {events:,} events dropped"
    # never rounded up to all, nor down to none
    share = min(max(100 * dropped / events, 0.1), 99.9 if passed else 100.0)
    return f"{share:.1f} % of {events:,} events dropped"


def _sum(counts: object) -> int:
    return sum(_count(count) for count in as_map(counts).values())


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _names(names: object) -> list[str]:
    return [safe(name) for name in names] if isinstance(names, list) else []
