"""bpf/include/execray/syscalls.h: the 32-bit entry points of every call."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, shown

EVENTS = ["exec", "open", "write", "chmod", "connect", "setuid"]
E = CONSTANTS["E"]

INT80 = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <fcntl.h>
static long int80(long nr, long a, long b, long c, long d)
{
	long ret;
	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}
int main(int argc, char **argv)
{
	char *low = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	strcpy(low, argv[1]);
	strcpy(low + 4096, "through int 0x80");
	long fd = int80(5, (long)low, O_CREAT | O_WRONLY, 0600, 0);   /* open */
	int80(4, fd, (long)low + 4096, 16, 0);                        /* write */
	int80(15, (long)low, 0711, 0, 0);                             /* chmod */
	uint32_t *iov = (uint32_t *)(low + 8192);
	iov[0] = (uint32_t)(uintptr_t)(low + 4096);
	iov[1] = 7;
	int80(146, fd, (long)iov, 1, 0);                              /* writev */
	uint16_t *sa = (uint16_t *)(low + 12288);                     /* sockaddr_in 127.0.0.1:9, no listener */
	sa[0] = 2; sa[1] = 0x0900; *(uint32_t *)(sa + 2) = 0x0100007f;
	uint32_t *args = (uint32_t *)(low + 16384);
	args[0] = 2; args[1] = 1; args[2] = 0;
	long s = int80(102, 1, (long)args, 0, 0);                     /* socketcall(SYS_SOCKET) */
	args[0] = s; args[1] = (uint32_t)(uintptr_t)sa; args[2] = 16;
	int80(102, 3, (long)args, 0, 0);                              /* socketcall(SYS_CONNECT) */
	int80(208, 31, 32, 0, 0);                                     /* setresuid32 */
	int80(11, (long)low + 4096, 0, 0, 0);                         /* execve of a name that isn't there */
	return fd < 0;
}
"""


@pytest.fixture(scope="module")
def int80(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if prebuilt := os.environ.get("EXECRAY_INT80"):  # where there is no compiler: tests/vm
        return Path(prebuilt)
    folder = tmp_path_factory.mktemp("int80")
    (folder / "int80.c").write_text(INT80)
    subprocess.run(["gcc", "-O1", "-w", "-o", folder / "int80", folder / "int80.c"], check=True)
    return folder / "int80"


def test_32_bit_entry_points_are_the_same_events(live: Live, int80: Path, tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "compat")
    run = live.run([int80, tmp_path / "compat"])
    assert run.status == 0
    opened = run.one("open", path=target)
    assert Flag.COMPAT_ABI in opened.flags and opened.get("mode") == 0o600
    assert run.one("write", content=b"through int 0x80").get("path") == target
    assert run.one("write", content=b"through").get("len") == 7
    assert run.one("chmod", rawpath=target).get("mode") == 0o711
    assert shown(run.one("connect", dst__port=9), "dst.ip") == "127.0.0.1"
    assert run.one("setuid").get("new.euid") == 32
    assert run.one("exec", filename=b"through int 0x80").get("ret") == -E["ENOENT"]
