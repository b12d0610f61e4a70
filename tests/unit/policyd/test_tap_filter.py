"""A tail shows what was asked for, all of it, and nothing else."""

from __future__ import annotations

import fnmatch
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execray.errors import OperatorError
from execray.schema.catalog import EVENTS, Content
from execray.wire.frames import Batch
from policyd.tap_filter import MAX_GLOB_BYTES, Filter, Spec, codes_of, usual, without_content
from tests.support.playbook import Play

ALL = codes_of(["exec", "fork", "exit", "open", "write", "chmod", "connect", "ptrace", "setuid"])


def day() -> Batch:
    """Two users' processes doing a little of everything."""
    play = Play()
    shell = play.process(exe="/bin/sh", uid=1000, euid=1000)
    root = play.process(exe="/usr/sbin/cron", uid=0, euid=0)
    sudo = play.process(exe="/usr/bin/sudo", uid=1000, euid=0)
    nameless = play.process(exe=None, uid=1000, euid=1000)
    for proc in (shell, root, sudo, nameless):
        play.event("open", proc, path="/etc/passwd", rawpath="passwd", flags=0, ret=3)
        play.event("open", proc, rawpath="/etc/none", flags=0, ret=-2)
        play.event("write", proc, fd=3, path="/var/log/x", content="secret", len=6, ret=6)
        play.event("connect", proc, family=2, dst_ip="192.0.2.1", dst_port=80, ret=0)
        play.event("exec", proc, filename="./etc/tool", ret=0)
    play.lost(3)
    return play.batch()


DAY = day()


def shown(**spec: Any) -> list[tuple[str, str, str]]:
    """Type, program and path (as the kernel has it, else as written) of what a tail with this spec gets."""
    found = []
    for position in Filter(Spec(**{"codes": ALL, **spec})).wanted(DAY):
        event = DAY.event(position)
        exe = event.get("exe")
        path = next(
            (event.get(n) for n in ("path", "rawpath", "filename") if n in event.type.by_name and event.get(n)), b""
        )
        assert isinstance(path, bytes)
        found.append((event.type.name, exe.decode() if isinstance(exe, bytes) else "", path.decode()))
    return found


def test_without_a_filter_everything_of_the_types_is_shown_in_order() -> None:
    assert [kind for kind, _, _ in shown()][:5] == ["open", "open", "write", "connect", "exec"] and len(shown()) == 20
    assert len(shown(codes=codes_of(["openat"]))) == 8


def test_the_usual_types_are_all_but_the_frequent_ones() -> None:
    frequent = codes_of(["write", "read", "sendto", "dup", "mmap", "mprotect", "prctl"])
    assert {event.code for event in EVENTS} - frequent == usual()


@pytest.mark.parametrize(
    ("spec", "programs"),
    [
        ({"exe": "/usr/*"}, {"/usr/sbin/cron", "/usr/bin/sudo"}),
        ({"exe": "/bin/sh"}, {"/bin/sh"}),
        ({"exe": "bin"}, set()),
        ({"name": "s*"}, {"/bin/sh", "/usr/bin/sudo"}),
        ({"name": "[!s]*"}, {"/usr/sbin/cron"}),
        ({"name": ""}, {""}),
        ({"uid": 1000}, {"/bin/sh", "/usr/bin/sudo", ""}),
        ({"uid": 0}, {"/usr/sbin/cron", "/usr/bin/sudo"}),
        ({"uid": 0, "name": "s*"}, {"/usr/bin/sudo"}),
        ({"pid": 1001}, {"/bin/sh"}),
        ({"pid": 1001, "uid": 0}, set()),
    ],
)
def test_a_filter_on_the_process(spec: dict[str, Any], programs: set[str]) -> None:
    assert {exe for _, exe, _ in shown(**spec)} == programs


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("/etc/*", {"open"}),
        ("/etc/none", {"open"}),
        ("passwd", {"open"}),
        ("*x", {"write"}),
        ("*/etc/*", {"open", "exec"}),
        ("*", {"open", "write", "exec"}),
        ("/etc", set()),
    ],
)
def test_a_filter_on_the_path_sees_what_the_kernel_used_and_what_was_written(path: str, kinds: set[str]) -> None:
    assert {kind for kind, _, _ in shown(path=path)} == kinds


def test_a_name_that_is_not_utf8_is_matched_byte_by_byte() -> None:
    play = Play()
    proc = play.process()
    play.event("open", proc, path=b"/tmp/\xff\xfe", ret=3)
    batch = play.batch()
    for pattern, found in (("/tmp/??", [0]), ("/tmp/\udcff*", [0]), ("/tmp/\udcfe*", [])):
        assert Filter(Spec(path=pattern)).wanted(batch) == found


@given(st.text(alphabet="ab*?[]!/-.\\", max_size=12), st.text(alphabet="ab/.-", max_size=12))
def test_a_glob_means_what_fnmatch_says(pattern: str, path: str) -> None:
    play = Play()
    play.event("open", play.process(), path=path or None, rawpath=None, ret=3)
    expected = bool(path) and fnmatch.fnmatchcase(path, pattern)
    assert bool(Filter(Spec(path=pattern)).wanted(play.batch())) is expected


def test_no_pattern_takes_long() -> None:
    play = Play()
    play.event("open", play.process(), path="a" * 4000, ret=3)
    batch = play.batch()
    began = time.process_time()
    assert Filter(Spec(path="*a" * 500 + "b")).wanted(batch) == []
    assert time.process_time() - began < 2.0  # a backtracking one would need longer than the universe has


def test_a_pattern_has_a_bound_and_an_unknown_event_is_named() -> None:
    with pytest.raises(OperatorError, match="1025 bytes"):
        Filter(Spec(exe="x" * (MAX_GLOB_BYTES + 1)))
    with pytest.raises(OperatorError, match="no event `opne`"):
        codes_of(["exec", "opne"])


def test_content_is_taken_out_and_nothing_else() -> None:
    assert without_content(DAY, Content.READ | Content.ENV) == DAY
    plain = without_content(DAY, Content.WRITE)
    for position, row in enumerate(DAY.events[:-1]):
        event, before = plain.event(position), DAY.event(position)
        assert event.to_json() == {k: v for k, v in before.to_json().items() if k != "content"}, row
    assert plain.events[-1] == DAY.events[-1]
