"""bpf/include/execray/calls/creds.h: ids before and after."""

from __future__ import annotations

import subprocess
import sys

from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live

EVENTS = ["setuid"]
E = CONSTANTS["E"]


def test_setuid_has_old_and_new_ids(live: Live) -> None:
    run = live.python("""
        print(syscall(117, 1234, 1234, 0), syscall(117, 0, 0, 0), syscall(113, 77, 88), syscall(105, 99))
    """)
    assert run.stdout.split() == ["0", "0", "0", str(-E["EPERM"])]
    calls = [
        tuple(e.get(n) for n in ("call", "old.uid", "old.euid", "new.uid", "new.euid", "ret")) for e in run.of("setuid")
    ]
    assert calls == [
        (b"setresuid", 0, 0, 1234, 1234, 0),
        (b"setresuid", 1234, 1234, 0, 0, 0),
        (b"setreuid", 0, 0, 77, 88, 0),
        (b"setuid", 77, 88, 99, 99, -E["EPERM"]),
    ]


def test_minus_one_leaves_an_id_as_it_is(live: Live) -> None:
    run = live.python("syscall(113, -1, 55); syscall(113, -1, 0)")
    first, second = run.of("setuid")
    assert (first.get("new.uid"), first.get("new.euid")) == (0, 55)
    assert (second.get("old.euid"), second.get("new.uid"), second.get("ret")) == (55, 0, 0)


def test_ids_before_the_sensor_came_are_known_from_the_scan() -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            "import ctypes, sys; c = ctypes.CDLL(None); c.syscall(117, 4321, 4321, 0); print('ready', flush=True);"
            "sys.stdin.readline(); c.syscall(105, 0)",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        with Live(["setuid"]) as live:
            child.stdin.write("go\n")
            child.stdin.flush()
            (event,) = [e for e in live.collect(child.pid) if e.type.name == "setuid"]
        assert (event.get("old.uid"), event.get("old.euid")) == (4321, 4321)
        assert Flag.OLD_CREDS_UNKNOWN not in event.flags
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_ids_that_changed_while_nobody_listened_are_learned_anew() -> None:
    """A daemon that gave up root before anybody asked for set*id calls must not look like root still."""
    code = (
        "import ctypes, sys; c = ctypes.CDLL(None); print('ready', flush=True); sys.stdin.readline();"
        "c.syscall(117, 1000, 1000, 0); print('gave up', flush=True); sys.stdin.readline(); c.syscall(105, 0)"
    )
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin and child.stdout
    try:
        assert child.stdout.readline() == "ready\n"
        with Live(["fork"]) as live:
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "gave up\n"
            live.want(["setuid"])
            child.stdin.write("go\n")
            child.stdin.flush()
            (event,) = [e for e in live.collect(child.pid) if e.type.name == "setuid"]
        assert event.get("old.uid") == 1000
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_thread_has_ids_of_its_own(live: Live) -> None:
    run = live.python("""
        def change():
            syscall(117, 500, 500, 0)
        thread = threading.Thread(target=change); thread.start(); thread.join()
        syscall(117, 600, 600, 0)
    """)
    assert run.one("setuid", new__uid=500).get("old.uid") == 0
    assert run.one("setuid", new__uid=600).get("old.uid") == 0
