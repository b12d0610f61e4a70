"""bpf/proc.bpf.c: exec, fork and exit as they are, by the kernel's own word."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from execray.process import start_ticks_of
from execray.schema.catalog import Flag
from execray.schema.kinds import CONSTANTS
from tests.support.live import Live, sleeper
from tests.support.paths import kernel_id

EVENTS = ["exec", "fork", "exit"]


def test_exec_tells_program_arguments_and_ids(live: Live) -> None:
    run = live.run(["/bin/echo", "one", "two words", ""])
    event = run.one("exec")
    assert event.get("exe") == os.fsencode(os.path.realpath("/bin/echo"))
    assert event.get("filename") == b"/bin/echo"
    assert event.get("argv") == (b"/bin/echo", b"one", b"two words", b"")
    assert event.get("cmdline") == b"/bin/echo one two words "
    assert (event.get("argc"), event.get("name"), event.get("comm")) == (4, b"echo", b"echo")
    assert (event.get("pid"), event.tid, event.get("ret")) == (run.pid, run.pid, 0)
    assert event.get("uid") == event.get("euid") == 0
    assert event.get("parent.pid") == os.getpid()
    assert event.get("parent.exe") == os.fsencode(os.path.realpath(sys.executable))


def test_exec_of_a_symlink_names_the_file_behind_it(live: Live, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/bin/echo")
    event = live.run([link]).one("exec")
    assert event.get("filename") == os.fsencode(link)
    assert event.get("exe") == os.fsencode(os.path.realpath("/bin/echo"))
    assert event.get("file.id") == kernel_id(Path("/bin/echo"))


def test_file_names_need_not_be_utf8(live: Live, tmp_path: Path) -> None:
    program = os.fsencode(tmp_path) + b"/caf\xe9\xff"
    Path(os.fsdecode(program)).write_bytes(Path("/bin/echo").read_bytes())
    os.chmod(program, 0o755)
    event = live.run([Path(os.fsdecode(program)), os.fsdecode(b"\xfe")]).one("exec")
    assert event.get("exe") == program
    assert event.get("argv") == (program, b"\xfe")
    assert event.to_json()["exe"] == os.fsdecode(program)


def test_failed_exec_is_an_event_of_the_old_image(live: Live) -> None:
    run = live.python("print(syscall(59, buf(b'/nonexistent/program'), 0, 0))")
    event = run.one("exec", filename=b"/nonexistent/program")
    assert event.get("ret") == -CONSTANTS["E"]["ENOENT"] == int(run.stdout)
    assert event.get("exe") == os.fsencode(os.path.realpath(sys.executable))


def test_long_arguments_are_cut_and_say_so(live: Live) -> None:
    event = live.run(["/bin/echo", "x" * 20000, "tail"]).one("exec")
    argv = event.get("argv")
    assert isinstance(argv, tuple)
    assert Flag.ARGV_TRUNCATED in event.flags
    assert sum(len(a) + 1 for a in argv if isinstance(a, bytes)) == 16384 + 1


def test_arguments_of_16_kib_are_whole(live: Live) -> None:
    exact = ["/bin/echo", "x" * (16384 - len("/bin/echo") - 2)]
    event = live.run([*exact]).one("exec")
    assert event.get("argv") == tuple(map(os.fsencode, exact))
    assert Flag.ARGV_TRUNCATED not in event.flags


def test_events_of_a_process_with_cut_arguments_carry_the_flag_too(live: Live) -> None:
    run = live.run(["/bin/sh", "-c", "true & wait", "x" * 20000])
    assert all(Flag.ARGV_TRUNCATED in fork.flags for fork in run.of("fork"))
    assert run.of("fork")


def test_fork_names_the_child_before_it_runs(live: Live) -> None:
    run = live.python("""
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        os.waitpid(pid, 0)
        print(pid)
    """)
    child = int(run.stdout)
    fork = run.one("fork", child__pid=child)
    exit_event = next(e for e in run.of("exit") if e.get("pid") == child)
    assert exit_event.get("proc.id") == fork.get("child.id")
    assert exit_event.get("exit_code") == 3
    assert exit_event.get("parent.pid") == run.pid
    assert exit_event.get("exe") == fork.get("exe")
    assert run.events.index(fork) < run.events.index(exit_event)


def test_threads_are_neither_forks_nor_exits(live: Live) -> None:
    run = live.python("""
        threads = [threading.Thread(target=lambda: None) for _ in range(5)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """)
    assert not run.of("fork")
    assert len(run.of("exit")) == 1


def test_exit_tells_the_signal(live: Live) -> None:
    run = live.run(["/bin/sh", "-c", "kill -KILL $$"])
    event = run.one("exit")
    assert (event.get("signal"), run.status) == (signal.SIGKILL, -signal.SIGKILL)


def test_exec_by_another_thread_keeps_the_identity(live: Live) -> None:
    run = live.python("""
        threading.Thread(target=lambda: os.execv("/bin/echo", ["echo", "hopped"])).start()
        time.sleep(5)
    """)
    hopped = next(e for e in run.of("exec") if e.get("argv") == (b"echo", b"hopped"))
    first = run.of("exec")[0]
    assert hopped.get("proc.id") == first.get("proc.id")
    assert hopped.tid == run.pid


def test_lineage_is_the_creators_line_and_survives_reparenting(live: Live) -> None:
    run = live.python("""
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.read(read, 1)  # until the middle one is gone
                os.execv("/bin/echo", ["echo", "orphan"])
            os._exit(0)
        os.wait()
        os.write(write, b"x")
        os.close(write)
        time.sleep(0.3)
    """)
    orphan = next(e for e in run.of("exec") if e.get("argv") == (b"echo", b"orphan"))
    line = []
    at = orphan.actor.parent
    while at is not None:
        line.append(at.id[0])
        at = at.parent
    assert line[1] == run.pid and line[2] == os.getpid()


def test_start_time_agrees_with_proc(live: Live) -> None:
    with sleeper() as child:
        process = live.table.find(child.pid)
        if process is None:
            live.drain()
            process = live.table.find(child.pid)
        assert process is not None
        assert process.start_ns * os.sysconf("SC_CLK_TCK") // 1_000_000_000 == start_ticks_of(child.pid)


def test_own_processes_are_hidden_and_counted(live: Live) -> None:
    live.drain()
    me = live.table.find(os.getpid())
    assert me is not None
    live.sensor.hide(me.pid, me.start_ns, children=True)
    before = live.sensor.counter("SELF")
    with sleeper() as child:
        pid = child.pid
    live.sensor.hide(me.pid, me.start_ns + 1)  # a reused pid is not ours: nothing is hidden any more
    events = live.drain()
    assert not [e for e in events if e.actor.id[0] in (pid, os.getpid())]
    assert live.sensor.counter("SELF") >= before + 3  # fork, exec, exit of the child
    assert live.run(["/bin/true"]).one("exec")


def test_set_group_id_programs_show_their_effective_ids(live: Live, tmp_path: Path) -> None:
    program = tmp_path / "suid"
    program.write_bytes(Path("/bin/true").read_bytes())
    os.chown(program, 12345, 23456)
    program.chmod(0o755 | stat.S_ISUID | stat.S_ISGID)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)
    event = live.run([program]).one("exec", filename=os.fsencode(program))
    assert (event.get("uid"), event.get("euid"), event.get("suid")) == (0, 12345, 12345)
    assert (event.get("gid"), event.get("egid")) == (0, 23456)


def test_hiding_ends_with_exec_and_after_one_generation(live: Live) -> None:
    code = (
        "import os, sys; sys.stdin.readline();"
        "os.system('/bin/echo a > /dev/null');"  # sh, our child: hidden; its echo: everybody's business
        "os.execv('/bin/echo', ['echo', 'another program'])"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as child:
        process = live.await_exec(child.pid)
        assert child.stdin is not None
        live.sensor.hide(child.pid, process.start_ns, children=True)
        assert child.pid in live.sensor.hidden()
        child.stdin.write("go\n")
        child.stdin.flush()
        events = live.collect(child.pid)
    programs = [e.get("argv") for e in events if e.type.name == "exec"]
    assert (b"echo", b"another program") in programs
    assert child.pid not in live.sensor.hidden()


def test_what_is_shown_again_is_seen_again(live: Live) -> None:
    with sleeper() as child:
        process = live.await_exec(child.pid)
        live.sensor.hide(child.pid, process.start_ns)
        live.sensor.show(child.pid, process.start_ns + 1)  # another process that had this pid
        assert child.pid in live.sensor.hidden()
        live.sensor.show(child.pid, process.start_ns)
        assert child.pid not in live.sensor.hidden()
