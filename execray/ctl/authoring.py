"""Commands for whoever writes policies: `policy new|fmt|explain|graph|events`. None of them asks a daemon."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import click

from execray.ctl.context import EXIT_FAILED, command_errors, json_option, paint, print_json, table
from execray.ctl.policyfiles import STDIN, compile_or_exit, read_policies, replace_file
from execray.errors import OperatorError
from execray.terminal import safe, use_color

_CODE: Final = re.compile(r"[eE][rR]\d{4}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
_WIDTH: Final = 100

_TEMPLATE: Final = """\
// What it catches, in one line; then why that is bad, and who does it rightly.
path "{name}" key process within 5m {{
    meta {{
        title: "What happened, as the alert should say it"
        description: "Reads the password hashes, then talks to the network."
        severity: high
        attack: ["T1003.008"]
        falsepositives: ["backup programs"]
    }}
    response audit  // `enforce` lets it kill, where the host's mode says so too

    open {{ path in ["/etc/shadow", "/etc/gshadow"], access has READ, ret >= 0 }} as secret
    connect {{ family in [AF_INET, AF_INET6], dst.ip not in ["127.0.0.0/8", "::1"] }} as out

    on match {{ alert }}
}}
"""


@click.command()
@click.argument("name")
@json_option
@command_errors
def new(name: str, as_json: bool) -> None:
    """Print a policy to begin with: it compiles, and shows what belongs into one.

    \b
    Examples:
      execray-ctl policy new shadow_leaves > shadow_leaves.policy
      execray-ctl policy new shadow_leaves | execray-ctl policy check -
      execray-ctl policy new shadow_leaves --json | jq -r .text
    """
    if not _NAME.fullmatch(name):
        raise OperatorError(f"{safe(name)!r} is no good name", "letters, digits, `_`, `.` and `-`, a letter first")
    text = _TEMPLATE.format(name=name)
    if as_json:
        print_json({"name": name, "text": text})
    else:
        click.echo(text, nl=False)


@click.command()
@click.argument("what", metavar="FILE|CODE")
@json_option
@command_errors
def explain(what: str, as_json: bool) -> None:
    """Tell a policy file in plain words, or what a diagnostic's code means.

    \b
    Examples:
      execray-ctl policy explain my.policy
      execray-ctl policy explain ER0304
      execray-ctl policy explain /etc/execray/policies --json | jq '.policies[].name'
    """
    if _CODE.fullmatch(what) and not Path(what).exists():
        _explain_code(what.upper(), as_json)
        return
    from policyd.compiler.story import Section, story  # noqa: PLC0415  # slow to load
    from policyd.gate.exact import inline_lines  # noqa: PLC0415  # likewise
    from policyd.gate.telling import kernel_lines  # noqa: PLC0415  # likewise

    policies = compile_or_exit([Path(what)], as_json=as_json)
    told = [
        [
            *story(policy),
            Section("Kernel", tuple(kernel_lines(policy))),
            Section("Inline", tuple(inline_lines(policy))),
        ]
        for policy in policies
    ]
    if as_json:
        found = [
            {"name": policy.name, **{part.name.lower(): list(part.lines) for part in parts}}
            for policy, parts in zip(policies, told, strict=True)
        ]
        print_json({"policies": found})
        return
    for number, policy in enumerate(policies):
        if number:
            click.echo()
        click.echo(paint(safe(policy.name), "bold"))
        for part in told[number]:
            for index, line in enumerate(part.lines):
                heading = part.name if index == 0 else ""
                click.echo(_hanging(heading, line))


def _hanging(heading: str, line: str) -> str:
    """Returns one line under its heading, wrapped; source text stands further in."""
    source = line.startswith(" ")
    lead = " " * (17 if source else 13)
    first = lead if source else f"  {heading:<11}"
    wrapped = textwrap.wrap(safe(line.strip(), 2000), _WIDTH - len(lead), break_on_hyphens=False) or [""]
    shown = [paint(part, "name") if source else part for part in wrapped]
    return "\n".join([first + shown[0], *(lead + part for part in shown[1:])])


def _explain_code(code: str, as_json: bool) -> None:
    from policyd.compiler.codes import CODES  # noqa: PLC0415
    from policyd.compiler.codes import explain as told  # noqa: PLC0415

    entry = CODES.get(code)
    if entry is None:
        raise OperatorError(f"there is no code {code}", "the codes are in docs/reference/diagnostics.md")
    if as_json:
        print_json(
            {
                "code": entry.code,
                "level": entry.level.value,
                "title": entry.title,
                "text": entry.text,
                "wrong": entry.wrong,
                "right": entry.right,
            }
        )
    else:
        click.echo(told(code), nl=False)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 where a file would be changed.")
@json_option
@command_errors
def fmt(files: tuple[Path, ...], check: bool, as_json: bool) -> None:
    """Lay out policy files in the one way: indentation and spaces. Lines and comments stay as they are.

    Files are rewritten in place; `-` goes from standard input to standard output.

    \b
    Examples:
      execray-ctl policy fmt my.policy
      execray-ctl policy fmt --check /etc/execray/policies
      execray-ctl policy fmt - < my.policy
    """
    changed = []
    for name, raw in read_policies(files):
        text = _formatted(name, raw, as_json)
        same = text.encode("utf-8") == raw
        if not same:
            changed.append(name)
            if not check and name != STDIN:
                replace_file(Path(name), text)
        if name == STDIN and not check and not as_json:
            click.echo(text, nl=False)
    if as_json:
        print_json({"ok": not (check and changed), "changed": changed})
    else:
        for name in changed:
            if check or name != STDIN:
                click.echo(f"{'would change' if check else 'changed'} {safe(name)}")
    if check and changed:
        sys.exit(EXIT_FAILED)


def _formatted(name: str, raw: bytes, as_json: bool) -> str:
    from policyd.compiler import compile_source, diagnostic_to_json, render  # noqa: PLC0415
    from policyd.compiler.format import format_source  # noqa: PLC0415

    text = format_source(raw, name)
    if text is not None:
        return text
    # What can't be read can't be laid out; whatever else is wrong with it is not our business here.
    compiled = compile_source(raw, name)
    if as_json:
        found = [diagnostic_to_json(diagnostic, compiled.source) for diagnostic in compiled.diagnostics]
        print_json({"ok": False, "diagnostics": found})
    click.echo(render(compiled.diagnostics, [compiled.source], color=use_color()), nl=False, err=True)
    sys.exit(EXIT_FAILED)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--policy", "name", metavar="NAME", help="Which one, where the file holds several.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["svg", "mermaid", "dot"]),
    default="svg",
    show_default=True,
    help="SVG needs no other program.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write, not standard output."
)
@json_option
@command_errors
def graph(file: Path, name: str | None, form: str, output: Path | None, as_json: bool) -> None:
    """Draw a policy's automaton: its places, and the steps that lead from one to the next.

    \b
    Examples:
      execray-ctl policy graph my.policy -o my.svg
      execray-ctl policy graph my.policy --format mermaid
      execray-ctl policy graph dropper.policy --policy dropper_from_shell --format dot | dot -Tpng > d.png
    """
    from policyd.compiler import to_dot  # noqa: PLC0415
    from policyd.compiler.graph import to_mermaid, to_svg  # noqa: PLC0415

    policies = compile_or_exit([file], as_json=as_json)
    names = ", ".join(safe(policy.name) for policy in policies)
    chosen = [policy for policy in policies if name is None or policy.name == name]
    if len(chosen) != 1:
        problem = f"{file} holds {len(policies)} policies" if name is None else f"{file} has no policy {safe(name)!r}"
        raise OperatorError(problem, f"choose one with --policy: {names}")
    drawn = {"svg": to_svg, "mermaid": to_mermaid, "dot": to_dot}[form](chosen[0])
    if output is not None:
        try:
            output.write_text(drawn, encoding="utf-8")
        except OSError as error:
            raise OperatorError(f"can't write {output}: {error.strerror}", "choose another place") from error
    if as_json:
        print_json({"policy": chosen[0].name, "format": form, "text": drawn, "file": str(output) if output else None})
    elif output is None:
        click.echo(drawn, nl=False)


@click.command()
@click.argument("name", required=False)
@json_option
@command_errors
def events(name: str | None, as_json: bool) -> None:
    """List the events that a policy may name, or the fields of one.

    \b
    Examples:
      execray-ctl policy events
      execray-ctl policy events open
      execray-ctl policy events --json | jq -r '.events[].name'
    """
    from execray.schema.catalog import ACTOR_FIELDS, EVENT_BY_NAME, EVENTS  # noqa: PLC0415

    if name is None:
        if as_json:
            print_json(
                {"events": [_event_json(event) for event in EVENTS], "actor": [_field_json(f) for f in ACTOR_FIELDS]}
            )
            return
        rows = [[event.name, " ".join(event.aliases), event.doc] for event in EVENTS]
        click.echo(table([["EVENT", "ALSO", "WHEN"], *rows]))
        click.echo("\nEvery event has the fields of its actor too: `execray-ctl policy events open` lists all.")
        return
    event = EVENT_BY_NAME.get(name)
    if event is None:
        raise OperatorError(f"there is no event {safe(name)!r}", f"the events are {', '.join(e.name for e in EVENTS)}")
    if as_json:
        print_json(_event_json(event) | {"actor": [_field_json(field) for field in ACTOR_FIELDS]})
        return
    click.echo(f"{event.name}: {event.doc}\nseen at {', '.join(event.hooks)}\n")
    click.echo(table([["FIELD", "KIND", "MEANING"], *(_row(field) for field in event.fields)]))
    click.echo("\nof the process that did it, and with `parent.` before it of the one that made that process:\n")
    click.echo(table([_row(field) for field in ACTOR_FIELDS]))


def _row(field: Any) -> list[str]:
    constants = f" ({field.constants}*)" if field.constants else ""
    return [" ".join((field.name, *field.aliases)), field.kind.value + constants, field.doc]


def _event_json(event: Any) -> dict[str, Any]:
    return {
        "name": event.name,
        "aliases": list(event.aliases),
        "doc": event.doc,
        "hooks": list(event.hooks),
        "fact": event.fact,
        "fields": [_field_json(field) for field in event.fields],
    }


def _field_json(field: Any) -> dict[str, Any]:
    return {
        "name": field.name,
        "aliases": list(field.aliases),
        "kind": field.kind.value,
        "doc": field.doc,
        "constants": field.constants,
        "unit": field.unit,
        "forgeable": field.spoofable,
    }
