"""What one process does to another, to its own rights, to its memory, and to the kernel."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import PRELUDE, Live, sleeper
from tests.support.pace import patient
from tests.support.paths import kernel_id

EVENTS = [
    *(
        "kill",
        "procmem",
        "capset",
        "setgid",
        "prctl",
        "personality",
        "keyctl",
        "memfd_create",
        "mmap",
        "mprotect",
        "bpf",
    ),
    *("perf_event_open", "userfaultfd", "io_uring_setup", "kexec", "module_load", "module_unload"),
]
E = CONSTANTS["E"]


def test_every_way_to_signal_names_the_target(live: Live) -> None:
    with sleeper() as target:
        run = live.python(
            """
            pid = int(sys.argv[1]); info = buf(struct.pack("iii", 0, 0, -1) + bytes(116))
            fd = syscall(434, pid, 0)
            assert [syscall(62, pid, 0), syscall(200, pid, 0), syscall(234, pid, pid, 0)] == [0, 0, 0]
            assert syscall(424, fd, 0, 0, 0) == 0
            assert syscall(129, pid, 0, info) == syscall(297, pid, pid, 0, info) == 0
            assert syscall(62, pid, 15) == 0 and syscall(62, 0x7ffffff0, 9) == -3 and syscall(62, 0, 0) == 0
            """,
            target.pid,
        )
        assert target.wait(patient(10)) == -signal.SIGTERM
    *probes, term, nobody, group = run.of("kill")
    assert [e.get("target.pid") for e in probes] == [target.pid] * 6
    assert [e.get("target.nr") for e in probes] == [target.pid] * 3 + [None] + [target.pid] * 2
    assert {e.get("target.exe") for e in probes} == {os.fsencode(os.path.realpath("/bin/sleep"))}
    assert (term.get("sig"), term.get("target.pid"), term.get("ret")) == (signal.SIGTERM, target.pid, 0)
    assert (nobody.get("sig"), nobody.get("target.id"), nobody.get("ret")) == (9, None, -E["ESRCH"])
    assert (group.get("target.nr"), group.get("target.id")) == (0, None)


def test_both_ways_into_anothers_memory(live: Live) -> None:
    code = "import ctypes, sys; b = ctypes.create_string_buffer(8); print(ctypes.addressof(b), flush=True);"
    run = live.python(f"""
        import subprocess
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", {code!r} + "sys.stdin.readline(); print(b.raw)"],
            stdin=-1, stdout=-1, text=True)
        at = int(child.stdout.readline()); ours = buf(b"abcd")
        local = buf(struct.pack("QQ", ctypes.addressof(ours), 4)); remote = buf(struct.pack("QQ", at, 4))
        assert syscall(311, child.pid, local, 1, remote, 1, 0) == 4
        os.symlink(f"/proc/{{child.pid}}/mem", f"/tmp/execray-{{child.pid}}")
        fd = os.open(f"/tmp/execray-{{child.pid}}", os.O_WRONLY); os.unlink(f"/tmp/execray-{{child.pid}}")
        assert os.pwrite(fd, b"efg", at + 4) == 3
        os.write(1, b"no memory of others\\n")
        print(child.communicate("\\n")[0], child.pid)
    """)
    assert "b'abcdefg" in run.stdout
    pid = int(run.stdout.split()[-1])
    by_call, by_file = run.of("procmem")
    assert (by_call.get("call"), by_call.get("target.pid"), by_call.get("ret")) == (b"process_vm_writev", pid, 4)
    assert (by_file.get("call"), by_file.get("target.pid"), by_file.get("len")) == (b"pwrite64", pid, 3)


def test_capset_tells_what_is_left(live: Live) -> None:
    run = live.python("""
        header = buf(struct.pack("Ii", 0x20080522, 0)); keep = 1 << 5 | 1 << 12
        assert syscall(126, header, buf(struct.pack("6I", 1 << 5, keep, 0, 1, 1, 0))) == 0
        print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm"))))
    """)
    permitted, effective = (int(text, 16) for text in run.stdout.split())
    event = run.one("capset")
    assert (event.get("caps.new"), event.get("caps.new_permitted")) == (effective, permitted)
    assert effective == CONSTANTS["CAP_"]["CAP_KILL"] | 1 << 32


CAPSET = """
def caps(effective, permitted):
    both = struct.pack("6I", effective & 0xffffffff, permitted & 0xffffffff, 0, effective >> 32, permitted >> 32, 0)
    return syscall(126, buf(struct.pack("Ii", 0x20080522, 0)), buf(both))
def told():
    return [int(line.split()[1], 16) for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm"))][::-1]
"""


def test_capset_tells_what_there_was_before_of_one_that_fails_too(live: Live) -> None:
    run = live.python(
        CAPSET
        + """
effective, permitted = first = told()
assert caps(1 << 5, 1 << 5 | 1 << 12) == 0
second = told()
assert caps(0, 1 << 12) == 0
assert caps(1 << 21, 1 << 21) == -1
print(*first, *second, *told())
"""
    )
    seen = [int(word) for word in run.stdout.split()]
    names = ("caps.old", "caps.old_permitted", "caps.new", "caps.new_permitted")
    first, second, failed = run.of("capset")
    assert [first.get(name) for name in names] == seen[:4]
    assert [second.get(name) for name in names] == seen[2:]
    assert [failed.get(name) for name in names] == [*seen[4:], *seen[4:]] and failed.get("ret") == -1
    assert Flag.OLD_CREDS_UNKNOWN not in first.flags


def test_what_a_capset_that_nobody_had_on_record_took_is_missing(live: Live) -> None:
    """As where a thread's beginning was lost."""
    creds = live.sensor._maps["er_creds"]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PRELUDE + CAPSET + "input(); before = told(); caps(*before); caps(*before)"],
        stdin=subprocess.PIPE,
        text=True,
    ) as child:
        live.await_exec(child.pid)
        creds.delete(struct.pack("<I", child.pid))
        live.drain()
        child.communicate("\n")
        told = [event for event in live.drain() if event.type.name == "capset" and event.get("pid") == child.pid]
    unknown, known = told
    assert (unknown.get("caps.old"), unknown.get("caps.old_permitted")) == (None, None)
    assert Flag.OLD_CREDS_UNKNOWN in unknown.flags and Flag.OLD_CREDS_UNKNOWN not in known.flags
    assert known.get("caps.old") == known.get("caps.new") is not None


def test_group_ids_after_the_call_are_the_actors(live: Live) -> None:
    run = live.python("assert syscall(119, 4, 5, 6) == 0; assert syscall(114, -1, 6) == 0; assert syscall(106, 8) == 0")
    first, second, third = run.of("setgid")
    assert [first.get(n) for n in ("call", "new.gid", "new.egid", "gid", "egid")] == [b"setresgid", 4, 5, 4, 5]
    assert [second.get(n) for n in ("new.gid", "new.egid", "gid", "egid")] == [None, 6, 4, 6]
    assert [third.get(n) for n in ("call", "new.gid", "new.egid", "gid")] == [b"setgid", 8, None, 8]


def test_options_and_keys(live: Live) -> None:
    run = live.python("""
        assert syscall(157, 38, 1, 0, 0, 0) == 0
        print(syscall(135, 0xffffffff)); syscall(135, 0x40000)
        print(syscall(250, 0, -3, 0))
    """)
    event = run.one("prctl", option=CONSTANTS["PR_"]["PR_SET_NO_NEW_PRIVS"])
    assert (event.get("arg1"), event.get("ret")) == (1, 0)
    asked, changed = run.of("personality")
    assert (asked.get("persona"), changed.get("persona")) == (0xFFFFFFFF, 0x40000)
    key = run.one("keyctl")
    assert (key.get("option"), key.get("arg1")) == (0, -3)
    assert [str(asked.get("ret")), str(key.get("ret"))] == run.stdout.split()


def test_memory_that_becomes_code(live: Live, tmp_path: Path) -> None:
    (tmp_path / "lib").write_bytes(bytes(4096))
    run = live.python(f"""
        libc.syscall.restype = ctypes.c_long  # addresses
        fd = os.open({str(tmp_path / "lib")!r}, os.O_RDONLY)
        mapped = syscall(9, 0, 4096, 5, 2, fd, 0)
        anonymous = syscall(9, 0, 8192, 3, 0x22, -1, 0)
        assert syscall(10, anonymous, 4096, 1) == 0 and syscall(10, anonymous, 4096, 5) == 0
        again = syscall(329, anonymous, 4096, 4, -1)
        code = syscall(9, 0, 4096, 7, 0x22, -1, 0)
        print(mapped, anonymous, code, os.fstat(fd).st_ino, again)
    """)
    mapped, anonymous, code, ino, again = map(int, run.stdout.split())
    file = run.one("mmap", path=os.fsencode(tmp_path / "lib"))
    assert (file.get("ret"), file.get("prot"), file.get("anon"), file.get("len")) == (mapped, 5, False, 4096)
    assert file.get("file.id") == kernel_id(tmp_path / "lib") and isinstance(ident := file.get("file.id"), bytes)
    assert int(ident.split(b":")[2]) == ino
    bare = run.one("mmap", ret=code)
    assert (bare.get("path"), bare.get("anon"), bare.get("prot")) == (None, True, 7)
    assert not run.of("mmap", ret=anonymous)
    changed = run.of("mprotect", addr=anonymous)
    assert [(e.get("prot"), e.get("len"), e.get("ret")) for e in changed] == [(5, 4096, 0), (4, 4096, again)]


def test_a_file_in_memory_has_its_name(live: Live) -> None:
    run = live.python("print(syscall(319, buf(b'pay load'), 1))")
    event = run.one("memfd_create")
    assert (event.get("memfd.name"), event.get("flags"), event.get("ret")) == (b"pay load", 1, int(run.stdout))


def test_the_kernels_own_interfaces(live: Live) -> None:
    run = live.python("""
        print(syscall(321, 11, buf(bytes(128)), 128), syscall(298, buf(bytes(128)), -1, 3, -1, 8), syscall(323, 1))
        print(syscall(425, 8, buf(bytes(120))), syscall(246, 0, 0, 1, -1), syscall(320, 1, 0, 0, 0, -1))
        print(syscall(175, 1, 0, buf(b"key=value")), syscall(313, 0, buf(b"key=value"), -1), syscall(176, buf(b"no_such"), 0x800))
    """)
    results = [int(word) for word in run.stdout.split()]
    names = ["bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "kexec", "kexec", "module_load", "module_load"]
    told = {name: [e.get("ret") for e in run.of(name)] for name in [*names, "module_unload"]}
    for name, result in zip([*names, "module_unload"], results, strict=True):
        assert told[name].pop(0) == result, name
    assert run.one("bpf").get("bpf.cmd") == CONSTANTS["BPF_"]["BPF_PROG_GET_NEXT_ID"]
    perf = run.one("perf_event_open")
    assert (perf.get("perf.pid"), perf.get("perf.cpu"), perf.get("flags")) == (-1, 3, 8)
    assert run.one("io_uring_setup").get("entries") == 8
    assert [e.get("call") for e in run.of("kexec")] == [b"kexec_load", b"kexec_file_load"]
    memory, file = run.of("module_load")
    assert (memory.get("from_memory"), file.get("from_memory")) == (True, False)
    assert memory.get("module.params") == file.get("module.params") == b"key=value"
    assert file.get("path") is not None and memory.get("path") is None
    assert run.one("module_unload").get("module.name") == b"no_such"
