"""tests/conftest.py: who must be alone says why, and the tests of the kernel are never at two workers at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import conftest

TREE = Path(__file__).parents[2]


class Marked:
    """A test with a mark, as far as collecting looks at it."""

    nodeid = "tests/kernel/test_a.py::test_a"

    def __init__(self, *why: object) -> None:
        self._marks = [pytest.mark.alone.with_args(*why).mark]

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self._marks if mark.name == name]


@pytest.mark.parametrize("why", [(), ("",), (" ",), (3,), ("so", "and so")])
def test_alone_without_a_reason_is_refused(request: pytest.FixtureRequest, why: tuple[object, ...]) -> None:
    with pytest.raises(pytest.UsageError, match="alone"):
        conftest.pytest_collection_modifyitems(request.config, [Marked(*why)])  # type: ignore[list-item]  # enough of one


def test_alone_with_a_reason_is_taken(request: pytest.FixtureRequest) -> None:
    conftest.pytest_collection_modifyitems(request.config, [Marked("measures")])  # type: ignore[list-item]  # enough of one


def test_whatever_loads_programs_into_the_kernel_is_one_workers() -> None:
    """Where Live, a Stack or an Arena is used, a folder is of that scope, or run before (BEFORE in the Makefile)."""
    before = ("unit", "fuzz")
    uses = ("tests.support.live", "tests.support.arena", "deploy.foreground.stack", "tests.support.tracerds")
    for file in sorted((TREE / "tests").glob("*/test_*.py")):
        folder = file.parent.name
        if folder not in before and any(f"from {name} import" in file.read_text(encoding="utf-8") for name in uses):
            nodeid = str(file.relative_to(TREE)) + "::test_a"
            assert conftest._scope(nodeid) == "kernel", nodeid


def test_of_the_quiet_ones_each_file_is_for_whoever_has_nothing_to_do() -> None:
    scopes = {
        name: conftest._scope(f"tests/{name}::test_a")
        for name in ("properties/test_a.py", "vm/test_a.py", "e2e/test_a.py")
    }
    assert scopes == {
        "properties/test_a.py": "tests/properties/test_a.py",
        "vm/test_a.py": "tests/vm/test_a.py",
        "e2e/test_a.py": "kernel",
    }
