"""Short turns: asked for in a process of their own, and read back from the kernel."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from execray.scheduling import SLICE_NS

#: Asks, and prints what the kernel has of a thread made later: policy, niceness, turn in ns.
_ASK = """
import ctypes, json, os, struct, sys, threading
from execray.scheduling import take_short_turns
os.setpriority(os.PRIO_PROCESS, 0, 3)
if sys.argv[1:] == ["batch"]:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
taken, found = take_short_turns(), []
def look():
    raw = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, 0, raw, 48, 0) == 0
    _, policy, _, nice, _, runtime, _, _ = struct.unpack("<IIQiIQQQ", raw.raw)
    found.extend([policy, nice, runtime])
thread = threading.Thread(target=look)
thread.start()
thread.join()
print(json.dumps([taken, *found]))
"""

pytestmark = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="its number isn't known here")


def ask(*arguments: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _ASK, *arguments], capture_output=True, text=True, check=True)
    found: list[int] = json.loads(done.stdout)
    return found


def test_a_process_that_asked_has_short_turns_and_its_niceness_in_all_threads() -> None:
    taken, policy, nice, turn = ask()
    assert (taken, policy, nice) == (True, os.SCHED_OTHER, 3)
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release >= (6, 12):
        assert turn == SLICE_NS


def test_who_was_given_another_way_of_scheduling_keeps_it() -> None:
    taken, policy, nice, _ = ask("batch")
    assert (taken, policy, nice) == (False, os.SCHED_BATCH, 3)
