"""What runs once `reload` has answered, runs in the kernel too: the very next call counts."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.arena import Arena, eventually

pytestmark = pytest.mark.timeout(120)

ROUNDS = 100
KILLS = 20
#: By turns one of the two, so that what the round before wanted is of no use.
WATCH = """
policy "watch" key process response enforce {
    throttle 1000 per 1s
    open { path = "FILE" ret >= 0 }
    on match { alert; HANDLE }
}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="xr-reload-", dir="/run"))
    yield path
    shutil.rmtree(path)


def load(arena: Arena, file: Path, handle: str) -> None:
    arena.write_policy("theft.policy", WATCH.replace("FILE", str(file)).replace("HANDLE", handle))
    with arena.stack.control("policyd", 30) as control:
        report = control.call("reload")
    assert (report["ok"], report["sensor"]) == (True, "taken")


def test_the_first_call_after_a_reload_is_seen_by_the_new_policies(folder: Path) -> None:
    files = [folder / "file-a", folder / "file-b"]
    for file in files:
        file.touch()
    with Arena(folder, WATCH.replace("FILE", str(files[1])).replace("HANDLE", "log")) as arena:
        for number in range(ROUNDS):
            load(arena, files[number % 2], "log")
            files[number % 2].open().close()
            # before the next ones come, by which it would be nothing
            eventually(partial(has_found, arena, number + 1), 5)
        assert has_found(arena, ROUNDS)


def has_found(arena: Arena, count: int) -> bool:
    return bool(arena.status("policyd")["alerts"]["matches"] == count)


def test_the_kernel_kills_by_the_new_policies_once_a_reload_has_answered(folder: Path) -> None:
    files = [folder / "file-a", folder / "file-b"]
    for file in files:
        file.write_text("secret\n")
    nothing = WATCH.replace("FILE", "/nowhere").replace("HANDLE", "kill")
    limits = {"kills_per_minute": 100, "kills_per_minute_per_policy": 100}
    with Arena(folder, nothing, tracerd={"inline": "on"}, enforcer=limits) as arena:
        for number in range(KILLS):
            load(arena, files[number % 2], "kill")
            script = f'read -r stolen < {files[number % 2]}; echo "$stolen"'
            done = subprocess.run([arena.attacker, "-c", script], stdout=subprocess.PIPE, check=False, timeout=20)
            assert (done.returncode, done.stdout) == (-signal.SIGKILL, b""), f"round {number}"
        eventually(lambda: arena.status("policyd")["kills"].get("killed") == KILLS)
        assert arena.status("tracerd")["inline"]["killed"] == KILLS
