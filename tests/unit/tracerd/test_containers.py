"""tracerd.containers: every runtime's names, and what only looks like one."""

from __future__ import annotations

import pytest

from tracerd.containers import container_in_proc, container_of

ID = b"0123456789abcdef" * 4
OTHER = b"fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/docker/" + ID, ID),
        (b"/system.slice/docker-" + ID + b".scope", ID),
        (b"/system.slice/docker-" + ID + b".scope/init.scope", ID),
        (b"/kubepods/burstable/pod1d2a/" + ID, ID),
        (b"/kubepods.slice/kubepods-pod1d2a.slice/cri-containerd-" + ID + b".scope", ID),
        (b"/system.slice/containerd.service/kubepods-pod1d2a.slice:cri-containerd:" + ID, ID),
        (b"/machine.slice/libpod-" + ID + b".scope", ID),
        (b"/machine.slice/libpod-" + ID + b".scope/container", ID),
        (b"/libpod_parent/libpod-" + ID, ID),
        (b"/kubepods.slice/crio-" + ID + b".scope", ID),
        (b"/kubepods.slice/crio-conmon-" + ID + b".scope", None),
        (b"/machine.slice/libpod-conmon-" + ID + b".scope", None),
        (b"/machine.slice/systemd-nspawn@web.service/payload", b"web"),
        (b"/machine.slice/systemd-nspawn@web.service/supervisor", None),
        (rb"/machine.slice/machine-my\x2dweb.scope", b"my-web"),
        (rb"/machine.slice/machine-qemu\x2d1\x2dguest.scope", None),
        (b"/docker/" + ID + b"/docker/" + OTHER, OTHER),
        (b"/user.slice/user-1000.slice/session-4.scope", None),
        (b"/system.slice/ssh.service", None),
        (b"/", None),
        (b"/docker/" + ID[:-1], None),
        (b"/" + ID + b"0", None),
    ],
)
def test_the_innermost_container_by_the_names_of_cgroups(path: bytes, found: bytes | None) -> None:
    assert container_of(reversed(path.split(b"/"))) == found
    assert container_in_proc(b"9:pids:/elsewhere\n0::" + path + b"\n") == found


def test_any_hierarchy_of_proc_tells() -> None:
    assert container_in_proc(b"8:pids:/docker/" + ID + b"\n1:cpu:/\n0::/\n") == ID
    assert container_in_proc(b"") is None
