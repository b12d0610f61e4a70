"""Reads the configuration: defaults, then the file, then the drop-ins beside it in the order of their names.

A drop-in names only what it changes; a list replaces the one before. A key that isn't known is an error: a misspelt `mode`
must not silently mean audit, nor a misspelt `protect` nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from execray.config import Config, Layered
from execray.errors import ConfigError
from execray.plugins import PLUGIN_NAME
from execray.trust import Untrusted, distrust, read_trusted

MAX_FILE_BYTES: Final = 1024 * 1024
MAX_DROP_INS: Final = 256
DEFAULT: Final = "default"
MAX_UID: Final = 2**32 - 2

_RANGES: dict[str, tuple[float, float]] = {
    "buffer_mib": (1, 1024),
    "flush_ms": (0.1, 1000),
    "rest_ms": (0, 1000),
    "heartbeat_s": (0.1, 60),
    "process_cache": (1024, 4_194_304),
    "alerts_max_mib": (1, 4096),
    "alerts_keep": (1, 100),
    "order_timeout_ms": (1, 10_000),
    "state_budget_mib": (1, 65_536),
    "plugin_timeout_s": (0.1, 300),
    "plugin_memory_mib": (64, 65_536),
    "kills_per_minute": (0, 10_000),
    "kills_per_minute_per_policy": (0, 10_000),
    "order_max_age_s": (0.1, 300),
    "capture_max_s": (0.1, 3600),
    "capture_max_mib": (1, 4096),
    "captures_at_once": (0, 64),
    "capture_keep": (1, 100_000),
    "subscribers": (0, MAX_UID),
    "registrants": (0, MAX_UID),
    "orderers": (0, MAX_UID),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": ("audit", "enforce"),
    "gate": ("on", "off", "shadow"),
    "inline": ("on", "off"),
    "log_level": ("debug", "info", "warning", "error"),
}
_SWITCH: Final = {"on", "off"}
#: Lists whose elements, and mappings whose keys, are names of plug-ins; which of them exist is known where they run.
_PLUGIN_NAMES: Final = ("sinks", "actions", "plugins")
MAX_SETTINGS: Final = 64  # of one plug-in
_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    str | int: "a user's name or number",
}


def load_layers(path: Path, must_exist: bool) -> Layered:
    """Reads a file and its drop-ins, STEM.d/*.yaml beside it. Raises ConfigError."""
    values: dict[str, object] = {}
    origin = dict.fromkeys(_keys(Config), DEFAULT)
    files = _drop_ins(path.with_name(f"{path.stem}.d"))
    if must_exist or path.exists():
        files.insert(0, path)
    for file in files:
        for key, value, line in _section(Config, _parsed(file), "", file):
            values[key] = value
            origin[key] = f"{file}:{line}"
    config = _built(Config, values, "")
    assert isinstance(config, Config)
    return Layered(config, origin)


def _keys(cls: type[Any], prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{name}.")  # type: ignore[arg-type]  # is_dataclass also admits instances
        elif not _is_mapping(kind):  # its keys are the operator's
            yield name


def _built(cls: type[Any], values: dict[str, object], prefix: str) -> object:
    hints = typing.get_type_hints(cls)
    given: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(kind):
            given[field.name] = _built(kind, values, f"{name}.")  # type: ignore[arg-type]
        elif _is_mapping(hints[field.name]):
            entries = {
                key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")
            }
            given[field.name] = entries
        elif name in values:
            given[field.name] = values[name]
    return cls(**given)


# --- files ------------------------------------------------------------------------------------------------------------


def _drop_ins(folder: Path) -> list[Path]:
    try:
        found = folder.stat()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"can't read {folder}: {error.strerror}", "check its owner and mode") from error
    if doubt := distrust(folder, found, {0, os.geteuid()}):
        raise ConfigError(f"{folder}: {doubt[0]}", doubt[1])
    try:
        # A hidden file is one that somebody is about to write.
        names = sorted(name for name in os.listdir(folder) if name.endswith(".yaml") and not name.startswith("."))  # noqa: PTH208
    except OSError as error:
        raise ConfigError(f"can't read {folder}: {error.strerror}", "it must be a folder that we may read") from error
    if len(names) > MAX_DROP_INS:
        raise ConfigError(f"{folder} has {len(names)} files, and {MAX_DROP_INS} are the limit", "merge some")
    return [folder / name for name in names]


def _read(path: Path) -> str:
    try:
        return read_trusted(path, {0, os.geteuid()}, MAX_FILE_BYTES).decode("utf-8")
    except PermissionError as error:
        hint = "the daemons and the group read it too: chmod 644"
        raise ConfigError(f"can't read {path}: {error.strerror}", hint) from error
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", "name another file with --config") from error
    except Untrusted as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text", "save it as UTF-8") from error


class _Mapping(dict[Any, Any]):
    """A mapping that knows the lines its keys stand in."""

    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: of two modes, the one that was overlooked would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises ConstructorError for a key that came before."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"`{key.value}` stands here twice", key.start_mark
                    )
                lines[key.value] = key.start_mark.line + 1
        found = _Mapping(super().construct_mapping(node, deep))
        found.lines = lines
        return found


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _parsed(path: Path) -> object:
    try:
        raw = yaml.load(_read(path), Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}", "mend that line") from error
    except (RecursionError, ValueError) as error:
        # ValueError: what YAML takes for a date and Python doesn't
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"{path}: {why}", "the deepest value is a list in a section") from error
    return {} if raw is None else raw


# --- values -----------------------------------------------------------------------------------------------------------


def _section(cls: type[Any], raw: object, prefix: str, path: Path) -> Iterator[tuple[str, object, int]]:
    """Yields the dotted key, the value and the line of everything that is given."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: {prefix.rstrip('.') or 'the file'} must be a mapping, not {_kind(raw)}",
            "write `key: value` lines",
        )
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    lines: dict[str, int] = getattr(raw, "lines", {})
    for key, value in raw.items():
        line = lines.get(key, 0) if isinstance(key, str) else 0
        where = Path(f"{path}:{line}") if line else path
        if key not in names:
            raise ConfigError(f"{where}: unknown key `{prefix}{key}`", f"the keys here are {', '.join(names)}")
        if dataclasses.is_dataclass(kind := hints[key]):
            yield from _section(kind, value, f"{prefix}{key}.", path)  # type: ignore[arg-type]
        elif _is_mapping(kind):
            yield from _entries(value, f"{prefix}{key}", where, path)
        else:
            yield f"{prefix}{key}", _value(kind, value, f"{prefix}{key}", where), line


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is Mapping


def _entries(raw: object, name: str, where: Path, path: Path) -> Iterator[tuple[str, object, int]]:
    """Yields the dotted key, the settings and the line of each plug-in that has any."""
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{where}: `{name}` must be a mapping, not {_kind(raw)}", "write `NAME: {setting: value}` lines"
        )
    lines: dict[str, int] = getattr(raw, "lines", {})
    for key, value in raw.items():
        line = lines.get(str(key), 0)
        at = Path(f"{path}:{line}") if line else path
        if not isinstance(key, str):
            raise ConfigError(f"{at}: `{name}` has a name that is {key!r}", "write the plug-in's name")
        _bounded(key, name, at)
        yield f"{name}.{key}", _settings(value, f"{name}.{key}", at), line


def _settings(raw: object, name: str, where: Path) -> dict[str, object]:
    if not isinstance(raw, dict) or len(raw) > MAX_SETTINGS:
        found = f"has {len(raw)} settings" if isinstance(raw, dict) else f"is {_kind(raw)}"
        raise ConfigError(f"{where}: `{name}` {found}", f"write a mapping of at most {MAX_SETTINGS} settings")
    for key, value in raw.items():
        items = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or not all(map(_is_scalar, items)):
            hint = "a setting is a text, a number, true or false, or a list of these"
            raise ConfigError(f"{where}: `{name}` has a setting {str(key)[:64]!r} of another kind", hint)
    return dict(raw)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _value(kind: Any, value: object, name: str, where: Path) -> object:
    if isinstance(kind, types.GenericAlias) or typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        if not isinstance(value, list) or (items[-1] is not ... and len(value) != len(items)):
            raise ConfigError(f"{where}: `{name}` must be a list, not {_kind(value)}", "write it as [a, b]")
        kinds = [items[0]] * len(value) if items[-1] is ... else list(items)
        found = tuple(_value(k, v, name, where) for k, v in zip(kinds, value, strict=True))
        _check_list(found, name, where)
        return found
    if isinstance(value, bool) and kind is str and {*_CHOICES.get(name.rpartition(".")[2], ())} >= _SWITCH:
        value = "on" if value else "off"  # YAML reads these two words as true and false
    wanted: tuple[type, ...] = {Path: (str,), float: (int, float), str | int: (str, int)}.get(kind, (kind,))
    # bool is an int in Python, never in a configuration
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where}: `{name}` must be {_NAMES.get(kind, str(kind))}, not {_kind(value)}")
    return _bounded(value if isinstance(kind, types.UnionType) else kind(value), name, where)


def _bounded(value: object, name: str, where: Path) -> object:
    leaf = name.rpartition(".")[2]
    if isinstance(value, int | float) and leaf in _RANGES:
        low, high = _RANGES[leaf]
        if not low <= value <= high:
            raise ConfigError(f"{where}: `{name}` is {value}", f"it must be from {low:g} to {high:g}")
    if isinstance(value, str) and leaf in _CHOICES and value not in _CHOICES[leaf]:
        raise ConfigError(f"{where}: `{name}` is `{value}`", f"it must be one of {', '.join(_CHOICES[leaf])}")
    if isinstance(value, str) and leaf in _PLUGIN_NAMES and not PLUGIN_NAME.fullmatch(value):
        hint = "small letters, digits, `_` and `-`, beginning with a letter, at most 64"
        raise ConfigError(f"{where}: `{name}` has `{value}`, which is no name of a plug-in", hint)
    if isinstance(value, str | Path) and not _usable(str(value)):
        raise ConfigError(f"{where}: `{name}` has a character that no name may have")
    return value


def _usable(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _check_list(found: tuple[Any, ...], name: str, where: Path) -> None:
    if name == "protect_exe" and (relative := [exe for exe in found if exe and not exe.startswith("/")]):
        # It would protect nothing: programs are known by their whole path.
        raise ConfigError(f"{where}: `{name}` has `{relative[0]}`", "write the whole path, or use `protect_comm`")
    if name == "policyd.alert_throttle":
        most, seconds = found
        if not (1 <= most <= 10_000 and 0 < seconds <= 86_400):
            hint = "write [N, SECONDS]: N from 1 to 10000, in more than 0 and at most 86400 seconds"
            raise ConfigError(f"{where}: `{name}` is {list(found)}", hint)


def _kind(value: object) -> str:
    kinds = {dict: "a mapping", _Mapping: "a mapping", list: "a list", str: "text", type(None): "empty"}
    return kinds.get(type(value), repr(value))
