"""The units as systemd's own tools judge them, without a running systemd; tests/system runs them under a real one."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"
UNITS = DEPLOY / "systemd"
DAEMONS = ("tracerd", "policyd", "enforcer")
#: The overall exposure that `systemd-analyze security` may report. What remains in the sensor's is being root with bpf(2), and
#: homes that it may look at.
EXPOSURE = {"tracerd": 1.2, "policyd": 0.9, "enforcer": 1.9}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as they are installed, with programs that exist."""
    prefix = tmp_path_factory.mktemp("units")
    programs = prefix / "lib" / "execray" / "bin"
    programs.mkdir(parents=True)
    for name in (*DAEMONS, "execray-ctl"):
        shutil.copy("/bin/true", programs / name)
    for unit in UNITS.iterdir():
        (prefix / unit.name).write_text(unit.read_text().replace("@PREFIX@", str(prefix)))
    return prefix


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # 7 packages' worth of manual pages aren't there to be looked at; the man page has a test of its own
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def settings(daemon: str) -> dict[str, list[str]]:
    """What a unit says in [Service], each key with all its values."""
    found: dict[str, list[str]] = {}
    text = (UNITS / f"execray-{daemon}.service").read_text()
    for line in text.partition("[Service]")[2].partition("[Install]")[0].splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", [f"execray-{name}.service" for name in DAEMONS] + ["execray.slice"])
def test_systemd_has_nothing_to_say_about_it(installed: Path, unit: str) -> None:
    done = analyze("verify", "--man=no", installed / unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_exposure_stays_within_its_bound(installed: Path, daemon: str) -> None:
    unit = installed / f"execray-{daemon}.service"
    threshold = f"--threshold={round(EXPOSURE[daemon] * 10)}"
    done = analyze("security", "--offline=yes", threshold, unit)
    assert done.returncode == 0, done.stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None and float(found[1]) <= EXPOSURE[daemon]


@pytest.mark.parametrize("daemon", DAEMONS)
def test_it_comes_back_by_itself_and_never_gives_up(daemon: str) -> None:
    text = (UNITS / f"execray-{daemon}.service").read_text()
    found = settings(daemon)
    assert found["Type"] == ["notify"] and found["Restart"] == ["always"] and found["WatchdogSec"] == ["10"]
    assert "\nStartLimitIntervalSec=0\n" in text
    # each works alone: an order, and nothing that pulls another in or takes it along
    assert not re.search(r"^(Requires|Requisite|BindsTo|PartOf|Upholds|Conflicts|Wants)=", text, re.MULTILINE)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_nobody_is_hidden_from_it(daemon: str) -> None:
    # the sensor asks /proc for processes from before; the guard looks at a process before it kills it
    assert not {"ProtectProc", "ProcSubset"} & set(settings(daemon))


def test_the_reserve_of_the_slice_is_what_its_units_ask_for() -> None:
    parser = configparser.ConfigParser()
    parser.read_string((UNITS / "execray.slice").read_text())
    assert all(settings(name)["Slice"] == ["execray.slice"] for name in DAEMONS)
    wanted = sum(int(settings(name)["MemoryMin"][0].removesuffix("M")) for name in DAEMONS)
    assert parser["Slice"]["MemoryMin"] == f"{wanted}M"


def test_each_daemon_has_its_own_folder_of_sockets() -> None:
    assert [settings(name)["RuntimeDirectory"] for name in DAEMONS] == [[f"execray/{name}"] for name in DAEMONS]
    assert {settings(name)["RuntimeDirectoryMode"][0] for name in DAEMONS} == {"0750"}


def test_accounts_are_the_ones_that_the_units_name(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group"):
        (tmp_path / "etc" / name).touch()
    for folder in ("sysusers.d",):
        (tmp_path / "usr" / "lib" / folder).mkdir(parents=True)
        shutil.copy(DEPLOY / folder / "execray.conf", tmp_path / "usr" / "lib" / folder)
    done = subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    groups = {line.split(":")[2]: line.split(":")[0] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    for daemon in ("policyd", "enforcer"):
        user = users[settings(daemon)["User"][0]]
        assert groups[user[3]] == settings(daemon)["Group"][0] == "execray"
        assert user[6].endswith("nologin")
