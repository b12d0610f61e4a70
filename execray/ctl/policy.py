"""`policy list|show|check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from execray.ctl.complete import policy_names
from execray.ctl.context import (
    EXIT_FAILED,
    Context,
    as_map,
    as_maps,
    command_errors,
    json_option,
    paint,
    print_json,
    table,
)
from execray.ctl.lazy import LazyGroup
from execray.ctl.policyfiles import host_settings, read_policies, utc_today
from execray.terminal import safe, use_color

if TYPE_CHECKING:
    from policyd.compiler.bounds import Bounds

#: Commands for whoever writes policies; only the one that was named is imported.
AUTHORING: Final = {
    "disable": "execray.ctl.mode:disable",
    "enable": "execray.ctl.mode:enable",
    "test": "execray.ctl.testing:test",
    "whynot": "execray.ctl.testing:whynot",
} | {
    name: f"execray.ctl.authoring:{attribute}"
    for name, attribute in (
        ("events", "events"),
        ("explain", "explain"),
        ("fmt", "fmt"),
        ("graph", "graph"),
        ("new", "new"),
    )
}


@click.group(cls=LazyGroup, lazy=AUTHORING)
def policy() -> None:
    """List, show, write and check policies.

    \b
    Examples:
      execray-ctl policy list
      execray-ctl policy new my_policy > my.policy
      execray-ctl policy check my.policy
    """


@policy.command("list")
@json_option
@click.pass_obj
@command_errors
def list_(context: Context, as_json: bool) -> None:
    """List the loaded policies with what each will really do on this host, and why.

    \b
    off     it is disabled              alert   a match raises an alert
    blind   the kernel hides its steps  audit   the alert says what would have been killed
    log, notify, none: as its handlers  kill    the process is killed

    \b
    Examples:
      execray-ctl policy list
      execray-ctl policy list --json | jq '.policies[] | {name, effective}'
      execray-ctl --runtime-dir .execray/run policy list
    """
    with context.client("policyd") as client:
        result = as_map(client.call("policies"))
    if as_json:
        print_json(result)
        return
    notes: dict[tuple[str, str], int] = {}
    rows: list[list[object]] = [["NAME", "SEVERITY", "RESPONSE", "STEPS", "ATT&CK", "FILE"]]
    for item in as_maps(result.get("policies")):
        attack = " ".join(str(t) for t in item.get("attack", ()))
        place = f"{item.get('file', '?')}:{item.get('line', '?')}"
        does, why = _effect(item)
        number = notes.setdefault((does, why), len(notes) + 1)
        rows.append([item.get("name"), item.get("severity"), f"{does} ({number})", item.get("steps"), attack, place])
    for line, row in zip(table(rows, limit=200).splitlines(), rows, strict=True):
        click.echo(paint(line, _STYLES.get(str(row[2]).partition(" ")[0], "")))
    for (does, why), number in notes.items():
        click.echo(f"({number}) {safe(does)}: {safe(why, 500)}")
    click.echo(f"host mode {safe(result.get('mode', '?'))}, generation {safe(result.get('generation', '?'))}")


_STYLES: Final = {"RESPONSE": "dim", "off": "dim", "none": "dim", "blind": "bad", "kill": "high", "audit": "medium"}


def _effect(item: dict[str, Any]) -> tuple[str, str]:
    """Returns what a policy will do, and why, in words."""
    found = as_map(item.get("effective"))
    why = found.get("why")
    reasons = [str(reason) for reason in why] if isinstance(why, list) else []
    return str(found.get("response", "?")), "; ".join(reasons) or "?"


@policy.command()
@click.argument("name", shell_complete=policy_names)
@json_option
@click.pass_obj
@command_errors
def show(context: Context, name: str, as_json: bool) -> None:
    """Show one policy: where it stands, what it will really do on this host, its text, its states.

    \b
    Examples:
      execray-ctl policy show dropper
      execray-ctl policy show dropper --json | jq .hash
      execray-ctl policy show "credential theft"
    """
    with context.client("policyd") as client:
        found = as_map(client.call("policy", name=name))
    if as_json:
        print_json(found)
        return
    meta = as_map(found.get("meta"))
    facts = [
        ("file", f"{found.get('file', '?')}:{found.get('line', '?')}"),
        ("hash", found.get("hash", "?")),
        ("severity", found.get("severity", "?")),
        ("response", found.get("response", "?")),
        ("on this host", ": ".join(_effect(found))),
        ("key", found.get("key", "?")),
        ("within", found.get("within") or "one event completes it"),
        ("description", meta.get("description", "")),
    ]
    click.echo(safe(found.get("name", name)))
    click.echo(table([fact for fact in facts if fact[1]], "  "))
    click.echo("\n" + "\n".join(safe(line, 400) for line in str(found.get("source", "")).splitlines()) + "\n")
    for number, state in enumerate(as_maps(found.get("states"))):
        moves = [
            f"{safe(move.get('step'))} -> {safe(move.get('target'))}" for move in as_maps(state.get("transitions"))
        ]
        click.echo(f"  state {number}: {'match' if state.get('accepting') else '; '.join(moves)}")


@policy.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@click.pass_obj
@command_errors
def check(context: Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Find the mistakes in policy files; `-` reads one from standard input. Asks no daemon.

    A folder stands for the *.policy files in it. All are checked together, as policyd would load them
    with this host's configuration: a name may occur only once.

    \b
    Examples:
      execray-ctl policy check my.policy
      execray-ctl policy check /etc/execray/policies
      echo 'path "p" { exec { uid = 0 } }' | execray-ctl policy check -
    """
    # Imported here: the compiler is of no use to the other commands, and slow to load.
    from policyd.compiler import compile_set, diagnostic_to_json, render  # noqa: PLC0415

    inputs = read_policies(files)
    host = host_settings(context, inputs)
    compiled = compile_set(inputs, plugins=host.plugins, today=utc_today(), budget_bytes=host.budget_bytes)
    if as_json:
        from policyd.compiler.bounds import bounds_of, most_count_bytes  # noqa: PLC0415  # slow to load

        sources = {source.name: source for source in compiled.sources}
        found = [diagnostic_to_json(diagnostic, sources[diagnostic.file]) for diagnostic in compiled.diagnostics]
        bounds = [{"name": policy.name, **_bounds_json(bounds_of(policy))} for policy in compiled.policies]
        most = {"count_bytes": most_count_bytes(compiled.policies), "budget_bytes": host.budget_bytes}
        names = [policy.name for policy in compiled.policies]
        print_json({"ok": compiled.ok, "policies": names, "bounds": bounds, "all": most, "diagnostics": found})
    else:
        if compiled.diagnostics:
            click.echo(render(compiled.diagnostics, compiled.sources, color=use_color()), nl=False)
        if compiled.ok:
            click.echo(
                f"ok: {_counted(compiled.policies, 'policy', 'policies')} in {_counted(inputs, 'file', 'files')}"
            )
    if not compiled.ok:
        sys.exit(EXIT_FAILED)


def _bounds_json(bounds: Bounds) -> dict[str, int]:
    return {
        "steps": bounds.steps,
        "places": bounds.places,
        "partials": bounds.partials,
        "partial_bytes": bounds.partial_bytes,
        "count_bytes": bounds.count_bytes,
    }


def _counted(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"
