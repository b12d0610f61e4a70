"""Who may import whom: the walls of the house, checked on the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAEMONS = {"tracerd", "policyd", "enforcer"}
OURS = DAEMONS | {"execray"}
PURE = {"asyncio", "socket", "time", "pathlib", "os", "threading", "subprocess", "uvloop"}

#: package -> the packages of ours that it may import, beside itself.
MAY_IMPORT = {
    "execray.schema": {"execray.process"},
    "execray.wire": {"execray.schema", "execray.process", "execray.errors"},
    "execray.ctl": {
        "execray",
        "policyd.compiler",
        "policyd.engine",
        "policyd.gate",
        "policyd.program",
        "policyd.workbench",
    },
    "execray": {"execray"},
    "policyd.compiler": {"execray.schema", "execray.errors", "execray.plugins", "policyd.program", "policyd.patterns"},
    "policyd.engine": {"execray.schema", "execray.wire", "execray.errors", "policyd.program", "policyd.patterns"},
    "policyd": {"execray", "policyd"},
    "tracerd": {"execray", "tracerd"},
    "enforcer": {"execray", "enforcer"},
}
#: module -> the only files that may import it.
ONLY_IN = {
    "pylibbpf": {"tracerd/loader.py"},
    "uvloop": {"policyd/cli.py"},
    "re2": {"policyd/patterns.py", "policyd/engine/atoms.py"},
    "yaml": {"execray/config_load.py", "policyd/workbench/vectors.py"},
}


def sources() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:2])
    return name if name in MAY_IMPORT else parts[0]


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_each_module_imports_only_what_its_package_may(path: Path) -> None:
    package = package_of(path)
    for module in imports(path):
        if module.split(".")[0] in OURS:
            allowed = MAY_IMPORT[package] | {package}
            assert any(within(module, other) for other in allowed), f"{package} must not import {module}"
        where = ONLY_IN.get(module.split(".")[0])
        assert where is None or str(path.relative_to(ROOT)) in where, f"{module} belongs in {where}"


@pytest.mark.parametrize("package", ["policyd.compiler", "policyd.engine", "execray.schema", "execray.wire"])
def test_the_pure_parts_do_no_input_or_output(package: str) -> None:
    for path in (ROOT / package.replace(".", "/")).rglob("*.py"):
        if path.name in ("reference.py", "kinds.py"):  # a page's generator; constants that `os` and `socket` name
            continue
        assert not PURE & {module.split(".")[0] for module in imports(path)}, path


def test_nobody_imports_a_daemons_outermost_modules() -> None:
    for path in sources():
        for module in imports(path):
            if module.split(".")[0] in DAEMONS and module.split(".")[-1] in ("daemon", "cli"):
                assert path.name in ("cli.py", "__main__.py"), f"{path} imports {module}"


def test_signals_to_others_are_sent_in_one_place() -> None:
    for path in sources():
        names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
        if names & {"pidfd_send_signal", "killpg"}:
            assert path == ROOT / "execray" / "killer.py"
