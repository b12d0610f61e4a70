"""The example package, built and installed: its events are in the language, the sensor and alerts; a broken one harms nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.arena import Arena, eventually
from tests.support.plugin_folder import install

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "execray-example-syscalls"
#: What the example adds, done once each.
DOES = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void)
{
	struct rlimit old, limit;
	long quota = syscall(179, 0x80000700u, "/dev/nothing", 7, 0);
	long key = syscall(248, "user", "execray-test", "x", 1, 0);

	if (key < 0)
		key = -errno;
	getrlimit(RLIMIT_NOFILE, &old);
	limit.rlim_cur = 61;
	limit.rlim_max = old.rlim_max;
	syscall(302, 0, RLIMIT_NOFILE, &limit, 0);
	getrlimit(RLIMIT_NOFILE, &limit);
	printf("%ld %ld %ld %ld\n", quota, key, (long)limit.rlim_cur, (long)limit.rlim_max);
	return 0;
}
"""
POLICY = """
path "quota" { quotactl { exe = "ATTACKER-c" } as q on match { alert } }
path "key" { keyctl { exe = "ATTACKER-c" } on match { alert } }
path "limit" { prlimit { exe = "ATTACKER-c" limit.changed limit.resource = 7 limit.soft < 64 ret = 0 } on match { alert } }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built against this tree's headers, installed as pip would by setuptools alone; and three that are broken."""
    source, folder = tmp_path_factory.mktemp("example") / "source", tmp_path_factory.mktemp("packages")
    shutil.copytree(EXAMPLE, source)
    shutil.copy(ROOT / "vmlinux" / os.uname().machine / "vmlinux.h", source)
    headers = [f"EXECRAY_INCLUDE={ROOT / 'bpf' / 'include'}", "CLANG=clang-14", "STRIP=llvm-strip-14"]
    subprocess.run(["make", "-s", *headers], cwd=source, check=True, timeout=60)
    build = [sys.executable, "-W", "ignore", "-c", "from setuptools import setup; setup()", "-q", "build_py"]
    to = ["install_lib", "--install-dir", str(folder), "install_egg_info", "--install-dir", str(folder)]
    done = subprocess.run([*build, *to], cwd=source, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    broken(folder, "garbled", "api = 1\n[[event]]\n")
    broken(folder, "thief", 'api = 1\n[[event]]\nname = "open"\ndoc = "x"\nfields = []\ncalls = ["open 2 5"]\n')
    broken(
        folder,
        "noobject",
        'api = 1\n[[event]]\nname = "nothing"\ndoc = "x"\nfields = []\nobject = "bad.bpf.o"\ncalls = ["nothing 302 -"]\n',
    )
    (folder / "noobject" / "bad.bpf.o").write_bytes(b"\x7fELF nonsense")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def broken(folder: Path, name: str, table: str) -> None:
    install(folder, name, "", {"execray.syscalls": {"x": name}})
    (folder / f"{name}.py").unlink()
    (folder / name).mkdir()
    (folder / name / "execray.toml").write_text(table)


@pytest.fixture(scope="module")
def arena(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    place = tmp_path_factory.mktemp("arena")
    (place / "does.c").write_text(DOES)
    subprocess.run(["gcc", "-o", place / "attacker-c", place / "does.c"], check=True, timeout=60)
    with Arena(place, POLICY, mode="audit", policyd={"plugin_dir": str(folder)}) as made:
        yield made


def restart(arena: Arena) -> None:
    arena.stack.stop("tracerd")
    arena.stack.start("tracerd")


def alert_of(arena: Arena, policy: str) -> dict[str, Any]:
    return arena.await_alert(lambda alert: alert["rule"]["name"] == policy)


def test_calls_of_a_package_are_seen_and_alerted(arena: Arena) -> None:
    done = subprocess.run([arena.dir / "attacker-c"], capture_output=True, text=True, check=True, timeout=10)
    quota, key, soft, hard = map(int, done.stdout.split())
    assert (quota, soft) == (-1, 61)
    found = {name: alert_of(arena, name)["execray"]["trail"][0]["events"][0] for name in ("quota", "key", "limit")}
    assert found["quota"]["event"] == "quotactl" and found["quota"]["quota.device"] == "/dev/nothing"
    assert (found["quota"]["quota.cmd"], found["quota"]["quota.id"], found["quota"]["call"]) == (
        0x80000700,
        7,
        "quotactl",
    )
    assert (found["key"]["event"], found["key"]["ret"]) == ("keyctl", key)
    limit = found["limit"]
    assert (limit["limit.soft"], limit["limit.hard"], limit["limit.nr"], limit["ret"]) == (61, hard, 0, 0)


def test_the_language_and_doctor_know_them_and_say_what_is_left_out(arena: Arena, folder: Path) -> None:
    events = {event["name"]: event for event in json.loads(arena.ctl("policy", "events", "--json").stdout)["events"]}
    assert events["quotactl"]["hooks"] == ["tp_btf/sys_exit: quotactl, quotactl_fd"] and "nothing" in events
    assert events["prlimit"]["hooks"] == ["prlimit.bpf.o of execray_example_syscalls 1.0: prlimit64"]
    wrong = arena.dir / "wrong.policy"
    wrong.write_text('path "p" { quotactl { quota.cmd = "text" } }\n')
    assert (
        "ER0301" in (checked := arena.ctl("policy", "check", str(wrong))).stdout + checked.stderr
        or checked.returncode == 1
    )
    doctor = json.loads(arena.ctl("doctor", "--json").stdout)
    packages = {one["found"].split(" ")[0]: one["state"] for one in doctor["host"] if one["name"] == "package"}
    assert packages == {"execray_example_syscalls": "ok", "garbled": "note", "noobject": "ok", "thief": "note"}
    objects = {one["object"].split(" ")[0]: one for one in doctor["tracerd"]["objects"]}
    assert objects["prlimit.bpf.o"]["programs"][0]["attached"] and not objects["prlimit.bpf.o"]["refused"]
    assert "the kernel refuses bad.bpf.o" in objects["bad.bpf.o"]["refused"]
    assert objects["sys.bpf.o"]["loaded"] and doctor["tracerd"]["hooks"]["quotactl"]["attached"]


def test_what_only_one_end_has_is_said_and_nothing_else_suffers(arena: Arena, folder: Path) -> None:
    aside = arena.dir / "aside"
    (folder / "execray_example_syscalls").rename(aside)
    try:
        restart(arena)
        arena.await_watching()
    finally:
        aside.rename(folder / "execray_example_syscalls")
    listed = {one["name"]: one for one in json.loads(arena.ctl("policy", "list", "--json").stdout)["policies"]}
    assert listed["limit"]["effective"]["response"] == "blind"
    assert "restart tracerd" in listed["limit"]["effective"]["why"][0]
    assert listed["key"]["effective"]["response"] != "blind"
    restart(arena)
    arena.await_watching()

    def mended() -> bool:
        found = json.loads(arena.ctl("policy", "list", "--json").stdout)["policies"]
        return all(one["effective"]["response"] == "alert" for one in found)

    eventually(mended, 20)
