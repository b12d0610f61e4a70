"""Run in the machine: the three units under its systemd, in the order of the file, as an operator would meet them."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.install import host as installer
from deploy.install.places import Places
from execray.config import Config
from tests.support.arena import ATTACK, THEFT
from tests.support.plugin_folder import install_misbehaved
from tests.system.host import (
    CTL,
    DAEMONS,
    OPERATOR,
    STRANGER,
    comes_back,
    ctl,
    eventually,
    evidence,
    green,
    pid,
    proc_status,
    prop,
    run,
    status,
    systemctl,
    unit,
)

TREE = Path(__file__).parents[2]
PLACES = Places(Path("/usr/local"))
STAGE = Path("/srv/stage")
AUDIT_LOG = Path("/var/lib/execray/enforcer/orders.jsonl")
POLICY = Path("/etc/execray/policies/theft.policy")
#: What each may do, by the numbers of linux/capability.h: bounding set, and what it holds.
KILL, NET_RAW, PERFMON, BPF = 5, 13, 38, 39
CAPABILITIES = {"tracerd": {BPF, PERFMON}, "policyd": {KILL}, "enforcer": {KILL, NET_RAW}}


@pytest.fixture(autouse=True, scope="module")
def stage() -> None:
    """A stage for the attack, and the configuration and the policy for it, before anything has run."""
    STAGE.mkdir(parents=True)
    (STAGE / "decoy").mkdir()
    (STAGE / "decoy" / "shadow").write_text("root:$6$decoy$nothing:20000:0:99999:7:::\n")
    shutil.copy("/bin/bash", STAGE / "attacker")
    write_policy(THEFT)
    # who kills is the point, and the processor is slow: by default policyd kills by itself after 100 ms
    drop_in = Path("/etc/execray/execray.d/50-test.yaml")
    enforcer = "{capture_interface: lo, order_max_age_s: 60}"
    drop_in.write_text(f"mode: enforce\npolicyd: {{order_timeout_ms: 10000}}\nenforcer: {enforcer}\n")


def write_policy(text: str) -> None:
    stage = {"ATTACKER": str(STAGE / "attacker"), "DECOY": str(STAGE / "decoy" / "shadow")}
    for word, path in stage.items():
        text = text.replace(word, path)
    POLICY.write_text(text)


@contextlib.contextmanager
def attack() -> Iterator[subprocess.Popen[bytes]]:
    """An attack by somebody without any rights, ready to be let through its steps."""
    user = pwd.getpwnam(STRANGER)
    with socket.create_server(("127.0.0.1", 0)) as collector:
        process = subprocess.Popen(
            [STAGE / "attacker", "-c", ATTACK, "attack", str(collector.getsockname()[1])],
            cwd=STAGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
        )
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):  # what was written to a process that is gone
                process.stdin.close()


@pytest.fixture
def attacker() -> Iterator[subprocess.Popen[bytes]]:
    with attack() as process:
        yield process


def captures() -> list[str]:
    """What came of each order to capture, by the enforcer's own record."""
    lines = AUDIT_LOG.read_text().splitlines(keepends=True) if AUDIT_LOG.exists() else []
    outcomes = [json.loads(line).get("outcome", {}) for line in lines if line.endswith("\n")]
    return [str(outcome["result"]) for outcome in outcomes if str(outcome.get("order_id")).endswith("-capture")]


def recorders() -> list[int]:
    """Returns the processes that the enforcer has made."""
    tasks = Path(f"/proc/{pid('enforcer')}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


niceness_of = partial(os.getpriority, os.PRIO_PROCESS)


def step(attacker: subprocess.Popen[bytes], count: int = 1) -> None:
    assert attacker.stdin is not None
    attacker.stdin.write(b"\n" * count)
    attacker.stdin.flush()


def await_alert(attacker: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The alert about this attacker, as an operator sees it."""
    found: list[dict[str, Any]] = []

    def seen() -> bool:
        every = json.loads(ctl("alerts", "list", "--json").stdout)["alerts"]
        found[:] = [alert for alert in every if alert.get("process", {}).get("pid") == attacker.pid]
        return bool(found)

    eventually(seen)
    (alert,) = found
    return alert


# --- installed, and started -------------------------------------------------------------------------------------------


def test_installing_makes_accounts_and_folders_and_enabling_brings_up_all_three() -> None:
    assert installer.prepare(PLACES) == []  # nothing ran before
    run("useradd", "-G", "execray", OPERATOR)
    run("useradd", STRANGER)
    systemctl("enable", "--now", *map(unit, DAEMONS))
    eventually(green)
    assert [prop(daemon, "NRestarts") for daemon in DAEMONS] == ["0"] * 3


def test_the_shipped_policies_are_loaded_and_one_by_one_they_can_go() -> None:
    shipped = [path.name for path in (TREE / "policies").glob("*.policy")]
    assert status("policyd")["policies"] > len(shipped)  # a file may hold several; and that of these tests
    assert status("policyd")["engine"]["compiled"] is True
    assert status("tracerd")["decoder"]["compiled"] is True
    for name in shipped:
        (POLICY.parent / name).unlink()
    systemctl("reload", unit("policyd"))
    assert status("policyd")["policies"] == 1  # from here on a start takes a tenth of the time


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_has_its_user_its_capabilities_and_no_more(daemon: str) -> None:
    found = proc_status(pid(daemon))
    user = pwd.getpwnam("root" if daemon == "tracerd" else f"execray-{daemon}")
    assert found["Uid"].split() == [str(user.pw_uid)] * 4
    assert found["Gid"].split() == [str(os.stat("/run/execray/policyd").st_gid)] * 4
    wanted = sum(1 << bit for bit in CAPABILITIES[daemon])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(found[name], 16) == wanted, name
    # what is handed on to programs that it starts
    ambient = 0 if daemon == "tracerd" else wanted
    assert int(found["CapAmb"], 16) == ambient
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_sockets_and_folders_are_their_daemons_own() -> None:
    gid = pwd.getpwnam("execray-policyd").pw_gid
    assert (os.stat("/run/execray").st_uid, stat.S_IMODE(os.stat("/run/execray").st_mode)) == (0, 0o755)
    for daemon, names in (("tracerd", ("stream", "ctl")), ("policyd", ("ctl",)), ("enforcer", ("orders", "ctl"))):
        owner = 0 if daemon == "tracerd" else pwd.getpwnam(f"execray-{daemon}").pw_uid
        folder = Path("/run/execray", daemon)
        expected = {folder: 0o750, **{folder / f"{name}.sock": 0o660 for name in names}}
        for path, mode in expected.items():
            found = path.stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (owner, gid, mode), path
    for name, mode in (("policyd", 0o750), ("enforcer", 0o700), ("captures", 0o700)):
        assert stat.S_IMODE(Path("/var/lib/execray", name).stat().st_mode) == mode


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_sees_the_system_read_only(daemon: str) -> None:
    enter = ("nsenter", "--mount", "--target", str(pid(daemon)), "--")
    for folder in ("/etc/execray", "/usr/local/lib/execray", "/var/lib"):
        done = run(*enter, "touch", f"{folder}/written", check=False)
        assert "Read-only file system" in done.stderr, folder
    assert not Path("/etc/execray/written").exists()


def test_the_sensors_rights_do_not_lead_out_of_its_read_only_view() -> None:
    def touch(*capabilities: str) -> str:
        """What root with these capabilities hears when it writes through the first process's view of the system."""
        allowed = ",".join(["-all", *(f"+{name}" for name in capabilities)])
        within = ("nsenter", "--mount", "--target", str(pid("tracerd")), "--", "setpriv", f"--bounding-set={allowed}")
        return run(*within, "touch", "/proc/1/root/srv/written", check=False).stderr

    assert "Permission denied" in touch("bpf", "perfmon")
    assert touch("bpf", "perfmon", "sys_ptrace") == ""  # which is why it has none


def test_the_sensors_uid_reaches_nobody_who_believes_it() -> None:
    within = ("nsenter", "--mount", "--target", str(pid("tracerd")), "--")
    folder = "/run/execray"
    there = ("/run/systemd/private", f"{folder}/enforcer/orders.sock", f"{folder}/policyd/ctl.sock")
    assert all(Path(path).is_socket() for path in there)
    assert run(*within, "test", "-S", f"{folder}/tracerd/ctl.sock", check=False).returncode == 0
    assert [run(*within, "test", "-e", path, check=False).returncode for path in there] == [1] * len(there)
    for written in ("/run/x", "/run/systemd/x", "/dev/shm/x", "/root/x", "/home/x"):
        assert run(*within, "touch", written, check=False).returncode != 0, written


def test_memory_is_kept_for_the_daemons_and_they_are_the_last_to_be_taken() -> None:
    group = Path("/sys/fs/cgroup/execray.slice")
    kept = {name: int((group / unit(name) / "memory.min").read_text()) for name in DAEMONS}
    assert all(kept.values())
    assert int((group / "memory.min").read_text()) >= sum(kept.values())
    for daemon in DAEMONS:
        used = int((group / unit(daemon) / "memory.current").read_text())
        assert used < 0.75 * kept[daemon], f"{daemon} uses {used} of {kept[daemon]} that are kept for it"
        assert int(Path(f"/proc/{pid(daemon)}/oom_score_adj").read_text()) < 0


# --- what it is for ---------------------------------------------------------------------------------------------------


def more_captures_than(number: int) -> bool:
    return len(captures()) > number


def test_an_attack_is_killed_by_the_enforcer_and_an_operator_sees_it() -> None:
    for tries in range(5):
        with attack() as attacker:
            step(attacker, 2)
            eventually(partial(more_captures_than, tries))
            if captures()[-1] != "capturing":  # a slow processor: tcpdump has two seconds to begin
                continue
            assert min(map(niceness_of, recorders())) >= 0 > niceness_of(pid("enforcer"))
            step(attacker)
            assert attacker.wait(60) == -signal.SIGKILL
            break
    else:
        pytest.fail(f"nothing was captured: {captures()}\n{evidence()}")
    alert = await_alert(attacker)
    kill = alert["execray"]["action"]["kill"]
    assert (kill["result"], kill["by"]) == ("killed", "enforcer"), kill
    assert alert["rule"]["name"] == "theft" and not alert["execray"].get("tainted")
    assert "theft" in ctl("alerts", "list").stdout
    eventually(lambda: not status("enforcer")["captures"]["running"])
    pcaps = list(Path("/var/lib/execray/captures").glob("*.pcap"))
    assert any(b"root:$6$decoy" in pcap.read_bytes() for pcap in pcaps)
    assert {pcap.stat().st_uid for pcap in pcaps} == {pwd.getpwnam("execray-enforcer").pw_uid}


def watched_paths(what: str) -> object:
    """What the sensor says of the paths that it looks at; nothing while it can't be asked."""
    return status("tracerd").get("paths", {}).get(what)


def test_exact_paths_below_homes_are_matched_by_the_file_where_the_sensor_may_look() -> None:
    folders = {"/root/.ssh": (0o700, "root"), "/home/open": (0o755, STRANGER), "/home/shut": (0o700, STRANGER)}
    for folder, (mode, owner) in folders.items():
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "kept").write_text("secret")
        os.chmod(folder, mode)
        shutil.chown(folder, owner)
        os.link(f"{folder}/kept", f"{folder}/other")
    policy = POLICY.with_name("homes.policy")
    paths = ", ".join(f'"{folder}/kept"' for folder in folders)
    policy.write_text(
        f'policy "homes" key process within 1m {{\n    meta {{ severity: high }}\n'
        f"    open {{ path in [{paths}] }} as read\n    on match {{ alert high }}\n}}\n"
    )
    try:
        systemctl("reload", unit("policyd"))
        eventually(lambda: watched_paths("watched") == 4 and watched_paths("resolved") == 3)
        assert watched_paths("unresolved") == {"in a folder that the sensor may not enter": 1}
        for folder in ("/root/.ssh", "/home/open"):
            with subprocess.Popen(["cat", f"{folder}/other"], stdout=subprocess.DEVNULL) as reader:
                reader.wait(60)
            number = await_alert(reader)["execray"]["alert_id"]
            (seen,) = json.loads(ctl("alerts", "show", number, "--json").stdout)["execray"]["trail"]
            assert seen["by_file"] == [f"{folder}/kept"], seen
    finally:
        policy.unlink()
        systemctl("reload", unit("policyd"))


def test_somebody_outside_the_group_is_refused_with_a_hint() -> None:
    for command in (("alerts", "list"), ("status",), ("reload",)):
        done = ctl(*command, user=STRANGER)
        assert done.returncode == 3, done
        assert "execray" in done.stdout + done.stderr and "hint:" in done.stdout + done.stderr
        assert "theft" not in done.stdout


def test_an_operator_may_reload_but_not_change_how_far_execray_may_go() -> None:
    assert ctl("reload").returncode == 0
    done = ctl("mode", "audit", "--yes")
    assert done.returncode != 0
    assert status("policyd")["mode"] == "enforce"


# --- reload -----------------------------------------------------------------------------------------------------------


def test_systemctl_reload_takes_in_new_policies_and_refuses_mistaken_ones() -> None:
    before = pid("policyd")
    generation = status("policyd")["generation"]
    write_policy(THEFT.replace("critical", "high"))
    systemctl("reload", unit("policyd"))
    assert status("policyd")["generation"] == generation + 1
    write_policy(THEFT.replace("connect", "conect"))
    done = run("systemctl", "reload", unit("policyd"), check=False)
    assert done.returncode != 0
    journal = run("journalctl", "--no-pager", "-o", "cat", "-u", unit("policyd"), "-n", "60").stdout
    assert "conect" in journal and "error[" in journal
    assert (status("policyd")["generation"], pid("policyd")) == (generation + 1, before)
    write_policy(THEFT)
    systemctl("reload", unit("policyd"))
    assert prop("policyd", "ActiveState") == "active" and green()


def test_a_hangup_reloads_too() -> None:
    generation = status("policyd")["generation"]
    write_policy(THEFT.replace("critical", "high"))
    systemctl("kill", "--kill-whom=main", "--signal=HUP", unit("policyd"))
    eventually(lambda: status("policyd")["generation"] == generation + 1)


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_that_is_killed_comes_back_and_the_others_take_it_in(daemon: str) -> None:
    others = {other: pid(other) for other in DAEMONS if other != daemon}
    before = pid(daemon)
    os.kill(before, signal.SIGKILL)
    comes_back(daemon, before)
    assert {other: pid(other) for other in others} == others


def test_all_three_come_back_from_a_fault_and_say_where_it_was_without_a_core_file() -> None:
    before = {daemon: pid(daemon) for daemon in DAEMONS}
    Path("/proc/sys/kernel/core_pattern").write_text("/srv/core.%p")
    for daemon in DAEMONS:
        os.kill(before[daemon], signal.SIGSEGV)
    for daemon in DAEMONS:
        comes_back(daemon, before[daemon])
        journal = run("journalctl", "--no-pager", "-o", "cat", "-u", unit(daemon)).stdout
        assert "Fatal Python error: Segmentation fault" in journal and f"/site-packages/{daemon}/cli.py" in journal
    assert not list(Path("/srv").glob("core.*"))


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_comes_back() -> None:
    before = {daemon: pid(daemon) for daemon in DAEMONS}
    for daemon in DAEMONS:
        os.kill(before[daemon], signal.SIGSTOP)
    for daemon in DAEMONS:
        comes_back(daemon, before[daemon])
        journal = run("journalctl", "--no-pager", "-o", "cat", "-u", unit(daemon)).stdout
        assert "Watchdog timeout" in journal


def test_after_all_that_an_attack_is_still_killed(attacker: subprocess.Popen[bytes]) -> None:
    step(attacker, 3)
    assert attacker.wait(60) == -signal.SIGKILL


def test_while_the_enforcer_is_away_policyd_kills_by_itself(attacker: subprocess.Popen[bytes]) -> None:
    systemctl("stop", unit("enforcer"))
    step(attacker, 3)
    assert attacker.wait(60) == -signal.SIGKILL
    alert = await_alert(attacker)
    assert alert["execray"]["action"]["kill"]["by"] == "policyd"
    systemctl("start", unit("enforcer"))


# --- plug-ins ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def plugins() -> Iterator[None]:
    """Two that only write down what they get, configured and running; afterwards none."""
    folder, drop_in = Config().policyd.plugin_dir, Path("/etc/execray/execray.d/60-plugins.yaml")
    install_misbehaved(folder)
    settings = {name: {"record": f"/var/lib/execray/policyd/{name}"} for name in ("bad", "bad_too")}
    own = {"sinks": ["file", "bad"], "actions": ["bad_too"], "plugins": settings, "plugin_timeout_s": 60}
    drop_in.write_text(json.dumps({"policyd": own}))  # which is YAML too
    write_policy(THEFT.replace("; kill", '; kill; notify "bad_too"'))
    systemctl("restart", unit("policyd"))
    eventually(lambda: green() and [found["state"] for found in status("policyd")["plugins"]] == ["idle", "idle"])
    try:
        yield
    finally:
        drop_in.unlink()
        shutil.rmtree(folder)
        write_policy(THEFT)
        systemctl("restart", unit("policyd"))
        eventually(green)


def test_plugins_work_under_the_unit_and_hold_nothing_of_policyd_s(
    plugins: None, attacker: subprocess.Popen[bytes]
) -> None:
    user = pwd.getpwnam("execray-policyd").pw_uid
    for plugin in status("policyd")["plugins"]:
        found = proc_status(plugin["pid"])
        assert found["Uid"].split() == [str(user)] * 4
        assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    step(attacker, 3)
    assert attacker.wait(60) == -signal.SIGKILL
    eventually(lambda: all(found["done"] for found in status("policyd")["plugins"]))
    alert = await_alert(attacker)
    for name in ("bad", "bad_too"):
        assert alert["execray"]["alert_id"] in Path("/var/lib/execray/policyd", name).read_text()
    assert "action bad_too (misbehaved 1.0): idle, 1 done" in ctl("status").stdout


# --- order ------------------------------------------------------------------------------------------------------------


#: Each is the first once, and of every two each is before the other.
ORDERS = [DAEMONS[turn:] + DAEMONS[:turn] for turn in range(len(DAEMONS))]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_they_may_start_in_any_order_each_without_the_others(order: tuple[str, ...]) -> None:
    systemctl("stop", *map(unit, DAEMONS))
    assert not any(Path("/run/execray", daemon).exists() for daemon in DAEMONS)
    for number, daemon in enumerate(order):
        systemctl("start", unit(daemon))
        running = [other for other in DAEMONS if pid(other)]
        assert sorted(running) == sorted(order[: number + 1])
    eventually(green)


# --- removed ----------------------------------------------------------------------------------------------------------


def test_uninstalling_leaves_configuration_and_state_and_purging_leaves_nothing() -> None:
    command = ["/usr/bin/python3", "-m", "deploy.install", "uninstall"]
    done = run(*command)
    assert "are kept" in done.stdout
    assert not any(prop(daemon, "LoadState") == "loaded" for daemon in DAEMONS)
    assert POLICY.exists() and Path("/var/lib/execray/policyd/alerts.jsonl").exists()
    assert not Path(CTL).exists() and not PLACES.program.exists()
    run(*command, "--purge")
    for path in (PLACES.etc, PLACES.state, PLACES.run):
        assert not path.exists()
    found = run("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-iname", "*execray*").stdout.split()
    assert [path for path in found if "/cgroup/" not in path] == []
    assert run("getent", "group", "execray", check=False).returncode != 0
