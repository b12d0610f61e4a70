"""The logs of a whole run: each line is one of the vocabulary, and none has a secret."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial
from pathlib import Path

from deploy.foreground.stack import DAEMONS
from execray.logs import parse_line
from execray.logwords import KEYS, WORDS
from tests.support.arena import Arena, eventually, killed

EVIL = '\nlevel=error daemon=enforcer event="bug" x='


def _ended(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1 << 16)
    except ConnectionResetError:
        return True


def test_every_line_is_one_of_the_vocabulary_and_has_no_secret(tmp_path: Path, collector: int) -> None:
    policy = """
    policy "theft" response enforce {
        open    { path = "DECOY" exe = "ATTACKER" } as theft
        connect { family in [AF_INET, AF_INET6] }
        write   { content contains "root:" }
        on step theft { log; capture }
        on match      { alert critical; log; kill }
    }
    """
    with Arena(tmp_path, policy, log_level="debug") as arena:
        arena.write_policy("broken" + EVIL + ".policy", 'policy "x" { open { pth = "a" } }')
        assert arena.ctl("reload").returncode == 1
        attack = arena.attack(collector, "--password=hunter2" + EVIL)
        attack.step(3)
        assert killed(attack.wait())
        arena.await_alert(lambda alert: "hunter2" in str(alert))
        for name in DAEMONS:
            for path in (arena.stack.runtime_dir / name).glob("*.sock"):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(path))
                    sock.sendall(b"nonsense" + EVIL.encode() + b"\n" + b"x" * 4096)
                    sock.shutdown(socket.SHUT_WR)
                    eventually(partial(_ended, sock))
        arena.stack.stop("enforcer", signal.SIGKILL)
        eventually(lambda: not arena.status("policyd")["enforcer"]["connected"])
        arena.stack.start("enforcer")
        for name in DAEMONS:
            arena.stack.stop(name)
        logs = {name: (tmp_path / f"{name}.log").read_text() for name in DAEMONS}
    events = set()
    for name, text in logs.items():
        for secret in ("hunter2", "root:$6$decoy"):
            assert secret not in text
        for line in text.splitlines():
            found = parse_line(line)
            word = WORDS[found["event"]]
            assert found["daemon"] == name in word.daemons
            assert set(found) - {"time", "level", "daemon", "event"} <= set(word.keys) <= set(KEYS)
            assert word.level in (found["level"], "any")
            events.add(found["event"])
    assert {"started", "stopped", "policies refused", "policy log", "kill", "no enforcer", "bad order"} <= events
    assert "bug" not in events and os.listdir(tmp_path / "policies")
