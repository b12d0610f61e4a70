"""Root is given up for good, and only CAP_KILL is kept."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from execray.capabilities import CAP_KILL
from execray.errors import OperatorError
from policyd.privileges import account

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give root up")

SCRIPT = """
import os, sys, threading
from policyd.privileges import account, become
become(account("nobody"))
def show():
    for line in open("/proc/thread-self/status"):
        if line.startswith(("Uid", "Gid", "Groups", "Cap", "NoNewPrivs")):
            print(line.strip())
show()
thread = threading.Thread(target=show); thread.start(); thread.join()
for attempt in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        attempt()
    except PermissionError:
        print("refused")
"""


def status_after() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=True, cwd="/"
    )
    return done.stdout.splitlines()


@needs_root
def test_user_groups_and_capabilities_are_as_they_should_be_in_every_thread() -> None:
    nobody = pwd.getpwnam("nobody")
    lines = status_after()
    facts = {tuple(line.split(":", 1)) for line in lines if ":" in line}
    values = {name: value.split() for name, value in facts}
    assert len(facts) == len(values), "a thread that differs"
    assert values["Uid"] == [str(nobody.pw_uid)] * 4 and values["Gid"] == [str(nobody.pw_gid)] * 4
    assert "0" not in values["Groups"]
    assert {int(values[name][0], 16) for name in ("CapEff", "CapPrm")} == {1 << CAP_KILL}
    assert {int(values[name][0], 16) for name in ("CapInh", "CapAmb")} == {0}
    assert values["NoNewPrivs"] == ["1"]


@needs_root
def test_there_is_no_way_back() -> None:
    assert status_after()[-4:] == ["refused"] * 4


def test_a_user_that_does_not_exist_is_an_operator_error() -> None:
    with pytest.raises(OperatorError, match="no user `no-such-user`"):
        account("no-such-user")
