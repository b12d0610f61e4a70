"""What a confined process can't do any more, tried in a process of its own."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import codecs, ctypes, os, resource, signal, socket, subprocess, sys, threading, time
from execray.plugin_confine import confine
from execray.scheduling import SLICE_NS, take_short_turns
codecs.lookup("ascii")  # who we become may not be allowed to read our library
for uid in map(int, sys.argv[1:]):
    os.setresuid(uid, uid, uid)
take_short_turns()  # as the daemon has by then
confine(128, os.getppid())
libc = ctypes.CDLL(None, use_errno=True)
def number(*args):
    return libc.syscall(*map(ctypes.c_long, args)), ctypes.get_errno()
def errno_of(function):
    try:
        function()
    except OSError as error:
        return error.errno
"""


def confined(code: str, *uids: int) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"], "MALLOC_ARENA_MAX": "1"}
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), *map(str, uids)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=env,
        cwd="/",
    )


def said(code: str) -> list[str]:
    done = confined(code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_capability_is_left_and_none_can_be_got_again() -> None:
    found = said("""
        for line in open("/proc/self/status"):
            if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp:")):
                print(line.replace(":", "=").replace("\\t", ""))
    """)
    none = "0" * 16
    assert found == [
        f"CapInh={none}",
        f"CapPrm={none}",
        f"CapEff={none}",
        f"CapAmb={none}",
        "NoNewPrivs=1",
        "Seccomp=2",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs CAP_SETPCAP")
def test_root_s_bounding_set_is_emptied_too() -> None:
    assert said(
        """print([line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")][0])"""
    ) == ["0" * 16]


@pytest.mark.parametrize(
    "call",
    [
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.kill(1, 0)",
        "os.kill(0, 0)",
        "os.kill(-1, 0)",
        "signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)",
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)",
        "socket.socket(socket.AF_UNIX)",
    ],
)
def test_there_are_no_further_processes_no_signals_and_no_sockets_of_the_daemons(call: str) -> None:
    assert said(f"print(errno_of(lambda: {call}))") == ["1"]


def test_calls_that_have_no_name_in_python_are_refused_too() -> None:
    # vfork, ptrace, process_vm_readv, unshare, io_uring_setup, tkill; and clone3 isn't there at all
    found = said("""
        numbers = {"x86_64": (58, 101, 310, 272, 425, 200), "aarch64": (117, 270, 97, 425, 130)}[os.uname().machine]
        print(*{number(n, 0, 0, 0, 0, 0, 0) for n in numbers}, number(435, 0, 0), sep="\\n")
    """)
    assert found == ["(-1,", "1)", "(-1,", "38)"]


def test_what_a_plugin_needs_still_works() -> None:
    assert said("""
        import asyncio, ssl
        thread = threading.Thread(target=lambda: print("thread")); thread.start(); thread.join()
        asyncio.run(asyncio.sleep(0))
        server = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(server.getsockname()).close()
        os.kill(os.getpid(), 0)
        ssl.create_default_context()
        print(resource.getrlimit(resource.RLIMIT_CORE)[1], os.nice(0) >= 10, open("/proc/self/oom_score_adj").read())
    """) == ["thread", "0", "True", "1000"]


def test_it_has_no_turns_as_the_daemons_have() -> None:
    assert said("""
        raw = (ctypes.c_uint64 * 6)()
        assert number({"x86_64": 315, "aarch64": 275}[os.uname().machine], 0, ctypes.addressof(raw), 48, 0)[0] == 0
        print(raw[3] == SLICE_NS)
    """) == ["False"]


def test_memory_files_and_threads_have_a_bound() -> None:
    found = said("""
        try:
            bytearray(200 << 20)
        except MemoryError:
            print("memory")
        print(errno_of(lambda: [os.dup(0) for _ in range(1000)]))
        os.closerange(3, 1000)
        import tempfile
        with tempfile.TemporaryFile() as file:
            print(errno_of(lambda: file.truncate(1 << 30)))
        try:
            while True:
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError:
            print("threads", threading.active_count() < 100)
            sys.stdout.flush()
            os._exit(0)
    """)
    assert found == ["memory", "24", "27", "threads", "True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_any_account_can_confine_itself() -> None:
    done = confined("print(errno_of(os.fork))", pwd.getpwnam("nobody").pw_uid)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_one_whose_parent_is_gone_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from execray.plugin_confine import confine; confine(128, 1)"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "the process that started us is gone" in done.stderr and done.returncode == 1
