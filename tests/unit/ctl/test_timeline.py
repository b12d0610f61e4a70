"""The timeline tells the story, and nothing in an alert can steer the terminal that shows it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execray.schema.catalog import EVENTS
from execray.terminal import fold, safe
from execray.timeline import event_words, render, summary
from tests.support.sample_alert import sample_alert


def test_timeline_tells_who_what_when_and_the_end() -> None:
    assert render(sample_alert()) == (
        "HIGH  credential_access  T1003.008\n"
        "  Reads password hashes.\n"
        "  2026-01-31T12:00:00.000001Z on host1, alert 5f0c1d2e9a7b4c3d\n"
        "  process  thief[4711], uid 1000: /tmp/thief --now\n"
        "  made by  bash[4000]: /usr/bin/bash\n"
        "  step 1  open { path = ... }\n"
        "        +0.000 ms  open /etc/shadow (O_RDONLY) -> 3  [thief 4711]\n"
        '  step 2  "send" write { }\n'
        '        +1.500 ms  write 27 bytes to socket: "root:$6$\\n" -> 27  [thief 4711]\n'
        "                   and 2 more\n"
        "  kill     killed by the enforcer, 1.83 ms after the event\n"
    )


def test_timeline_tells_by_which_paths_a_file_was_known() -> None:
    alert = sample_alert()
    alert["execray"]["trail"][0]["by_file"] = ["/etc/shadow", "/x\x1b"]
    assert "\n                   by another name: it is the file /etc/shadow, /x\\x1b\n" in render(alert)


def test_timeline_tells_what_became_of_each_notification() -> None:
    told = [{"plugin": "soc", "result": "queued"}, {"plugin": "x\x1b", "result": "not_allowed"}, "nonsense"]
    assert render(sample_alert(action={"notify": told})).endswith(
        "  notify   soc: queued\n  notify   x\\x1b: not allowed\n"
    )


def test_color_adds_only_escapes() -> None:
    colored = render(sample_alert(), color=True)
    assert "\x1b[32mkilled by" in colored
    assert "\x1b" not in render(sample_alert())


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            {"event": "open", "path": "/a", "flags": 0o2000101, "created": True, "ret": 3},
            "open /a (O_WRONLY|O_CLOEXEC|O_CREAT) made it -> 3",
        ),
        ({"event": "open", "rawpath": "b", "flags": 2, "ret": -2}, "open b (O_RDWR) -> ENOENT"),
        (
            {"event": "connect", "dst.ip": "127.0.0.1", "dst.port": 80, "ret": -115},
            "connect 127.0.0.1:80 -> EINPROGRESS",
        ),
        ({"event": "connect", "dst.ip": "::1", "dst.port": 80, "ret": 0}, "connect [::1]:80 -> 0"),
        ({"event": "connect", "path": "\x00abstract", "family": 1}, "connect \\x00abstract"),
        ({"event": "connect", "family": 16}, "connect (AF_NETLINK)"),
        (
            {"event": "ptrace", "request": 16, "target.pid": 9, "target.exe": "/x", "ret": 0},
            "ptrace PTRACE_ATTACH of pid 9 (/x) -> 0",
        ),
        (
            {"event": "setuid", "call": "setresuid", "new.uid": 0, "new.euid": 0, "old.uid": 5, "old.euid": 6},
            "setresuid to uid 0, euid 0 (was uid 5, euid 6)",
        ),
        ({"event": "chmod", "rawpath": "/x", "mode": 0o755, "ret": 0}, "chmod /x to 0755 -> 0"),
        ({"event": "exec", "filename": "/bin/sh", "cmdline": "sh -c x"}, "exec /bin/sh: sh -c x"),
        ({"event": "exit", "exit_code": 0, "signal": 9}, "killed by SIGKILL"),
        ({"event": "exit", "exit_code": 3, "signal": 0}, "exit 3"),
        ({"event": "fork", "child.pid": 5}, "fork: child 5"),
        ({"event": "something-newer", "x": 1}, "something-newer"),
    ],
)
def test_an_event_in_words(event: dict[str, Any], words: str) -> None:
    assert event_words(event) == words


def test_every_event_of_the_catalogue_has_words() -> None:
    for row in EVENTS:
        assert event_words({"event": row.name}).split()[0] in {row.name, row.name + ":"}


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"result": "killed", "by": "policyd", "reason": "no enforcer"}, "killed by policyd directly (no enforcer)"),
        ({"result": "would_kill", "reason": "host mode is audit"}, "would have been killed (host mode is audit)"),
        ({"result": "refused", "reason": "protected"}, "not killed: refused (protected)"),
    ],
)
def test_the_end_says_who_killed_or_why_not(result: dict[str, Any], words: str) -> None:
    assert words in render(sample_alert(action={"kill": result}))


def test_caveats_and_suppressed_alerts_are_told() -> None:
    text = render(sample_alert(tainted=True, partial_evidence=True, suppressed=12))
    assert "events were lost" in text and "captured in part" in text and "12 more of the same" in text


def test_sensor_loss_says_how_many_and_where() -> None:
    alert = {"rule": {"name": "sensor loss"}, "execray": {"severity": "medium", "lost": {"ring": {"count": 7}}}}
    assert "7 events lost at `ring`" in render(alert)


def test_summary_is_one_line() -> None:
    alert = sample_alert()
    alert["rule"]["name"] = "two\nlines"
    line = summary(alert)
    assert "\n" not in line and line.startswith("5f0c1d2e9a7b4c3d") and "killed by the enforcer" in line


@given(st.text(max_size=400))
def test_safe_text_is_printable_on_one_line_and_bounded(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    assert len(shown) <= 160 * 10 + 1


def test_bytes_that_are_not_utf8_are_shown_as_bytes() -> None:
    assert safe(b"a\xff\x9b31m".decode("utf-8", "surrogateescape")) == "a\\xff\\x9b31m"
    assert safe("\x9b\u202e\\") == "\\x9b\\u202e\\\\"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("junk", [7, "text", None, [1, [2]], {"a": 1}, 10**400, True])
def test_a_list_or_number_of_another_type_is_left_out(junk: object) -> None:
    assert render(sample_alert(attack=junk, trail=junk, action=junk, lost=junk, suppressed=junk))
    trail = [
        {"labels": junk, "count": junk, "events": [{"event": "open", "time_ns": junk, "flags": junk, "ret": junk}]}
    ]
    assert render(sample_alert(trail=trail, action={"kill": {"latency_us": junk, "result": junk}}))


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width: int, color: bool) -> None:
    alert = sample_alert(kill={"result": "refused"})
    alert["rule"]["description"] = "Reads password hashes, and then sends them somewhere else. " * 4
    alert["process"]["command_line"] = "/tmp/thief --now " + "x" * 120
    plain = render(alert)
    folded = re.sub(r"\x1b\[[0-9;]*m", "", render(alert, color=color, width=width))
    assert max(len(line) for line in folded.splitlines()) <= width < max(len(line) for line in plain.splitlines())
    assert "".join(folded.split()) == "".join(plain.split())


@given(st.text(alphabet="ab \x1b[1;31m", max_size=80), st.integers(4, 30))
def test_folding_keeps_every_character_but_white_space(text: str, width: int) -> None:
    line = f"\x1b[2m{text}\x1b[0m"
    folded = fold(line, width)
    assert "".join(folded.split()) == "".join(line.split())
    shown = re.sub(r"\x1b\[[0-9;]*m", "", folded)
    assert all(len(part) <= width for part in shown.split("\n"))
    assert fold(line, None) == line


@given(st.data())
@settings(deadline=None)
def test_any_json_in_any_place_renders_without_escapes(data: st.DataObject) -> None:
    alert = sample_alert()
    at: Any = alert
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at))) if isinstance(at, list) else []
        key = data.draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.booleans()):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    for shown in (render(alert), summary(alert)):
        assert all(line.isprintable() for line in shown.split("\n"))


def test_escapes_planted_in_every_text_never_come_out() -> None:
    def planted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: planted(item) for key, item in value.items()}
        if isinstance(value, list):
            return [planted(item) for item in value]
        return f"{value}\x1b]0;x\x07\n\u202e" if isinstance(value, str) else value

    text = render(planted(json.loads(json.dumps(sample_alert()))))
    assert all(line.isprintable() for line in text.split("\n"))
