"""A process is started, ended and waited for, and has nothing of ours but what it was given."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from policyd.spawn import Child


@pytest.fixture
def null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def said(script: str, env: dict[str, str], null: int) -> str:
    read, write = os.pipe()
    child = Child(["/bin/sh", "-c", script], env, null, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="surrogateescape") as output:
        text = output.read()
    assert child.wait(10) == 0
    return text


def test_it_has_its_arguments_its_environment_and_its_descriptors(null: int) -> None:
    env = {"A": "1", "B": "x y\udcff"}
    text = said('echo "$A|$B|$0"; echo told >&2; ls /proc/self/fd | wc -l; env | grep -c =', env, null)
    assert (
        text.encode("utf-8", "surrogateescape") == b"1|x y\xff|/bin/sh\ntold\n4\n3\n"
    )  # 4: ls has one of its own; 3: PWD


def test_it_is_in_a_session_of_its_own(null: int) -> None:
    session = said("cut -d' ' -f6 /proc/$$/stat", {"PATH": os.environ["PATH"]}, null)
    assert int(session) != os.getsid(0)


def test_how_it_ended_is_told_again_and_again(null: int) -> None:
    child = Child(["/bin/sh", "-c", "exit 7"], {}, null, null)
    assert child.wait(10) == 7 and child.wait(0) == 7
    child.kill()  # nobody is there any more, and nobody else is meant
    assert not Path(f"/proc/{child.pid}").exists()


def test_one_that_lives_on_can_be_killed(null: int) -> None:
    child = Child(["/bin/sleep", "60"], {}, null, null)
    assert child.wait(0.01) is None
    child.kill()
    assert child.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/etc/passwd", "/"])
def test_what_can_t_be_run_is_an_error_and_leaves_no_process(path: str, null: int) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        Child([path], {}, null, null)
    assert os.listdir("/proc/self/fd") == before
