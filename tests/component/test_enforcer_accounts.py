"""The enforcer as the service runs it: an account of its own with CAP_KILL alone, which can't read others' programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from execray.config import Config
from execray.wire.orders import Result
from tests.support.enforcers import config_in, connection, wait_for_socket
from tests.support.orders import NOBODY, died_of_sigkill, key_of, make_order, runtime_dir, victim

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changing to other accounts needs root")

#: Everything is imported before the account is changed: it need not be able to read where Python and the tests lie.
LAUNCHER = """
import sys
import encodings.ascii
import execray.config_load
from enforcer.cli import main
from policyd.privileges import account, become
become(account("daemon"))
sys.argv[0] = "enforcer"
main()
"""


@contextlib.contextmanager
def enforcer_as_daemon(folder: Path, protected: str) -> Iterator[Config]:
    """An enforcer of the account `daemon`, on folders such as its service manager would make."""
    config = config_in(folder)
    owner = pwd.getpwnam("daemon")
    for own in (config.daemon_dir("enforcer"), config.audit_log.parent, config.capture_dir):
        own.mkdir(parents=True)
        os.chown(own, owner.pw_uid, owner.pw_gid)
    file = folder / "execray.yaml"
    settings = {"mode": "enforce", "group": "", "protect_exe": [protected]}
    folders = {"runtime_dir": str(config.runtime_dir), "state_dir": str(config.state_dir)}
    file.write_text(yaml.safe_dump({**settings, **folders}))
    file.chmod(0o644)
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, "--config", file]) as process:
        try:
            wait_for_socket(config.order_socket)
            facts = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            assert facts["Uid"].split() == [str(owner.pw_uid)] * 4 and int(facts["CapEff"], 16) == 1 << 5
            yield config
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def folder() -> Iterator[Path]:
    with runtime_dir() as path:
        yield path


def program(folder: Path, *parts: str) -> str:
    """A program that every account may run, whose processes are called sshd."""
    target = folder.joinpath(*parts, "sshd")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/sleep", target)
    return os.fspath(target)


async def test_process_that_merely_has_a_protected_name_is_killed(folder: Path) -> None:
    protected, impostor = program(folder, "usr"), program(folder, "tmp")
    with enforcer_as_daemon(folder, protected) as config, victim(impostor, uid=NOBODY) as child:
        async with connection(config) as orders:
            assert (await orders.ask(make_order(key_of(child.pid), exe=impostor))).result is Result.KILLED
        assert died_of_sigkill(child)


@pytest.mark.parametrize("known", [True, False])
async def test_protected_process_of_another_account_lives(folder: Path, known: bool) -> None:
    """Known by the event's exe, which orders carry; without one there is only the name, and it refuses."""
    protected = program(folder, "usr")
    with enforcer_as_daemon(folder, protected) as config, victim(protected, uid=NOBODY) as child:
        async with connection(config) as orders:
            outcome = await orders.ask(make_order(key_of(child.pid), exe=protected if known else ""))
        assert (outcome.result, outcome.code) == (Result.REFUSED, "protected_exe")
        assert ("isn't known" in outcome.text) is not known  # so it could not be read
        assert child.poll() is None


async def test_process_without_a_protected_name_is_killed_though_its_program_cannot_be_read(folder: Path) -> None:
    protected = program(folder, "usr")
    with enforcer_as_daemon(folder, protected) as config, victim(uid=NOBODY) as child:
        async with connection(config) as orders:
            assert (await orders.ask(make_order(key_of(child.pid), exe=""))).result is Result.KILLED
        assert died_of_sigkill(child)
