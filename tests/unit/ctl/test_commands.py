"""execray-ctl without any daemon: help, exit codes, `policy check`, the static part of `doctor`, and what it imports."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from execray.ctl.alerts import Since
from execray.ctl.context import duration, table
from execray.ctl.doctor import State, static_checks
from execray.ctl.main import main
from execray.ctl.status import hook_words, paths_words, plugin_words

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "ctl-help.txt"
GOOD = 'path "good" { exec { uid = 0 } }\n'
BAD = 'path "bad" { exce { uid = 0 } }\n'


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/run", prefix="exr-") as folder:
        yield Path(folder)


def ctl(*args: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(
        main, [str(arg) for arg in args], input=stdin, prog_name="execray-ctl", terminal_width=100
    )


def commands(group: click.Group, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield name, group
    context = click.Context(group)
    for sub in group.list_commands(context):
        command = group.get_command(context, sub)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*name, sub))
        else:
            yield (*name, sub), command


ALL = list(commands(main))


def test_golden_help_of_every_command() -> None:
    shown = "".join(f"$ execray-ctl {' '.join((*name, '--help'))}\n{ctl(*name, '--help').output}\n" for name, _ in ALL)
    if os.environ.get("EXECRAY_GOLDEN"):
        GOLDEN.write_text(shown)
    diff = "\n".join(difflib.unified_diff(GOLDEN.read_text().splitlines(), shown.splitlines(), lineterm=""))
    assert not diff, f"{diff}\nif that is meant: make golden"


@pytest.mark.parametrize("command", [command for _, command in ALL], ids=[" ".join(name) for name, _ in ALL])
def test_every_help_has_a_purpose_and_three_examples(command: click.Command) -> None:
    text = command.help or ""
    assert text.splitlines()[0].endswith((".", ":", "?")) or len(text.splitlines()[0]) < 100
    examples = text.partition("Examples:")[2].splitlines()
    assert sum("execray-ctl" in line for line in examples) >= 3


@pytest.mark.parametrize(
    "args", [("nonsense",), ("status", "--nonsense"), ("policy", "check"), ("alerts", "list", "-n", "0")]
)
def test_wrong_usage_ends_with_2(args: tuple[str, ...]) -> None:
    assert ctl(*args).exit_code == 2


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("doctor",),
        ("reload",),
        ("policy", "list"),
        ("policy", "show", "x"),
        ("alerts", "tail"),
        ("events",),
        ("alerts", "list"),
        ("alerts", "show", "abcd"),
    ],
)
def test_a_daemon_that_is_down_ends_with_3_and_a_hint(runtime: Path, args: tuple[str, ...]) -> None:
    result = ctl("--runtime-dir", runtime, *args)
    assert result.exit_code == 3
    assert "hint: start" in result.output and "is not running" in result.output


def test_status_of_nothing_names_all_three(runtime: Path) -> None:
    result = ctl("--runtime-dir", runtime, "status", "--json")
    found = json.loads(result.stdout)
    assert set(found) == {"tracerd", "policyd", "enforcer"} and not any(daemon["up"] for daemon in found.values())


def test_a_bad_configuration_is_one_clear_line(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("mdoe: audit\n")
    result = ctl("--config", config, "status")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "`mdoe`" in result.stderr


def test_version() -> None:
    assert ctl("version").stdout.startswith("execray-ctl ")
    assert set(json.loads(ctl("version", "--json").stdout)) == {"version"}


# --- policy check ---------------------------------------------------------------------------------------------------------


def test_check_of_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "good.policy"
    file.write_text(GOOD)
    result = ctl("policy", "check", file)
    assert result.exit_code == 0 and "ok: 1 policy in 1 file" in result.stdout


def test_check_of_a_bad_file_shows_the_place_and_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "bad.policy"
    file.write_text(BAD)
    result = ctl("policy", "check", file)
    assert result.exit_code == 1 and "bad.policy:1:14" in result.stdout and "error[ER" in result.stdout
    assert "\x1b" not in result.stdout


def test_check_reads_standard_input() -> None:
    result = ctl("policy", "check", "-", stdin=BAD)
    assert result.exit_code == 1 and "<stdin>:1:14" in result.stdout


def test_check_takes_a_folder_and_finds_a_name_used_twice(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.policy").write_text(GOOD)
    (tmp_path / "README").write_text(BAD)
    result = ctl("policy", "check", tmp_path)
    assert result.exit_code == 1 and "two policies are called `good`" in result.stdout


def test_check_as_json(tmp_path: Path) -> None:
    result = ctl("policy", "check", "-", "--json", stdin=BAD)
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["ok"] is False
    assert found["diagnostics"][0]["line"] == 1 and found["diagnostics"][0]["file"] == "<stdin>"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"", b'path "\x1b[2J" {', b"{" * 10_000])
def test_check_of_any_bytes_never_crashes_and_never_steers_the_terminal(raw: bytes) -> None:
    result = ctl("policy", "check", "-", stdin=raw)
    assert result.exit_code in (0, 1) and "\x1b" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--runtime-dir", "/nowhere", "policy", "list", "--json"), 3),
        (("--runtime-dir", "/nowhere", "alerts", "tail", "--json"), 3),
        (("--config", "/nowhere.yaml", "status", "--json"), 1),
        (("policy", "check", "/nowhere.policy", "--json"), 1),
    ],
)
def test_a_failure_is_json_too_where_json_was_asked_for(args: tuple[str, ...], code: int) -> None:
    result = ctl(*args)
    assert result.exit_code == code
    told = json.loads(result.stdout)
    assert told["ok"] is False and told["error"] and told["error"] in result.stderr


def test_check_of_a_folder_without_policies_is_no_success(tmp_path: Path) -> None:
    result = ctl("policy", "check", tmp_path)
    assert result.exit_code == 1 and "no *.policy file" in result.stderr


def test_check_takes_a_file_as_large_as_policyd_does(tmp_path: Path) -> None:
    file = tmp_path / "large.policy"
    file.write_text("//" + "x" * (4 << 20) + "\n" + GOOD)
    result = ctl("policy", "check", file)
    assert result.exit_code == 0 and "ok: 1 policy" in result.stdout


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = ctl("policy", "check", tmp_path / "none.policy")
    assert result.exit_code == 1 and "can't read" in result.stderr


# --- doctor ---------------------------------------------------------------------------------------------------------------


def host(
    root: Path, *, lsm: str = "capability,bpf", lockdown: str = "[none] integrity", caps: str = "1ffffffffff"
) -> Path:
    for name, text in {
        "sys/kernel/btf/vmlinux": "x" * 4096,
        "sys/kernel/security/lsm": lsm,
        "sys/kernel/security/lockdown": lockdown,
        "proc/self/status": f"Name:\tx\nCapEff:\t{caps}\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def states(root: Path) -> dict[str, State]:
    return {check.name: check.state for check in static_checks("sh", root)}


def test_doctor_of_a_host_that_has_all(tmp_path: Path) -> None:
    assert set(states(host(tmp_path)).values()) == {State.OK}


@pytest.mark.parametrize(
    ("what", "name", "state"),
    [
        ({"lsm": "capability,yama"}, "LSM", State.NOTE),
        ({"lockdown": "none [confidentiality]"}, "lockdown", State.BAD),
        ({"caps": "0"}, "capabilities", State.NOTE),
    ],
)
def test_doctor_says_what_is_missing_and_what_it_costs(tmp_path: Path, what: Any, name: str, state: State) -> None:
    (check,) = [check for check in static_checks("sh", host(tmp_path, **what)) if check.name == name]
    assert check.state is state and check.cost


def test_doctor_of_a_host_without_anything(tmp_path: Path) -> None:
    found = {check.name: check.state for check in static_checks("no-such-program", tmp_path)}
    assert found["BTF"] is State.BAD and found["tcpdump"] is State.NOTE and found["LSM"] is State.NOTE


def test_doctor_names_accounts_that_do_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "execray.yaml"
    file.write_text("tracerd:\n  subscribers: [no-such-account]\n")
    result = ctl("--config", file, "--runtime-dir", tmp_path, "doctor", "--json")
    found = [check for check in json.loads(result.stdout)["host"] if check["name"] == "configuration"]
    assert any("no-such-account" in check["found"] and check["state"] == "note" for check in found)


# --- the small things -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (61, "1m 01s"), (3 * 3600 + 300, "3h 05m"), (200_000, "2d 7h"), (None, "?")]
)
def test_time_spans_as_people_say_them(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("text", ["10m", "1d", "2026-01-31", "2026-01-31T12:00:00+01:00"])
def test_since_takes_a_span_or_a_time(text: str) -> None:
    assert Since().convert(text, None, None).endswith("+00:00")


@pytest.mark.parametrize("text", ["soon", "10", "m", "9999999m", "2026-13-01"])
def test_since_refuses_the_rest(text: str) -> None:
    with pytest.raises(click.UsageError):
        Since().convert(text, None, None)


def test_a_table_escapes_and_aligns() -> None:
    assert table([["a", "b\x1b"], ["ccc", ""]]) == "a    b\\x1b\nccc"


@pytest.mark.parametrize(
    ("hook", "words", "style"),
    [
        ({"attached": True, "needed": True, "live": True, "last_seen_ms": 300}, "live, seen 0.3 s ago", "good"),
        ({"attached": True, "needed": True, "live": False}, "attached, but silent", "bad"),
        ({"attached": False, "needed": False}, "idle, no policy needs it", "warning"),
        ({"attached": False, "needed": True}, "missing", "bad"),
        ({"attached": False, "needed": True, "refused": "EPERM\x1b"}, "refused: EPERM\\x1b", "bad"),
    ],
)
def test_a_hook_in_words(hook: dict[str, Any], words: str, style: str) -> None:
    assert hook_words(hook) == (words, style)


@pytest.mark.parametrize(
    ("plugin", "words", "style"),
    [
        (
            {
                "kind": "sink",
                "name": "webhook",
                "package": "x 1.0",
                "state": "busy",
                "done": 12,
                "waiting": 1,
                "failed": 0,
            },
            "sink webhook (x 1.0): busy, 12 done, 1 waiting",
            "good",
        ),
        (
            {"kind": "action", "name": "block", "package": "x 1.0", "state": "down", "last_error": "it ended\x1b"},
            "action block (x 1.0): down, 0 done, 0 waiting. Last: it ended\\x1b",
            "bad",
        ),
        ({"name": "a", "state": "idle", "timeouts": 2}, "? a (?): idle, 0 done, 0 waiting, 2 timeouts", "bad"),
    ],
)
def test_a_plugin_in_words(plugin: dict[str, Any], words: str, style: str) -> None:
    assert plugin_words(plugin) == (words, style)


# --- what a command imports -----------------------------------------------------------------------------------------------

#: Each of these costs milliseconds, and no command needs it that isn't named beside it.
HEAVY = {
    "asyncio": (),
    "logging": (),
    "ssl": (),
    "subprocess": (),
    "llvmlite": (),
    "re2": ("policy check",),
    "uvloop": (),
    "policyd": ("policy check",),
    "execray.schema.catalog": ("policy check", "alerts list", "alerts show", "alerts tail", "events", "--help"),
    "execray.service": (),
    "yaml": ("alerts", "config", "events", "doctor", "mode", "policy list", "policy show", "reload", "status"),
}


@pytest.mark.parametrize(
    "command",
    [
        "version",
        "status",
        "config check",
        "config show",
        "doctor",
        "mode",
        "policy list",
        "policy show x",
        "policy check -",
        "reload",
        "alerts list",
        "alerts show abcd",
        "alerts tail",
        "events",
        "--help",
    ],
)
def test_a_command_imports_nothing_heavy_that_it_can_do_without(command: str, runtime: Path) -> None:
    code = f"""
import sys
from execray.ctl.main import main
try:
    main()
except SystemExit:
    pass
print("loaded", *(name for name in {list(HEAVY)} if name in sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "--runtime-dir", runtime, *command.split()],
        input=GOOD,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = done.stdout.rpartition("loaded")[2].split()
    assert [name for name in loaded if not any(command.startswith(allowed) for allowed in HEAVY[name])] == []


COUNTING = 'path "counts" key process within 5s { open {} times 5 distinct path on match { alert; notify "soc" } }'


def test_check_tells_bounds_and_knows_the_hosts_plugins_and_budget(tmp_path: Path) -> None:
    config = tmp_path / "execray.yaml"
    config.write_text("policyd: {actions: [soc], state_budget_mib: 1}\n")
    result = ctl("--config", config, "policy", "check", "-", "--json", stdin=COUNTING)
    found = json.loads(result.stdout)
    assert found["bounds"] == [
        {"name": "counts", "steps": 1, "places": 0, "partials": 1024, "partial_bytes": 360, "count_bytes": 368640}
    ]
    assert found["all"] == {"count_bytes": 368640, "budget_bytes": 1 << 20} and found["diagnostics"] == []
    config.write_text("policyd: {actions: []}\n")
    assert "ER0513" in ctl("--config", config, "policy", "check", "-", stdin=COUNTING).stdout
    config.write_text("policyd: {actions: [soc], state_budget_mib: 1}\n")
    much = COUNTING.replace("times 5", "times 50")
    result = ctl("--config", config, "policy", "check", "-", stdin=much)
    assert result.exit_code == 1 and "ER0415" in result.stdout


def test_check_knows_no_plugins_where_there_is_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execray.config.DEFAULT_PATH", tmp_path / "none.yaml")
    assert "ER0513" not in ctl("policy", "check", "-", stdin=COUNTING).stdout


@pytest.mark.parametrize(
    ("paths", "words", "style"),
    [
        ({"watched": 0}, "none to match by file", ""),
        ({"watched": 3, "resolved": 3, "looked_ms": 400}, "3 of 3 matched by file too, looked 0.4 s ago", "good"),
        (
            {"watched": 3, "resolved": 1, "looked_ms": 900, "unresolved": {"not there": 2}},
            "1 of 3 matched by file too, looked 0.9 s ago; by name only: 2 not there",
            "good",
        ),
        (
            {"watched": 3, "resolved": 3, "looked_ms": 99000, "stuck_at": "/srv/\x1b"},
            "3 of 3 matched by file too, looked 99.0 s ago; stuck at /srv/\\x1b",
            "bad",
        ),
        ({"watched": 2, "resolved": 0, "looked_ms": None}, "0 of 2 matched by file too, not looked yet", "good"),
        ({"failure": "no /proc"}, "matched by name only: no /proc", "bad"),
    ],
)
def test_paths_are_told_with_what_is_matched_by_name_only(paths: dict[str, Any], words: str, style: str) -> None:
    assert paths_words(paths) == (words, style)
