"""The configuration that is installed: every key stands in it, commented out, with its default."""

from __future__ import annotations

import re
from pathlib import Path

from execray.config import Config, load, load_layers

SHIPPED = Path(__file__).parents[3] / "deploy" / "config" / "execray.yaml"
KEY = re.compile(r"#((?: {2})?[a-z_]+:(?: .*)?)")


def keys_in_force(text: str) -> str:
    """The file as it would be with every key taken in."""
    return "\n".join(KEY.fullmatch(line)[1] if KEY.fullmatch(line) else line for line in text.splitlines())  # type: ignore[index]  # matched


def test_as_shipped_it_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "execray.yaml"
    copy.write_text(SHIPPED.read_text())
    copy.chmod(0o644)
    found = load_layers(copy)
    assert found.config == Config()
    assert set(found.origin.values()) == {"default"}


def test_it_names_every_key_with_its_default(tmp_path: Path) -> None:
    copy = tmp_path / "execray.yaml"
    copy.write_text(keys_in_force(SHIPPED.read_text()))
    copy.chmod(0o644)
    found = load_layers(copy)
    assert found.config == Config()
    assert [key for key, origin in found.origin.items() if origin == "default"] == []


def test_every_key_is_explained() -> None:
    lines = SHIPPED.read_text().splitlines()
    for number, line in enumerate(lines):
        if KEY.fullmatch(line):
            before = next(earlier for earlier in reversed(lines[:number]) if not KEY.fullmatch(earlier))
            assert before.lstrip().startswith("# "), f"{line} has no words above it"


def test_a_key_taken_in_alone_is_read(tmp_path: Path) -> None:
    copy = tmp_path / "execray.yaml"
    copy.write_text(SHIPPED.read_text().replace("#mode: audit", "mode: enforce"))
    copy.chmod(0o644)
    assert load(copy).mode == "enforce"
