"""Man pages from click's commands: one page for a program and all its subcommands, so that `/word` finds everything."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import click

from execray.version import VERSION

_FILES: Final = (
    ("/etc/execray/execray.yaml", "the configuration; every key is explained there"),
    ("/etc/execray/execray.d/*.yaml", "what differs from it, in the order of their names"),
    ("/etc/execray/policies/*.policy", "the policies"),
    ("/run/execray/", "the daemons' sockets"),
    ("/var/lib/execray/policyd/alerts.jsonl", "alerts, one JSON object a line"),
    ("/var/lib/execray/captures/*.pcap", "recorded traffic"),
)
_PAGES: Final = (
    ("execray-ctl", 1),
    ("execray-enforcer", 8),
    ("execray-policyd", 8),
    ("execray-tracerd", 8),
    ("journalctl", 1),
    ("systemctl", 1),
    ("tcpdump", 8),
)


def manpage(command: click.Command, name: str, section: int = 1) -> str:
    """Returns the page in roff, by the macros of man(7).

    name: as it is installed; examples may call it without the `execray-`.
    """
    context = click.Context(command, info_name=name, **command.context_settings)
    paragraphs = _paragraphs(command)
    lines = [rf'.TH "{_escape(name.upper())}" {section} "" "ExecRay {VERSION}" "ExecRay"', ".SH NAME"]
    lines += [rf"{_escape(name)} \- {_escape(_as_phrase(paragraphs[0]))}", ".SH SYNOPSIS", _synopsis(context)]
    examples, codes, text = _sorted(paragraphs[1:])
    lines += [".SH DESCRIPTION", *_text([paragraphs[0], *text]), ".SH OPTIONS", *_options(context)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for below in _leaves(context):
            lines += _command(below)
    examples = [re.sub(rf"^{name.removeprefix('execray-')}\b", name, line) for line in examples]
    lines += [".SH EXAMPLES", *_block(examples)] if examples else []
    lines += [".SH EXIT STATUS", *_exit_codes(codes)] if codes else []
    lines.append(".SH FILES")
    for path, what in _FILES:
        lines += [".TP", rf"\fI{_escape(path)}\fR", _escape(what)]
    pages = [f".BR {page} ({number})" for page, number in sorted(_PAGES) if page != name]
    lines += [".SH SEE ALSO", " ,\n".join(pages)]
    return "\n".join(lines) + "\n"


def _leaves(context: click.Context) -> Iterator[click.Context]:
    """Yields every subcommand that does something, in the order of their names."""
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from _leaves(below)
        else:
            yield below


def _command(context: click.Context) -> list[str]:
    examples, _, text = _sorted(_paragraphs(context.command))
    words = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    lines = [f'.SS "{_escape(words)}"', *_text(text), *_options(context)]
    return [*lines, ".PP", "Examples:", *_block(examples)] if examples else lines


def _synopsis(context: click.Context) -> str:
    words = " ".join(context.command.collect_usage_pieces(context))
    return rf"\fB{_escape(context.command_path)}\fR {_escape(words)}".rstrip()


def _options(context: click.Context) -> list[str]:
    lines: list[str] = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in parameter.opts:
            names, what = record
            lines += [".TP", rf"\fB{_escape(names)}\fR", _escape(what)]
    return lines


def _paragraphs(command: click.Command) -> list[str]:
    """The help as written: paragraphs, of which those that begin with \\b keep their lines."""
    text = f"{inspect.cleandoc(command.help or '')}\n\n{inspect.cleandoc(command.epilog or '')}"
    return [part for part in re.split(r"\n\s*\n", text) if part.strip("\b \n")]


def _sorted(paragraphs: list[str]) -> tuple[list[str], str, list[str]]:
    """Takes the examples' lines and the exit codes out of a help, and returns them and the rest."""
    examples: list[str] = []
    codes = ""
    rest: list[str] = []
    for paragraph in paragraphs:
        body = paragraph.lstrip("\b\n")
        if found := re.match(r"Examples?:[ \n]*", body):
            examples += inspect.cleandoc(body[found.end() :]).splitlines()
        elif body.startswith("Exit codes:"):
            codes = " ".join(body.removeprefix("Exit codes:").split())
        else:
            rest.append(paragraph)
    return examples, codes, rest


def _text(paragraphs: list[str]) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        if paragraph.startswith("\b"):
            lines += _block(inspect.cleandoc(paragraph.lstrip("\b\n")).splitlines())
        else:
            lines += [".PP", _escape(" ".join(paragraph.split()))]
    return lines[1:] if lines[:1] == [".PP"] else lines  # a heading begins a paragraph by itself


def _block(lines: list[str]) -> list[str]:
    """Lines that stay as they are, indented."""
    return [".PP", ".RS 4", ".nf", *(_escape(line) for line in lines), ".fi", ".RE"]


def _exit_codes(codes: str) -> list[str]:
    """`0 done, 1 it failed` as a list; a comma within a meaning stays."""
    lines: list[str] = []
    for part in re.split(r",\s+(?=\d)", codes.rstrip(".")):
        number, _, meaning = part.partition(" ")
        lines += [".TP", rf"\fB{number}\fR", _escape(meaning)]
    return lines


def _as_phrase(sentence: str) -> str:
    """A sentence as NAME has it: without a capital and a full stop."""
    sentence = " ".join(sentence.split())
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _escape(text: str) -> str:
    """Makes text harmless to roff: hyphens to be copied, quotes and backslashes as they are, no line a request."""
    text = (
        text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq").replace("`", r"\(ga")
    )
    return rf"\&{text}" if text.startswith(".") else text
