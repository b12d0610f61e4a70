"""The man page and the completions, made from the commands as they are now: held against the real readers of both."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from deploy.install.generate import DAEMONS, generate
from execray.ctl.main import main as ctl

NAME = "execray-ctl"


def leaves(context: click.Context) -> Iterator[click.Context]:
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from leaves(below)
        elif not command.hidden:
            yield below


COMMANDS = {below.command_path: below for below in leaves(click.Context(ctl, info_name=NAME, **ctl.context_settings))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is generated, and a program of that name to complete."""
    folder = tmp_path_factory.mktemp("generated")
    generate(folder)
    program = folder / "bin" / NAME
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom execray.ctl.main import main\nmain()\n")
    program.chmod(0o755)
    return folder


def read(page: Path) -> str:
    """A page as its reader sees it; groff must have nothing to complain of."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=200n", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.translate({0x2010: "-", 0x2212: "-", 0xA0: " "})


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return read(made / f"{NAME}.1")


def sections(page: str) -> dict[str, str]:
    """The page's parts by their headings, those of commands by the command's path."""
    found: dict[str, str] = {}
    heading = ""
    for line in page.splitlines():
        if re.match(r" {0,3}\S", line):
            heading = line.strip()
            found[heading] = ""
        else:
            found[heading] = found.get(heading, "") + line + "\n"
    return found


def test_the_page_has_the_sections_that_readers_look_for(page: str) -> None:
    found = sections(page)
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXAMPLES", "EXIT STATUS", "FILES"} <= set(found)
    assert f"{NAME} - " in found["NAME"]
    for number in "0123":
        assert re.search(rf"^ +{number} +\S", found["EXIT STATUS"], re.MULTILINE)
    assert "/etc/execray/execray.yaml" in found["FILES"]


@pytest.mark.parametrize("path", COMMANDS)
def test_the_page_has_each_command_with_its_options_and_three_examples(page: str, path: str) -> None:
    ((_, text),) = [(head, text) for head, text in sections(page).items() if re.match(rf"{path}(?: [^a-z]|$)", head)]
    for parameter in COMMANDS[path].command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and "--help" not in parameter.opts:
            assert all(option in text for option in parameter.opts), parameter.opts
    examples = [line for line in text.partition("Examples:")[2].splitlines() if line.strip()]
    assert sum(NAME in line for line in examples) >= 3, text


@pytest.mark.parametrize("daemon", DAEMONS)
def test_each_daemon_has_a_page_with_its_options(made: Path, daemon: str) -> None:
    found = sections(read(made / f"execray-{daemon}.8"))
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "FILES"} <= set(found)
    assert "--config" in found["OPTIONS"] and f"execray-{daemon} --config" in found["EXAMPLES"]


def test_man_finds_it_by_name(made: Path, tmp_path: Path) -> None:
    (tmp_path / "man1").mkdir()
    shutil.copy(made / f"{NAME}.1", tmp_path / "man1")
    done = subprocess.run(["man", "-M", tmp_path, "-w", NAME], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "man1" / f"{NAME}.1")


# --- completions: each asked in its shell ------------------------------------------------------------------------------


def shell(made: Path, *command: str) -> list[str]:
    environment = {"PATH": f"{made / 'bin'}:/usr/bin:/bin", "HOME": str(made), "TERM": "dumb"}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50, env=environment, cwd=made)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes(made: Path) -> None:
    script = 'COMP_WORDS=({words}) COMP_CWORD={at}; _execray_ctl_completion execray-ctl; echo "${{COMPREPLY[@]}}"'
    source = f"source {made}/bash; "
    assert shell(made, "bash", "-c", source + script.format(words="execray-ctl pol", at=1)) == ["policy"]
    assert "check" in shell(made, "bash", "-c", source + script.format(words="execray-ctl policy ''", at=2))
    registered = shell(made, "bash", "-c", source + "complete -p execray-ctl")
    assert "_execray_ctl_completion" in registered


def test_fish_completes(made: Path) -> None:
    script = f"source {made}/fish; complete -C 'execray-ctl {{}}'"
    assert shell(made, "fish", "--no-config", "-c", script.format("pol"))[0] == "policy"
    assert "check" in shell(made, "fish", "--no-config", "-c", script.format("policy "))


def test_zsh_completes(made: Path) -> None:
    (made / "zfunctions").mkdir()
    shutil.copy(made / "zsh", made / "zfunctions" / f"_{NAME}")
    # A terminal of zsh's own, in which somebody presses Tab and then Return: its echo shows what the line has become.
    script = f"""
zmodload zsh/zpty
zpty z env PS1=READY zsh -f -i
zpty -w z 'fpath=({made}/zfunctions $fpath); autoload -U compinit; compinit -u -D; PS1=; echo begun'
zpty -r z line '*begun*begun*'
zpty -w -n z $'execray-ctl pol\\t--help\\n'
zpty -r z line '*Usage:*COMMAND*'
print -r -- $line
"""
    said = " ".join(shell(made, "zsh", "-f", "-c", script))
    assert "Usage: execray-ctl policy" in said
