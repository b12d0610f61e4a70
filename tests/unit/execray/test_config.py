"""The configuration file: defaults, every key, and mistakes in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from execray import config as configuration
from execray.config import Config, EnforcerConfig, PolicydConfig, TracerdConfig, load
from execray.errors import ConfigError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "execray.yaml"
    path.write_text(text)
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
            tracerd=TracerdConfig(syscall_counter=True, subscriber_uids=(1, 2)),
            policyd=PolicydConfig(policy_dirs=(Path("/a"), Path("/b")), alert_throttle=(3, 5.0)),
            enforcer=EnforcerConfig(order_uids=(998,), kills_per_minute=0, captures_at_once=0),
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
        ("enforcer: {kills: 1}", "unknown key `enforcer.kills`", "order_uids"),
        ("mode: kill", "`mode` is `kill`", "one of audit, enforce"),
        ("mode: true", "`mode` must be text", ""),
        ("enforcer: {kills_per_minute: -1}", "`enforcer.kills_per_minute` is -1", "from 0 to 10000"),
        ("enforcer: {kills_per_minute: true}", "must be a whole number", ""),
        ("enforcer: {kills_per_minute: 1.5}", "must be a whole number", ""),
        ("enforcer: {order_max_age_s: .inf}", "is inf", "from 0.1 to 300"),
        ("enforcer: {order_max_age_s: .nan}", "is nan", "from 0.1 to 300"),
        ("enforcer: {order_uids: 0}", "`enforcer.order_uids` must be a list", "[a, b]"),
        ("enforcer: {order_uids: [root]}", "`enforcer.order_uids` must be a whole number", ""),
        ("enforcer: [1]", "enforcer must be a mapping, not a list", "key: value"),
        ("enforcer:", "enforcer must be a mapping, not empty", "key: value"),
        ("policyd: {alert_throttle: [1]}", "`policyd.alert_throttle` must be a list", ""),
        ("policyd: {sinks: [file, syslog]}", "`policyd.sinks` is `syslog`", "file, stdout, journal"),
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
    with pytest.raises(ConfigError, match="Is a directory"):
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
    assert config.order_socket == Path("/r/enforcer.sock")
    assert config.control_socket("policyd") == Path("/r/policyd-ctl.sock")
    for path in (config.alerts_file, config.capture_dir, config.audit_log):
        assert path.is_relative_to("/s")


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"execray\.yaml:3:1: .*`mode` stands here twice"):
        load(written(tmp_path, "mode: audit\ngroup: x\nmode: enforce\n"))
    with pytest.raises(ConfigError, match="twice"):
        load(written(tmp_path, "enforcer: {kills_per_minute: 1, kills_per_minute: 100}"))


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
