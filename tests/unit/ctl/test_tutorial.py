"""docs/tutorial.md: every command in it does what the page says, in the order in which it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path("docs/tutorial.md")
RECORDING = Path("tests/data/ordinary/work.jsonl.zst")
_BLOCK = re.compile(r"(?:<!-- (file|append|inside): (\S+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=50,
    )
    return done.stdout


def commands(body: str) -> list[tuple[str, str]]:
    """Returns what a console shows: commands, and what each prints."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


BLOCKS = _BLOCK.findall(TUTORIAL.read_text(encoding="utf-8"))
CONSOLES = [number for number, (_, _, language, _) in enumerate(BLOCKS) if language == "console"]


def prepare(folder: Path, blocks: list[tuple[str, str, str, str]]) -> None:
    """Makes the files as they are when a reader has come so far."""
    shutil.copy(RECORDING, folder)
    for how, name, language, body in blocks:
        file = folder / name
        match how:
            case "file":
                file.write_text(body, encoding="utf-8")
            case "append":
                file.write_text(file.read_text(encoding="utf-8") + body, encoding="utf-8")
            case "inside":  # before the last brace
                before = file.read_text(encoding="utf-8").rstrip().removesuffix("}")
                file.write_text(f"{before}{body}}}\n", encoding="utf-8")
            case _ if language == "console":
                for command, _ in commands(body):
                    if " > " in command:
                        run(command, folder)


@pytest.mark.parametrize("number", CONSOLES)
def test_what_the_tutorial_shows_is_what_its_commands_print(number: int, tmp_path: Path) -> None:
    prepare(tmp_path, BLOCKS[:number])
    for command, output in commands(BLOCKS[number][3]):
        assert run(command, tmp_path) == output, f"$ {command}"


def test_the_tutorial_runs_every_tool_that_needs_no_daemon() -> None:
    text = "".join(BLOCKS[number][3] for number in CONSOLES)
    for tool in ("policy check", "policy test", "policy whynot", "policy explain", "replay"):
        assert f"$ execray-ctl {tool} " in text
