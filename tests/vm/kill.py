"""Run in the guest: the three daemons, an attack in three steps, and the enforcer ends it.

As tests/e2e has it, but with the patience that a processor ten times slower needs: by default policyd kills by itself when the
enforcer hasn't answered within 100 ms, and who killed is the point here.
"""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support.arena import Arena, eventually, killed


def test_the_enforcer_ends_the_attacker_and_nothing_was_lost(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as collector,
        Arena(tmp_path, enforcer={"capture_interface": "lo"}, policyd={"order_timeout_ms": 10_000}) as arena,
    ):
        port = collector.getsockname()[1]
        attack = arena.attack(port)
        attack.step(2)
        orders = tmp_path / "state" / "enforcer" / "orders.jsonl"
        eventually(lambda: orders.exists() and '"capturing"' in orders.read_text())
        attack.step()
        assert killed(attack.wait())
        alert = arena.await_alert(lambda found: found.get("process", {}).get("pid") == attack.pid)
        own = alert["execray"]
        kill = own["action"]["kill"]
        assert (kill["result"], kill["by"]) == ("killed", "enforcer"), kill
        assert [step["events"][0]["event"] for step in own["trail"]] == ["open", "connect", "write"]
        eventually(lambda: arena.status("enforcer")["captures"]["running"] == 0)
        (pcap,) = (tmp_path / "state" / "captures").glob("*.pcap")
        read = subprocess.run(["tcpdump", "-nn", "-A", "-r", pcap], capture_output=True, check=True).stdout
        assert b"root:$6$decoy" in read
        lost = arena.status("tracerd")["lost"]
        assert not own["tainted"], f"killed, but over a gap: lost {lost}"
