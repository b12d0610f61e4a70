"""How full the kernel's tables and the ring are, and which programs the kernel skipped."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
from random import Random

import pytest

from execray.gate.plan import GatePlan
from execray.schema.catalog import EVENT_BY_NAME
from tests.support.gates import random_plan
from tests.support.live import Live
from tracerd.bpf import Map, MapType
from tracerd.loader import Program

EVENTS = ["open"]


@pytest.mark.parametrize("count", [0, 1, 4096, 10_000])
def test_a_hash_is_counted_whole(count: int) -> None:
    table = Map.create(MapType.HASH, "er_test", 4, 16, 10_000)
    try:
        for number in range(count):
            table.update(struct.pack("<I", number), bytes(16))
        assert table.count() == count
    finally:
        table.close()


def test_every_hash_and_the_plan_in_use_have_their_fill_and_bound(live: Live) -> None:
    before = live.sensor.tables()
    assert all(0 <= table["used"] <= table["max"] for table in before.values())
    assert before["er_creds"]["used"] >= len(os.listdir("/proc/self/task"))
    live.sensor.hide(os.getpid(), 1)
    try:
        assert live.sensor.tables()["er_self"]["used"] == before["er_self"]["used"] + 1
    finally:
        live.sensor.show(os.getpid(), 1)
    assert "gate_rows" not in before


def test_a_plan_fills_its_tables_until_there_is_none(live: Live) -> None:
    plan = random_plan(Random(3))
    codes = [EVENT_BY_NAME["open"].code]
    live.sensor.want(codes, False, plan=plan)
    tables = live.sensor.tables()
    assert tables["gate_rows"] == {"used": len(plan.rows), "max": 4096}
    assert tables["gate_keys"] == {"used": len(plan.keys), "max": 8192}
    assert 0 < tables["gate_bits"]["used"] <= tables["gate_bits"]["max"] == 4096
    live.sensor.want(codes, False)
    assert "gate_rows" not in live.sensor.tables()


def test_the_gate_names_the_events_that_its_plan_leaves_open(live: Live) -> None:
    codes = [EVENT_BY_NAME[name].code for name in ("open", "exec")]
    live.sensor.want(codes, False, plan=GatePlan(open_codes=frozenset(codes)))
    assert live.sensor.gate_status()["open"] == ["open"]
    live.sensor.want(codes, False)
    assert live.sensor.gate_status()["open"] == []


def test_the_ring_remembers_how_full_it_was() -> None:
    opens = 5000
    argv = [sys.executable, "-I", "-S", "-c", f"for number in range({opens}): open('/etc/hostname').close()"]
    with Live(["open"], ring_bytes=1 << 24) as live:
        live.drain()
        subprocess.run(argv, check=True)  # and nobody reads meanwhile
        live.drain()
        most = live.sensor.ring.used_max_bytes
        assert opens * 100 < most <= live.sensor.ring.size_bytes
        live.drain()
        assert live.sensor.ring.used_max_bytes >= most


def test_what_the_kernel_skipped_is_counted_by_program(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.sensor.misses() == {}  # nothing here runs inside itself
    info = Program.info
    skipped = {"er_exec": 2, "er_sys_exit": 5}
    monkeypatch.setattr(
        Program, "info", lambda self: dataclasses.replace(info(self), recursion_misses=skipped.get(self.name, 0))
    )
    assert live.sensor.misses() == skipped
    shown = {one["name"]: one["recursion_misses"] for item in live.sensor.doctor() for one in item["programs"]}
    assert shown["er_sys_exit"] == 5 and shown["er_fork"] == 0
