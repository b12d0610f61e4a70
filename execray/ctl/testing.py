"""`policy test`, `policy whynot` and `replay`: policies against events, without a daemon."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from execray.ctl.context import EXIT_FAILED, command_errors, json_option, paint, print_json
from execray.ctl.policyfiles import compile_or_exit
from execray.ctl.why import values_of
from execray.errors import OperatorError
from execray.terminal import safe
from execray.wire.control import encode_line

if TYPE_CHECKING:
    from execray.schema.event import Event
    from policyd.workbench.replay import Difference, Found
    from policyd.workbench.runner import FileResult
    from policyd.workbench.whynot import Verdict

_FILE = click.Path(path_type=Path, allow_dash=True)


@click.command("test")
@click.argument("folders", nargs=-1, required=True, metavar="DIR|FILE...", type=click.Path(path_type=Path, exists=True))
@click.option("-j", "--jobs", type=click.IntRange(1, 64), help="Files at once.  [default: as many as processors]")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write JUnit XML too.")
@click.option("--min-coverage", type=click.IntRange(0, 100), metavar="PERCENT", help="Fail below this.")
@json_option
@command_errors
def test(
    folders: tuple[Path, ...], jobs: int | None, junit: Path | None, min_coverage: int | None, as_json: bool
) -> None:
    """Run the vectors that lie beside policies, and say what of the policies they reach.

    \b
    Examples:
      execray-ctl policy test policies
      execray-ctl policy test policies/dropper.test.yaml
      execray-ctl policy test policies --junit results.xml --min-coverage 90
    """
    from policyd.workbench.coverage import merged  # noqa: PLC0415  # slow to load
    from policyd.workbench.runner import junit as junit_xml  # noqa: PLC0415
    from policyd.workbench.vectors import find_vectors  # noqa: PLC0415

    files = list(dict.fromkeys(file for folder in folders for file in find_vectors(folder)))
    results = _run_all(files, jobs, progress=sys.stderr.isatty() and not as_json)
    if junit is not None:
        try:
            junit.write_text(junit_xml(results), encoding="utf-8")
        except OSError as error:
            raise OperatorError(f"can't write {junit}: {error.strerror}", "choose another place") from error
    reached = merged(part for result in results for part in result.reached)
    total = sum(part.total for part in reached)
    percent = round(100 * sum(part.count for part in reached) / total) if total else 0
    failed = sum(result.failed for result in results)
    low = min_coverage is not None and percent < min_coverage
    if as_json:
        missing = {part.policy.name: list(part.missing()) for part in reached}
        print_json(
            {
                "ok": not failed and not low,
                "coverage": percent,
                "files": [_file_json(result) for result in results],
                "not_reached": {name: what for name, what in missing.items() if what},
            }
        )
    else:
        for result in results:
            _show_file(result)
        for part in reached:
            for what in part.missing():
                click.echo(f"{paint('not reached', 'warning')}  {safe(part.policy.name)}: {safe(what)}")
        count = sum(len(result.cases) for result in results)
        verdict = paint(f"{failed} failed", "bad") if failed else paint("all passed", "good")
        click.echo(f"{count} tests in {len(results)} files: {verdict}; {percent} % of the policies reached")
    if failed or low:
        sys.exit(EXIT_FAILED)


def _run_all(files: Sequence[Path], jobs: int | None, *, progress: bool) -> list[FileResult]:
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415

    from policyd.workbench.runner import run_file  # noqa: PLC0415

    if len(files) == 1 or jobs == 1:
        return [run_file(file) for file in files]
    with ProcessPoolExecutor(max_workers=min(len(files), jobs or 64) if jobs else None) as pool:
        found = pool.map(run_file, files)
        if not progress:
            return list(found)
        with click.progressbar(found, length=len(files), label="testing", file=sys.stderr) as bar:
            return list(bar)


def _file_json(result: FileResult) -> dict[str, Any]:
    cases = [
        {"name": c.name, "ok": not c.problems, "problems": list(c.problems), "notes": list(c.notes)}
        for c in result.cases
    ]
    return {"file": str(result.path), "ok": not result.failed, "error": result.error or None, "tests": cases}


def _show_file(result: FileResult) -> None:
    if result.error:
        click.echo(f"{paint('error', 'bad')}   {safe(result.path)}")
        for line in [*result.error.splitlines(), *([f"hint: {result.hint}"] if result.hint else [])]:
            click.echo(f"        {safe(line, 400)}")
    for case in result.cases:
        mark = paint("failed", "bad") if case.problems else paint("passed", "good")
        click.echo(f"{mark}  {safe(result.path)}: {safe(case.name)}")
        for problem in (*case.problems, *(f"note: {note}" for note in case.notes)):
            click.echo(f"        {safe(problem, 400)}")


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--policies", "folders", multiple=True, required=True, type=_FILE, metavar="DIR|FILE", help="The policies."
)
@click.option("--against", type=_FILE, metavar="DIR|FILE", help="Other policies: show what they would do differently.")
@json_option
@command_errors
def replay(file: Path, folders: tuple[Path, ...], against: Path | None, as_json: bool) -> None:
    """Run policies over recorded events: the same alerts as live. Nothing is done to anybody.

    With --json one match a line, those that a throttle or an exception holds back too.

    \b
    Examples:
      execray-ctl replay work.jsonl.zst --policies /etc/execray/policies
      execray-ctl replay work.jsonl.gz --policies policies --against policies.new
      execray-ctl replay - --policies my.policy --json < events.jsonl
    """
    found, lost = _replayed(file, folders, as_json)
    if against is not None:
        if str(file) == "-":
            raise OperatorError(
                "standard input can be read only once", "name a file to compare two sets of policies on it"
            )
        from policyd.workbench.replay import differences  # noqa: PLC0415

        changes = differences(found, _replayed(file, (against,), as_json)[0])
        _show_differences(changes, as_json)
    elif as_json:
        for one in found:
            click.echo(encode_line(one.to_json()).decode("ascii"), nl=False)
    else:
        _show_found(found)
    if lost:
        click.echo(f"note: {lost} events are missing in the recording", err=True)


def _replayed(file: Path, folders: Sequence[Path], as_json: bool) -> tuple[list[Found], int]:
    from execray.eventfile import EventReader, open_events  # noqa: PLC0415
    from policyd.workbench.replay import Replay  # noqa: PLC0415

    run = Replay(compile_or_exit(folders, as_json=as_json))
    with open_events(file) as lines:
        reader = EventReader(lines, str(file))
        found = list(run.run(reader.batches()))
    for text, line in reader.notes.first_line.items():
        click.echo(f"note: {safe(file)}:{line}: {safe(text)}", err=True)
    return found, run.lost


def _show_found(found: Sequence[Found]) -> None:
    for one in found:
        if one.suppressed is None:
            click.echo(_line(one))
    alerts = sum(one.suppressed is None for one in found)
    held = Counter(one.suppressed for one in found if one.suppressed)
    more = "".join(
        f", {count} held back by {'a throttle' if why == 'throttle' else 'an exception'}" for why, count in held.items()
    )
    click.echo(f"matches: {len(found)}, alerts: {alerts}{more}")


def _line(one: Found) -> str:
    severity = one.severity.name.lower()
    steps = ", ".join("+".join(map(str, ids)) for ids in one.steps)
    does = paint(f" {one.does}", "bad") if one.does else ""
    return f"{paint(f'{severity:<13}', severity)} {safe(one.policy)}{does}  {safe(one.process)}  events {steps}"


def _show_differences(changes: Sequence[Difference], as_json: bool) -> None:
    if as_json:
        for change in changes:
            line = {"new": change.new, "does": change.found.does or "alert", **change.found.to_json()}
            click.echo(encode_line(line).decode("ascii"), nl=False)
        return
    for change in changes:
        click.echo(f"{paint('+', 'good') if change.new else paint('-', 'bad')} {_line(change.found)}")
    gone, new = (sum(change.new is which for change in changes) for which in (False, True))
    click.echo(f"{gone} no longer, {new} new" if changes else "the same alerts")


@click.command()
@click.argument("policy_file", metavar="POLICY", type=_FILE)
@click.option("--events", "events_file", required=True, type=_FILE, metavar="FILE", help="Recorded events.")
@click.option("--policy", "name", metavar="NAME", help="Which one, where the file holds several.")
@json_option
@command_errors
def whynot(policy_file: Path, events_file: Path, name: str | None, as_json: bool) -> None:
    """Tell why a policy did not match: for each step what met it, or what came nearest and which condition failed.

    \b
    Examples:
      execray-ctl policy whynot my.policy --events work.jsonl
      execray-ctl policy whynot dropper.policy --policy dropper --events work.jsonl.gz
      execray-ctl policy whynot my.policy --events work.jsonl --json | jq '.steps[] | select(.met | not)'
    """
    from policyd.workbench.replay import Replay  # noqa: PLC0415
    from policyd.workbench.whynot import explain  # noqa: PLC0415

    policies = [p for p in compile_or_exit([policy_file], as_json=as_json) if name is None or p.name == name]
    if len(policies) != 1:
        raise OperatorError(f"{policy_file} holds {len(policies)} such policies", "choose one with --policy NAME")
    batches, events = _events(events_file)
    matches = sum(1 for _ in Replay(policies).run(batches))
    verdicts = explain(policies[0], events)
    if as_json:
        print_json(
            {"policy": policies[0].name, "matches": matches, "steps": [verdict.to_json() for verdict in verdicts]}
        )
        return
    click.echo(f"{safe(policies[0].name)}: {matches} matches in {len(events)} events")
    for verdict in verdicts:
        _show_verdict(verdict)


def _events(file: Path) -> tuple[list[Any], list[Event]]:
    from execray.eventfile import EventReader, open_events  # noqa: PLC0415
    from execray.schema.catalog import LOST  # noqa: PLC0415

    with open_events(file) as lines:
        batches = list(EventReader(lines, str(file)).batches())
    return batches, [b.event(at) for b in batches for at, row in enumerate(b.events) if row[0] != LOST]


def _show_verdict(verdict: Verdict) -> None:
    name = verdict.step.alias or f"step {verdict.number + 1}"
    event = verdict.event
    if event is None:
        click.echo(f"{paint('not met', 'bad')}  {safe(name)}: no event of its kind is there")
    elif verdict.met:
        click.echo(f"{paint('met', 'good')}      {safe(name)}: event {event.id}")
    else:
        click.echo(
            f"{paint('not met', 'bad')}  {safe(name)}: of {verdict.count} events, {event.id} came nearest; it lacks"
        )
        for failed in verdict.failed:
            click.echo(f"             {safe(failed, 400)}{values_of(failed, event.to_json())}")
    click.echo(f"           {paint(safe(verdict.step.text, 400), 'dim')}")
