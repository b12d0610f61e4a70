"""A small alert of the documented shape, for tests that show or store one."""

from __future__ import annotations

from typing import Any


def sample_alert(number: str = "5f0c1d2e9a7b4c3d", **own: Any) -> dict[str, Any]:
    """Returns an alert of two steps, killed by the enforcer. own: replaces fields of `execray`."""
    actor = {"proc.id": "4711-1000", "pid": 4711, "name": "thief", "comm": "thief"}
    opened = {"event": "open", "id": 7, "time_ns": 5_000_000_000, "tid": 4711, **actor}
    opened |= {"path": "/etc/shadow", "flags": 0, "ret": 3}
    wrote = {"event": "write", "id": 9, "time_ns": 5_001_500_000, "tid": 4711, **actor}
    wrote |= {"fd": 4, "path": "socket:", "len": 27, "content": "root:$6$\n", "ret": 27}
    return {
        "@timestamp": "2026-01-31T12:00:00.000001Z",
        "message": "high: credential_access by thief[4711], killed",
        "event": {"id": number, "kind": "alert"},
        "rule": {"id": "xr-1", "name": "credential_access", "description": "Reads password hashes."},
        "host": {"hostname": "host1", "boot": {"id": "b"}},
        "process": {
            "name": "thief",
            "pid": 4711,
            "executable": "/tmp/thief",
            "command_line": "/tmp/thief --now",
            "user": {"id": "1000"},
            "parent": {"name": "bash", "pid": 4000, "executable": "/usr/bin/bash"},
        },
        "execray": {
            "alert_id": number,
            "kind": "match",
            "severity": "high",
            "policy": "credential_access",
            "attack": ["T1003.008"],
            "trail": [
                {"step": "open { path = ... }", "place": "p:1:1", "labels": [], "count": 1, "events": [opened]},
                {"step": "write { }", "place": "p:2:1", "labels": ["send"], "count": 3, "events": [wrote]},
            ],
            "suppressed": 0,
            "action": {"kill": {"result": "killed", "by": "enforcer", "latency_us": 1830}},
            **own,
        },
    }
