"""The shipped policies on the real kernel, as they are shipped: audit. Exactly what they say, and their exceptions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import Arena, eventually
from tests.support.live import PRELUDE, sleeper

NOBODY = 65534
SHIPPED = Path("policies").resolve()


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "shipped").mkdir(mode=0o755)
    for policy in SHIPPED.glob("*.policy"):
        shutil.copy(policy, folder / "shipped")
    settings: dict[str, Any] = {"policyd": {"policy_dirs": [str(folder / "shipped")]}, "mode": "enforce"}
    with Arena(folder, **settings) as running:
        yield running


def run(code: str, *args: object, uid: int | None = None, name: str = "") -> subprocess.CompletedProcess[str]:
    """Runs Python code (after PRELUDE), under another comm where name says so."""
    rename = f"libc.prctl(15, {name.encode()!r}, 0, 0, 0)\n" if name else ""
    command = ["/usr/bin/python3", "-I", "-S", "-c", PRELUDE + rename + code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True, user=uid)


def pid_of(done: subprocess.CompletedProcess[str]) -> int:
    return int(done.stdout.split()[0])


def policies_on(arena: Arena, pid: int) -> set[str]:
    """The policies that raised an alert on a process, once a later process's alert shows that all has been seen."""
    mark = run("print(os.getpid()); syscall(105, 0)", uid=NOBODY, name="execray-mark")
    arena.await_alert(lambda a: a.get("process", {}).get("pid") == pid_of(mark))
    return {a["execray"]["policy"] for a in arena.alerts() if a.get("process", {}).get("pid") == pid}


ATTACH = "print(os.getpid()); print(syscall(101, {request}, int(sys.argv[1]), 0, 0))"


@pytest.mark.parametrize("request_number", [16, 0x4206], ids=["attach", "seize"])
def test_t1055_another_users_process_attaches(arena: Arena, request_number: int) -> None:
    with sleeper(NOBODY) as target:
        done = run(ATTACH.format(request=request_number), target.pid, uid=NOBODY)
    assert len(policies_on(arena, pid_of(done))) == 1
    (alert,) = [a for a in arena.alerts() if a.get("process", {}).get("pid") == pid_of(done)]
    assert alert["execray"]["severity"] == "critical"
    assert "T1055" in "".join(alert["execray"]["attack"])
    assert alert["execray"]["action"]["kill"]["result"] == "would_kill"
    assert alert["execray"]["trail"][0]["events"][0]["target.pid"] == target.pid


def test_t1055_root_may(arena: Arena) -> None:
    with sleeper(NOBODY) as target:
        done = run(ATTACH.format(request=16) + "; os.waitpid(int(sys.argv[1]), 0x40000000)", target.pid)
    assert policies_on(arena, pid_of(done)) == set()


def test_t1055_a_parent_may_attach_to_its_child(arena: Arena) -> None:
    code = """
print(os.getpid(), flush=True)
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
print(syscall(101, 16, child, 0, 0))
os.kill(child, 9)
"""
    done = run(code, uid=NOBODY)
    assert done.stdout.split()[1] == "0"
    assert policies_on(arena, pid_of(done)) == set()


def test_t1055_other_requests_are_nobodys_business(arena: Arena) -> None:
    with sleeper(NOBODY) as target:
        done = run(ATTACH.format(request=1), target.pid, uid=NOBODY)  # PEEKTEXT
    assert policies_on(arena, pid_of(done)) == set()


def test_t1068_setuid_0_by_a_program_off_the_list(arena: Arena) -> None:
    done = run("print(os.getpid(), syscall(105, 0))", uid=NOBODY, name="exploit")
    found = policies_on(arena, pid_of(done))
    assert len(found) == 2  # by name, and by path
    alerts = [a for a in arena.alerts() if a.get("process", {}).get("pid") == pid_of(done)]
    assert {a["execray"]["severity"] for a in alerts} == {"critical"}
    assert {a["execray"]["action"]["kill"]["result"] for a in alerts} == {"would_kill"}


def test_t1068_a_forged_name_fools_only_one_of_the_two(arena: Arena) -> None:
    done = run("print(os.getpid(), syscall(105, 0))", uid=NOBODY, name="sudo")
    assert len(policies_on(arena, pid_of(done))) == 1


def test_t1068_root_and_other_ids_are_nobodys_business(arena: Arena) -> None:
    assert policies_on(arena, pid_of(run("print(os.getpid(), syscall(105, 0))"))) == set()
    assert policies_on(arena, pid_of(run(f"print(os.getpid(), syscall(105, {NOBODY}))", uid=NOBODY))) == set()


def test_t1003_hashes_read_then_passed_on(arena: Arena, tmp_path: Path) -> None:
    code = "print(os.getpid(), flush=True); d = open('/etc/shadow').read(); os.write(os.open(sys.argv[1], 65), b'x')"
    done = run(code, tmp_path / "loot")
    assert policies_on(arena, pid_of(done)) == {"credential_access"}
    quiet = run("print(os.getpid(), flush=True); os.write(1, b''); d = open('/etc/shadow').read()")
    assert policies_on(arena, pid_of(quiet)) == set()


def test_dropper_made_armed_and_run(arena: Arena) -> None:
    folder = Path(subprocess.check_output(["mktemp", "-d", "/var/tmp/execray-test-XXXXXX"], text=True).strip())
    try:
        code = """
import shutil
shutil.copyfile("/bin/true", sys.argv[1]); os.chmod(sys.argv[1], 0o755)
pid = os.fork()
if pid == 0: os.execv(sys.argv[1], ["dropped"])
os.waitpid(pid, 0); print(pid)
"""
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + code, folder / "dropped"], capture_output=True, text=True, check=True
        )
        assert "dropper" in policies_on(arena, pid_of(done))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/proc/{}/mem", {"memory_of_another_read"}),
        ("/proc/self/../{}/mem", {"memory_of_another_read"}),
        ("/proc/thread-self/root/proc/{0}/task/{0}/mem", {"memory_of_another_read"}),
        ("/proc/self/mem", set()),
        ("/proc/thread-self/mem", set()),
    ],
)
def test_t1003_memory_of_another_however_it_is_called(arena: Arena, path: str, found: set[str]) -> None:
    with sleeper() as target:
        done = run("print(os.getpid()); os.open(sys.argv[1], os.O_RDONLY)", path.format(target.pid))
    assert policies_on(arena, pid_of(done)) == found


def test_nobody_is_killed_by_what_is_shipped(arena: Arena) -> None:
    eventually(lambda: arena.status("policyd")["stream"]["connected"])
    assert arena.status("enforcer")["killed"] == 0
    assert not [a for a in arena.alerts() if a["execray"].get("action", {}).get("kill", {}).get("result") == "killed"]
