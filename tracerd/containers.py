r"""Which container a process is in, by the names of its cgroups: every runtime names its cgroup after the container.

| runtime | with systemd's cgroups | with its own |
|---|---|---|
| Docker | `docker-ID.scope` | `/docker/ID` |
| containerd | `cri-containerd-ID.scope`, `...slice:cri-containerd:ID` | `/kubepods/.../ID` |
| Podman | `libpod-ID.scope` | `libpod-ID` |
| CRI-O | `crio-ID.scope` | `crio-ID` |
| systemd-nspawn | `systemd-nspawn@NAME.service`, `machine-NAME.scope` | |

An ID has 64 hexadecimal digits. What only watches a container (conmon, the supervisor of systemd-nspawn) isn't in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_ID: Final = re.compile(rb"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
_MACHINE: Final = re.compile(rb"^(?:systemd-nspawn@(.+)\.service|machine-(.+)\.scope)$")
_ESCAPED: Final = re.compile(rb"\\x([0-9a-f]{2})")
#: libvirt's virtual machines have scopes like a container's.
_VIRTUAL_MACHINE: Final = b"qemu-"


def container_of(names: Iterable[bytes]) -> bytes | None:
    """Returns the innermost container's id or name, None outside all. names: of cgroups, the process's own first."""
    below = b""
    for name in names:
        found = _ID.search(name)
        if found and b"conmon" not in name:
            return found[1]
        machine = _MACHINE.match(name)
        if machine and below != b"supervisor":
            plain = _ESCAPED.sub(lambda code: bytes([int(code[1], 16)]), machine[1] or machine[2])
            if not plain.startswith(_VIRTUAL_MACHINE):
                return plain
        below = name
    return None


def container_in_proc(cgroup_file: bytes) -> bytes | None:
    """Returns the same by the text of /proc/PID/cgroup, whose lines are `ID:CONTROLLERS:PATH`, v2 last."""
    for line in reversed(cgroup_file.splitlines()):
        path = line.split(b":", 2)[-1]
        found = container_of(reversed(path.split(b"/")))
        if found is not None:
            return found
    return None
