"""The language page shows only what compiles, and names what the catalogue has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from execray.schema.catalog import EVENTS
from policyd.compiler import compile_source
from policyd.compiler.comparisons import OPERATORS

PAGE = (Path(__file__).parents[4] / "docs" / "language.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_compiles(example: str) -> None:
    compilation = compile_source(example, "docs/language.md")
    assert compilation.ok, compilation.diagnostics
    assert compilation.policies


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_every_event_and_operator_is_named() -> None:
    words = set(re.findall(r"`([^`\s]+)", PAGE))
    assert {event.name for event in EVENTS} <= words
    table = PAGE.replace("\\|", "|")
    assert all(f"`{operator}" in table for operator in OPERATORS)
