"""policyd is killed (SIGKILL) at any moment, again and again: no alert is given twice, and what is lost is told."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.arena import Arena, eventually
from tests.support.pace import patient

pytestmark = pytest.mark.timeout(180)

#: Each file that is made is a match of its own.
MADE = """
path "made" response audit {
    throttle 10000 per 1s
    create { path startswith "FOLDER/", exe = "ATTACKER" }
    on match { alert low }
}
"""
FILES = 900
KILLS = 4
#: Makes them one after the other, by itself alone; and reads from a descriptor until a time is over, since it has no sleep.
MAKES = 'for ((i = 0; i < $1; i++)); do : >"$2/$i"; read -r -t 0.01 _; done; echo done; read -r _'


def made(arena: Arena) -> list[str]:
    """The names of the files that alerts are about, in the order of the file."""
    found = [a["execray"]["trail"][0]["events"][0] for a in arena.alerts() if a["execray"].get("policy") == "made"]
    return [str(event["path"]).rpartition("/")[2] for event in found]


def test_each_match_is_alerted_once_however_often_policyd_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    source = random.Random(seed)
    folder = tmp_path / "made"
    folder.mkdir()
    with Arena(tmp_path, MADE.replace("FOLDER", str(folder))) as arena:
        command = [str(arena.attacker), "-c", MAKES, "makes", str(FILES), str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as makes:
            assert makes.stdout is not None
            for _ in range(KILLS):
                seen = len(made(arena))
                eventually(lambda seen=seen: len(made(arena)) > seen + 5)  # type: ignore[misc]  # a default is untyped
                time.sleep(source.random() * 0.1)  # any moment between two acknowledgements
                arena.stack.stop("policyd", signal.SIGKILL)
                arena.stack.start("policyd")
            assert makes.stdout.readline() == b"done\n"
            eventually(lambda: len(set(made(arena))) == FILES, patient(20))
            makes.kill()
        status = arena.status("policyd")
    assert {name: count for name, count in Counter(made(arena)).items() if count > 1} == {}, f"seed {seed}"
    assert status["lost"] == {"restart of policyd": 0}


def test_a_sequence_that_had_begun_is_forgotten_and_that_is_told(tmp_path: Path, collector: int) -> None:
    with Arena(tmp_path) as arena:
        attack = arena.attack(collector)
        attack.step(2)
        eventually(lambda: arena.status("policyd")["engine"]["partials"] >= 1)
        newest = arena.status("tracerd")["buffer"]["newest"]
        eventually(lambda: arena.status("tracerd")["buffer"]["done"] >= newest >= 0)
        assert not arena.alerts()
        arena.stack.stop("policyd", signal.SIGKILL)
        arena.stack.start("policyd")
        attack.step(2)
        assert attack.wait() == 0
        loss = arena.await_alert(lambda alert: alert["execray"]["kind"] == "sensor_loss")
        assert list(loss["execray"]["lost"]) == ["restart of policyd"]
        assert [alert["execray"]["kind"] for alert in arena.alerts()] == ["sensor_loss"]
