"""The audit log: every line parses, whatever is in it, and the files stay bounded."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from enforcer.audit import AuditLog
from execray.process import ProcessKey
from execray.service import Peer
from execray.wire.orders import Outcome, Result, encode_order
from tests.support.orders import make_order

LOG = logging.getLogger("test")
PEER = Peer(11, 12, 13)
ORDER = make_order(ProcessKey(4711, 1, "0f4cfd0c-1ca8-4f2d-b7d0-5a2e4f2f1f00"), policy='a"\n\x1b[2J\udcff')


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_lines_are_one_json_object_each_in_plain_ascii(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "orders.jsonl", LOG)
    audit.order(ORDER, PEER)
    audit.outcome(Outcome(ORDER.order_id, Result.REFUSED, "init", "pid 1", "enforcer", 5))
    audit.bad_line(PEER, "not a line of JSON", b'\xff\n{"what":"outcome"}\x1b')
    audit.refused_peer(PEER, "not permitted")
    audit.close()
    raw = (tmp_path / "orders.jsonl").read_bytes()
    assert raw.isascii() and b"\x1b" not in raw
    found = lines(tmp_path / "orders.jsonl")
    assert [line["what"] for line in found] == ["order", "outcome", "bad", "peer_refused"]
    assert found[0]["order"] == json.loads(encode_order(ORDER))
    assert all(line["peer"] == {"pid": 11, "uid": 12} for line in found if line["what"] != "outcome")
    assert all(str(line["time"]).endswith("+00:00") for line in found)


@pytest.mark.parametrize("spelling", ["{}\n", " {}\n", "{}\r\n", "{}\t\n", "{}\u2028\n", ""])
def test_order_is_recorded_as_it_came_only_where_it_can_stand_in_a_line(tmp_path: Path, spelling: str) -> None:
    # other spellings of JSON hold what ends a line, or moves a terminal's cursor
    audit = AuditLog(tmp_path / "orders.jsonl", LOG)
    audit.order(ORDER, PEER, spelling.format(encode_order(ORDER).decode().strip()).encode())
    audit.close()
    raw = (tmp_path / "orders.jsonl").read_bytes()
    assert raw.isascii() and raw.decode().removesuffix("\n").isprintable()
    assert json.loads(raw)["order"] == json.loads(encode_order(ORDER))


def test_log_is_for_its_owner_and_group_only(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "orders.jsonl", LOG)
    audit.order(ORDER, PEER)
    audit.close()
    assert not stat.S_IMODE((tmp_path / "orders.jsonl").stat().st_mode) & 0o007


def test_full_file_is_rotated_and_the_oldest_removed(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "orders.jsonl", LOG, max_bytes=2000, keep=2)
    for _ in range(100):
        audit.order(ORDER, PEER)
    audit.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.jsonl", "orders.jsonl.1", "orders.jsonl.2"]
    for path in tmp_path.iterdir():
        assert 0 < path.stat().st_size <= 2000 and lines(path)
    assert audit.lost == 0


def test_log_goes_on_where_it_was_after_a_restart_also_behind_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    for _ in range(2):
        audit = AuditLog(path, LOG)
        audit.order(ORDER, PEER)
        audit.close()
    assert len(lines(path)) == 2
    path.write_bytes(path.read_bytes()[:-10])  # killed in the middle of a write
    audit = AuditLog(path, LOG)
    audit.order(ORDER, PEER)
    audit.close()
    raw = path.read_bytes().splitlines()
    assert len(raw) == 3 and json.loads(raw[0]) and json.loads(raw[2])


def test_line_that_cannot_be_written_is_counted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    audit = AuditLog(tmp_path / "missing" / "orders.jsonl", LOG)
    audit.order(ORDER, PEER)
    audit.order(ORDER, PEER)
    assert audit.lost == 2
    assert [record.getMessage() for record in caplog.records] == ["audit line lost"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "orders.jsonl", LOG)
    audit.order(ORDER, PEER)
    full = os.open("/dev/full", os.O_WRONLY)
    assert audit._fd is not None
    os.dup2(full, audit._fd)
    os.close(full)
    audit.order(ORDER, PEER)
    audit.close()
    assert audit.lost == 1 and len(lines(tmp_path / "orders.jsonl")) == 1


def test_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "orders.jsonl").symlink_to("target")
    audit = AuditLog(tmp_path / "orders.jsonl", LOG)
    audit.order(ORDER, PEER)
    assert audit.lost == 1 and (tmp_path / "target").read_text() == "precious"
