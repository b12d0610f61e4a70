"""The configuration file: defaults, every key, and mistakes in words."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from execray import config as configuration
from execray.config import Config, EnforcerConfig, PolicydConfig, TracerdConfig, load, load_layers, uids_of
from execray.errors import ConfigError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing an owner needs root")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "execray.yaml"
    path.write_text(text)
    path.chmod(0o644)
    return path


def drop_in(tmp_path: Path, name: str, text: str) -> Path:
    folder = tmp_path / "execray.d"
    folder.mkdir(mode=0o755, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_no_file_means_defaults_and_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_PATH", tmp_path / "missing.yaml")
    assert load() == Config() and Config().mode == "audit"


def test_default_file_is_read_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_PATH", written(tmp_path, "mode: enforce"))
    assert load().mode == "enforce"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_empty_file_means_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text)) == Config()


def as_yaml(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_yaml(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [as_yaml(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(
            mode="enforce",
            runtime_dir=Path("/run/x"),
            protect_exe=(),
            protect_comm=("db",),
            tracerd=TracerdConfig(syscall_counter=True, subscribers=(1, "root"), registrants=()),
            policyd=PolicydConfig(policy_dirs=(Path("/a"), Path("/b")), disabled=("x y",), alert_throttle=(3, 5.0)),
            enforcer=EnforcerConfig(orderers=(998,), kills_per_minute=0, captures_at_once=0),
        ),
    ],
)
def test_every_key_can_be_written_and_read_back(tmp_path: Path, config: Config) -> None:
    assert load(written(tmp_path, yaml.safe_dump(as_yaml(config)))) == config


def test_whole_number_is_fine_where_a_fraction_may_stand(tmp_path: Path) -> None:
    assert load(written(tmp_path, "enforcer: {order_max_age_s: 2}")).enforcer.order_max_age_s == 2.0


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("mdoe: enforce", "unknown key `mdoe`", "the keys here are mode"),
        ("enforcer: {kills: 1}", "unknown key `enforcer.kills`", "orderers"),
        ("mode: kill", "`mode` is `kill`", "one of audit, enforce"),
        ("mode: true", "`mode` must be text", ""),
        ("enforcer: {kills_per_minute: -1}", "`enforcer.kills_per_minute` is -1", "from 0 to 10000"),
        ("enforcer: {kills_per_minute: true}", "must be a whole number", ""),
        ("enforcer: {kills_per_minute: 1.5}", "must be a whole number", ""),
        ("enforcer: {order_max_age_s: .inf}", "is inf", "from 0.1 to 300"),
        ("enforcer: {order_max_age_s: .nan}", "is nan", "from 0.1 to 300"),
        ("enforcer: {orderers: 0}", "`enforcer.orderers` must be a list", "[a, b]"),
        ("enforcer: {orderers: [1.5]}", "`enforcer.orderers` must be a user's name or number", ""),
        ("enforcer: {orderers: [true]}", "`enforcer.orderers` must be a user's name or number", ""),
        ("tracerd: {subscribers: [-1]}", "`tracerd.subscribers` is -1", "from 0"),
        ('group: "a\\0b"', "`group` has a character", ""),
        ('group: "\\ud800"', "`group` has a character", ""),
        ("group: 2001-99-99", "month must be in", ""),
        ("enforcer: [1]", "enforcer must be a mapping, not a list", "key: value"),
        ("enforcer:", "enforcer must be a mapping, not empty", "key: value"),
        ("policyd: {alert_throttle: [1]}", "`policyd.alert_throttle` must be a list", ""),
        ("policyd: {sinks: [file, Sys Log]}", "`policyd.sinks` has `Sys Log`", "small letters"),
        ("policyd: {actions: [../x]}", "`policyd.actions` has `../x`", "small letters"),
        ("policyd: {plugins: [x]}", "`policyd.plugins` must be a mapping, not a list", "NAME: {setting: value}"),
        ("policyd: {plugins: {x.y: {}}}", "`policyd.plugins` has `x.y`", "small letters"),
        ("policyd: {plugins: {7: {}}}", "`policyd.plugins` has a name that is 7", "name"),
        ("policyd: {plugins: {x: 5}}", "`policyd.plugins.x` is 5", "mapping"),
        ("policyd: {plugins: {x: {a: {b: 1}}}}", "`policyd.plugins.x` has a setting 'a' of another kind", "a list"),
        ("policyd: {plugins: {x: {a: [[1]]}}}", "`policyd.plugins.x` has a setting 'a' of another kind", "a list"),
        ("policyd: {plugins: {x: {a: }}}", "`policyd.plugins.x` has a setting 'a' of another kind", "a list"),
        ("policyd: {plugins: {x: {a: .nan}}}", "`policyd.plugins.x` has a setting 'a' of another kind", "a number"),
        ("policyd: {plugin_timeout_s: 0}", "`policyd.plugin_timeout_s` is 0", "from 0.1 to 300"),
        ("protect_exe: [1]", "`protect_exe` must be text", ""),
        ("- 1", "the file must be a mapping, not a list", ""),
        ("mode: [", "not valid YAML", "mend that line"),
        ("mode: !!python/object/apply:os.getpid []", "not valid YAML", ""),
        ("1: 2", "unknown key `1`", ""),
        ("? [a]\n: 1", "", ""),
    ],
)
def test_mistake_is_an_operator_error_that_names_it(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in caught.value.message and hint in caught.value.hint
    assert str(path) in caught.value.message and "\n" not in caught.value.message


def test_missing_and_unreadable_files_are_operator_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path)
    (tmp_path / "binary").write_bytes(b"mode: \xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary")


@given(st.text(max_size=60))
def test_any_text_is_a_configuration_or_an_operator_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("c") / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(load(path), Config)
    except ConfigError:
        return


def test_paths_follow_the_two_folders() -> None:
    config = Config(runtime_dir=Path("/r"), state_dir=Path("/s"))
    assert config.order_socket == Path("/r/enforcer/orders.sock")
    assert config.stream_socket == Path("/r/tracerd/stream.sock")
    assert config.control_socket("policyd") == Path("/r/policyd/ctl.sock") == config.daemon_dir("policyd") / "ctl.sock"
    for path in (config.alerts_file, config.capture_dir, config.audit_log):
        assert path.is_relative_to("/s")


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"execray\.yaml:3:1: .*`mode` stands here twice"):
        load(written(tmp_path, "mode: audit\ngroup: x\nmode: enforce\n"))
    with pytest.raises(ConfigError, match="twice"):
        load(written(tmp_path, "enforcer: {kills_per_minute: 1, kills_per_minute: 100}"))


def test_settings_of_plugins_are_merged_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "policyd:\n  plugins:\n    a: {url: x, tags: [1, b, true]}\n    b: {deep: 1}\n")
    site = drop_in(tmp_path, "10-site.yaml", "policyd:\n  plugins:\n    b: {}\n    c: {ratio: 0.5}\n")
    layered = load_layers(path)
    assert layered.config.policyd.plugins == {"a": {"url": "x", "tags": [1, "b", True]}, "b": {}, "c": {"ratio": 0.5}}
    assert layered.origin["policyd.plugins.a"] == f"{path}:3"
    assert layered.origin["policyd.plugins.b"] == f"{site}:3"


def test_protected_program_without_its_whole_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="protect_exe"):
        load(written(tmp_path, "protect_exe: [/usr/sbin/sshd, postgres]"))


@pytest.mark.parametrize("throttle", ["[0, 60]", "[1, 0]", "[1, -5.0]", "[1, .inf]", "[1, .nan]", "[99999, 1]"])
def test_throttle_that_holds_back_all_or_nothing_is_refused(tmp_path: Path, throttle: str) -> None:
    with pytest.raises(ConfigError, match="alert_throttle"):
        load(written(tmp_path, f"policyd: {{alert_throttle: {throttle}}}"))


def test_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(written(tmp_path, "[" * 100_000))


# --- layers -----------------------------------------------------------------------------------------------------------


def test_drop_ins_are_laid_over_the_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = written(
        tmp_path, "mode: enforce\nprotect_comm: [a, b]\nenforcer:\n  kills_per_minute: 5\n  capture_max_mib: 2\n"
    )
    drop_in(tmp_path, "90-mode.yaml", "mode: enforce\n")
    drop_in(tmp_path, "10-site.yaml", "# ours\nmode: audit\nprotect_comm: [c]\nenforcer: {kills_per_minute: 7}\n")
    drop_in(tmp_path, "50-empty.yaml", "# nothing\n")
    config = load(path)
    assert (config.mode, config.protect_comm) == ("enforce", ("c",))  # a list replaces the one before
    assert (config.enforcer.kills_per_minute, config.enforcer.capture_max_mib) == (7, 2)
    assert config.enforcer.capture_keep == EnforcerConfig().capture_keep


def test_every_key_has_an_origin(tmp_path: Path) -> None:
    path = written(tmp_path, "# first line\nmode: audit\nenforcer:\n  kills_per_minute: 5\n  capture_max_mib: 2\n")
    site = drop_in(tmp_path, "10-site.yaml", "\nenforcer: {kills_per_minute: 7}\n")
    layers = load_layers(path)
    assert {key: where for key, where in layers.origin.items() if where != "default"} == {
        "mode": f"{path}:2",
        "enforcer.kills_per_minute": f"{site}:2",
        "enforcer.capture_max_mib": f"{path}:5",
    }
    assert set(layers.origin) == set(dotted(as_yaml(Config())))


def dotted(value: object, prefix: str = "") -> Iterator[str]:
    assert isinstance(value, dict)
    for key, item in value.items():
        if isinstance(item, dict):
            yield from dotted(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_drop_ins_count_also_where_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_PATH", tmp_path / "execray.yaml")
    drop_in(tmp_path, "90-mode.yaml", "mode: enforce")
    assert load().mode == "enforce"


def test_only_yaml_files_that_are_not_hidden_are_read(tmp_path: Path) -> None:
    for name in (".90-mode.yaml", "mode.yaml~", "README", "mode.yaml.dpkg-old"):
        drop_in(tmp_path, name, "mode: enforce")
    assert load(written(tmp_path, "")) == Config()


def test_mistake_in_a_drop_in_is_named_by_its_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, "mode: enforce")
    drop = drop_in(tmp_path, "10-a.yaml", "log_level: info\nenforcer:\n  kill_per_minute: 1\n")
    with pytest.raises(ConfigError, match=rf"{drop}:3: unknown key `enforcer\.kill_per_minute`"):
        load(path)


def test_place_of_the_drop_ins_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "execray.d").touch(mode=0o644)
    with pytest.raises(ConfigError, match=r"can't read .*/execray\.d"):
        load(written(tmp_path, ""))


# --- who may have written it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "drop-in", "folder"])
def test_what_others_may_write_to_is_refused(tmp_path: Path, what: str) -> None:
    path = written(tmp_path, "mode: audit")
    drop = drop_in(tmp_path, "a.yaml", "mode: audit")
    load(path)
    loose = {"file": path, "drop-in": drop, "folder": drop.parent}[what]
    loose.chmod(loose.stat().st_mode | 0o002)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.message == f"{loose}: may be written by others" and caught.value.hint == f"chmod go-w {loose}"


@needs_root
@pytest.mark.parametrize("what", ["file", "drop-in", "folder"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path, what: str) -> None:
    path = written(tmp_path, "mode: audit")
    drop = drop_in(tmp_path, "a.yaml", "mode: audit")
    theirs = {"file": path, "drop-in": drop, "folder": drop.parent}[what]
    os.chown(theirs, 65534, 0)
    with pytest.raises(ConfigError, match=f"{theirs}: owned by uid 65534"):
        load(path)


@needs_root
def test_group_of_its_own_may_not_write_it_and_that_of_root_may(tmp_path: Path) -> None:
    path = written(tmp_path, "mode: enforce")
    path.chmod(0o664)
    os.chown(path, 0, 0)
    assert load(path).mode == "enforce"
    os.chown(path, 0, 65534)
    with pytest.raises(ConfigError, match="written by others"):
        load(path)


def test_pipe_in_the_place_of_the_file_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "execray.yaml", 0o644)
    with pytest.raises(ConfigError, match="not a regular file"):
        load(tmp_path / "execray.yaml")


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the limit"):
        load(written(tmp_path, "# " + "x" * 1_100_000))


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_accounts_are_names_or_numbers_and_a_name_that_nobody_has_permits_nobody() -> None:
    assert uids_of(["root", 4711, "no-such-user-here"]) == (frozenset({0, 4711}), ("no-such-user-here",))


def test_defaults_name_the_services_own_accounts() -> None:
    config = Config()
    assert config.tracerd.subscribers == config.enforcer.orderers == ("execray-policyd",)
    assert config.tracerd.registrants == ("execray-policyd", "execray-enforcer")


@pytest.mark.parametrize(("written", "mode"), [("on", "on"), ("off", "off"), ("shadow", "shadow"), ("'off'", "off")])
def test_the_gate_is_switched_with_words_that_yaml_takes_for_truth_values(
    tmp_path: Path, written: str, mode: str
) -> None:
    (tmp_path / "execray.yaml").write_text(f"tracerd:\n  gate: {written}\n")
    (tmp_path / "execray.yaml").chmod(0o600)
    assert load(tmp_path / "execray.yaml").tracerd.gate == mode
