"""The registry of log events and the code say the same: walked on the source, both ways."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from execray.logreference import page
from execray.logwords import ALL, KEYS, WORDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("execray", "tracerd", "policyd", "enforcer")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "fatal", "log", "warn"}
#: Put together in execray/logs.py, not logged by a call.
MADE_BY_THE_FORMATTER = {"library", "lines lost"}
RESERVED = {"time", "level", "daemon", "event"}


@dataclass(frozen=True)
class LogCall:
    """One call of a logger, as far as the source tells; None: not a constant."""

    where: str
    package: str
    level: str
    event: str | None
    keys: frozenset[str | None]
    plain: bool  # nothing but an event, keys and a traceback


def is_logger(node: ast.expr) -> bool:
    match node:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name in ("log", "_log", "logger", "_logger", "logging")
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name)):
            return name in ("getLogger", "setup_logging")
    return False


def dict_of(node: ast.expr, function: ast.AST | None) -> ast.Dict | None:
    """The literal itself, or the one that was last assigned to the name before it is used."""
    if isinstance(node, ast.Dict):
        return node
    if not isinstance(node, ast.Name) or function is None:
        return None
    values = [
        (child.lineno, child.value)
        for child in ast.walk(function)
        if isinstance(child, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == node.id for target in child.targets)
        and child.lineno < node.lineno
    ]
    last = max(values, key=lambda found: found[0], default=(0, None))[1]
    return last if isinstance(last, ast.Dict) else None


def keys_of(call: ast.Call, function: ast.AST | None) -> frozenset[str | None]:
    keys: set[str | None] = set()
    for keyword in call.keywords:
        if keyword.arg == "exc_info":
            keys.add("trace")
        elif keyword.arg == "extra":
            outer = dict_of(keyword.value, function)
            inner = dict_of(outer.values[0], function) if outer is not None and len(outer.values) == 1 else None
            names = [None] if inner is None else inner.keys
            keys |= {key.value if isinstance(key, ast.Constant) else None for key in names}  # type: ignore[misc]
    return frozenset(keys)


def calls_in(path: Path, root: Path = ROOT) -> Iterator[LogCall]:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in LEVELS or not is_logger(node.func.value):
            continue
        around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
        function = max(around, key=lambda f: f.lineno, default=None)
        first = node.args[0] if node.args else None
        yield LogCall(
            where=f"{path.relative_to(root)}:{node.lineno}",
            package=path.relative_to(root).parts[0],
            level=node.func.attr,
            event=first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None,
            keys=keys_of(node, function),
            plain=len(node.args) == 1 and {k.arg for k in node.keywords} <= {"extra", "exc_info"},
        )


CALLS = [call for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) for call in calls_in(path)]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.where)
def test_call_logs_an_event_of_the_registry_with_its_level_and_keys(call: LogCall) -> None:
    assert call.event is not None and call.plain, f"{call.where}: the message is a constant, values go into `kv`"
    assert call.event in WORDS, f"{call.where}: add `{call.event}` to execray/logwords.py, and run `make docs`"
    word = WORDS[call.event]
    assert call.level == word.level
    assert None not in call.keys, f"{call.where}: `kv` must be a literal whose keys can be read here"
    assert call.keys <= set(word.keys)
    assert call.package == "execray" or call.package in word.daemons


@pytest.mark.parametrize("event", WORDS)
def test_row_is_logged_somewhere_with_every_key_and_by_everyone_it_names(event: str) -> None:
    word = WORDS[event]
    calls = [call for call in CALLS if call.event == event]
    if event in MADE_BY_THE_FORMATTER:
        assert not calls
        return
    assert calls, "nobody logs it"
    assert {key for call in calls for key in call.keys} == set(word.keys)
    packages = {call.package for call in calls}
    assert "execray" in packages or packages == set(word.daemons)


def test_rows_are_well_formed() -> None:
    for event, word in WORDS.items():
        assert set(word.daemons) <= set(ALL) and word.daemons and word.meaning.endswith(".") and "|" not in word.meaning
        assert set(word.keys) <= set(KEYS) - RESERVED, event
        assert word.level in ("critical", "error", "warning", "info", "any")
        assert word.todo or word.level not in ("critical", "error"), f"{event}: what is somebody to do about it?"
    assert set(KEYS) == {key for word in WORDS.values() for key in word.keys}


def test_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/reference/logs.md").read_text() == page(), "make docs"


def test_the_walk_finds_what_is_wrong(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    source = tmp_path / "x.py"
    source.write_text(
        "def f(self, e, kv):\n    self._log.warning(f'{e}', extra={'kv': kv})\n    logging.error('a %s', e)\n"
    )
    first, second = calls_in(source, tmp_path)
    assert first.event is None and first.keys == {None} and not second.plain


@pytest.mark.parametrize("package", ["tracerd", "policyd", "enforcer"])
def test_daemons_print_nothing(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Name("print")):
                    raise AssertionError(f"{path}:{node.lineno} prints")
                case ast.Attribute(ast.Name("sys"), "stderr"):
                    raise AssertionError(f"{path}:{node.lineno} writes to stderr past the log")
