"""What `status` and `doctor` say of the kernel's side."""

from __future__ import annotations

from typing import Any

import pytest

from execray.ctl import kernelside

ON: dict[str, Any] = {
    "mode": "on",
    "generation": 3,
    "passed": {"open": 10, "write": 5000, "read": 0},
    "dropped": {"open": 990, "connect": 4},
    "open": ["write"],
    "deep_paths": 7,
}


def findings(gate: dict[str, Any]) -> dict[str, kernelside.Finding]:
    return {found.name.strip(): found for found in kernelside.gate_findings(gate)}


def test_the_gate_in_a_line_has_mode_plan_share_and_what_it_cannot_look_at() -> None:
    assert kernelside.gate_words(ON) == (
        "on, plan 3, 16.6 % of 6,004 events dropped in the kernel, all sent of write, 7 paths too deep to look at"
    )
    assert kernelside.gate_words({"mode": "open", "generation": 0}) == "open, no events yet to drop in the kernel"


@pytest.mark.parametrize(
    ("passed", "dropped", "words"),
    [
        (1, 10**6, "99.9 % of 1,000,001 events dropped"),
        (0, 10**6, "100.0 % of 1,000,000 events dropped"),
        (10**6, 1, "0.1 % of 1,000,001 events dropped"),
        (7, 0, "none of 7 events dropped"),
    ],
)
def test_a_share_is_never_rounded_up_to_all_nor_down_to_none(passed: int, dropped: int, words: str) -> None:
    gate = {"mode": "on", "passed": {"open": passed}, "dropped": {"open": dropped}}
    assert findings(gate)["open"].found == words


def test_each_event_has_its_own_share_and_what_is_not_tested_is_noted() -> None:
    found = findings(ON)
    assert found["gate"].state == "ok"
    assert (found["open"].state, found["open"].found) == ("ok", "99.0 % of 1,000 events dropped")
    assert (found["connect"].state, found["connect"].found) == ("ok", "100.0 % of 4 events dropped")
    assert found["write"].state == "note" and "now all are sent" in found["write"].found
    assert "policy explain" in found["write"].cost


def test_an_event_of_which_nothing_is_dropped_is_noted_once_there_are_many() -> None:
    gate = {**ON, "open": []}
    assert findings(gate)["write"].state == "note" and "each met" in findings(gate)["write"].cost
    few = {**gate, "passed": {"write": 999}}
    assert findings(few)["write"].state == "ok"


@pytest.mark.parametrize("mode", ["off", "open", "shadow"])
def test_a_gate_that_drops_nothing_says_why(mode: str) -> None:
    found = findings({**ON, "mode": mode})["gate"]
    assert found.state == "note" and found.cost


def test_a_full_ring_and_full_tables_are_noted_with_what_that_costs() -> None:
    (low,) = kernelside.ring_findings({"size": 1 << 24, "used_max": 1 << 20})
    assert (low.state, low.found, low.cost) == ("ok", "16 MiB, never more than 6.2 % in use", "")
    (high,) = kernelside.ring_findings({"size": 1 << 24, "used_max": 15 << 20})
    assert high.state == "note" and "events are lost" in high.cost
    tables = {"er_creds": {"used": 60_000, "max": 65_536}, "gate_rows": {"used": 10, "max": 4096}, "new": {"max": 10}}
    creds, rows, new = kernelside.table_findings(tables)
    assert (creds.name, creds.state, creds.found) == ("table er_creds", "note", "60,000 of 65,536 threads' ids")
    assert "lack the ids" in creds.cost
    assert (rows.state, rows.cost, new.state, new.found) == ("ok", "", "ok", "0 of 10")


def test_status_tells_only_of_what_is_nearly_full() -> None:
    stats = {"ring": {"size": 100, "used_max": 80}, "tables": {"er_self": {"used": 1, "max": 1024}}}
    (words,) = kernelside.full_words(stats)
    assert words.startswith("ring: ") and "80.0 %" in words
    assert not list(kernelside.full_words({}))


def test_programs_show_what_the_verifier_counted_and_what_the_kernel_skipped() -> None:
    words, cost = kernelside.program_words({"verified_instructions": 214_123, "recursion_misses": 12})
    assert words == "214,123 of 1,000,000 verified instructions, skipped 12 times"
    assert "events nobody saw" in cost
    assert kernelside.program_words({"verified_instructions": 0, "recursion_misses": 0}) == ("", "")
    assert kernelside.skipped_words({"er_exec": 2, "er_sys_exit": 0}) == "er_exec 2 times"


def test_of_policyds_plan_is_told_what_it_leaves_open_and_what_it_got_wrong() -> None:
    assert not list(kernelside.plan_words({"open": {}, "needed": 0}))
    words = list(kernelside.plan_words({"open": {"write": "nothing that the kernel can test"}, "needed": 2}))
    assert [style for _, style in words] == ["warning", "bad"]
    assert words[0][0] == "every write is sent: nothing that the kernel can test"


def test_what_another_daemon_says_in_their_place_is_escaped_or_left_out() -> None:
    odd: dict[str, Any] = {"mode": "\x1b[31m", "passed": "x", "dropped": {"open": None}, "open": 5, "deep_paths": []}
    assert "\x1b" not in kernelside.gate_words(odd)
    assert list(kernelside.gate_findings(odd))
    assert list(kernelside.table_findings({"a": 3})) and not list(kernelside.ring_findings({"size": "x"}))
