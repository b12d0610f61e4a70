"""`alerts why`: an alert's evidence against the conditions of its policy, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from execray.ctl.complete import alert_ids
from execray.ctl.context import Context, as_map, as_maps, command_errors, json_option, paint, print_json
from execray.ctl.policyfiles import utc_today
from execray.errors import OperatorError
from execray.terminal import safe

if TYPE_CHECKING:
    from policyd.program import CompiledPolicy


@click.command()
@click.argument("alert_id", metavar="ID", shell_complete=alert_ids)
@json_option
@click.pass_obj
@command_errors
def why(context: Context, alert_id: str, as_json: bool) -> None:
    """Tell why an alert was raised: for each step the event that met it, and every condition with the value it found.

    The policy is read from the policy folders; where it has changed since, only the evidence is shown.

    \b
    Examples:
      execray-ctl alerts why 5f0c1d2e9a7b4c3d
      execray-ctl alerts why 5f0c
      execray-ctl alerts why 5f0c --json | jq '.steps[].conditions'
    """
    with context.client("policyd", timeout_s=30.0) as client:
        alert = as_map(client.call("alerts.show", id=alert_id))
    own = as_map(alert.get("execray"))
    if own.get("kind") not in ("match", "step"):
        raise OperatorError(f"alert {safe(alert_id)} is of no policy", "see `execray-ctl alerts show`")
    policy = _policy(context, own)
    steps = _steps(own, policy)
    if as_json:
        shown = {
            "alert_id": own.get("alert_id"),
            "policy": own.get("policy"),
            "unchanged": policy is not None,
            "steps": steps,
        }
        print_json(shown)
        return
    click.echo(f"{paint(safe(own.get('policy')), 'bold')}  alert {safe(own.get('alert_id'))}")
    if policy is None:
        click.echo(paint("its policy was changed or removed since: no conditions to show", "warning"))
    for number, step in enumerate(steps, start=1):
        _show_step(number, step)


def _policy(context: Context, own: dict[str, Any]) -> CompiledPolicy | None:
    """Returns the policy as it was when it alerted, None where it isn't there any more."""
    from policyd.compiler import compile_set  # noqa: PLC0415  # slow to load

    files = [file for folder in context.config.policyd.policy_dirs for file in sorted(folder.glob("*.policy"))]
    try:
        compiled = compile_set([(str(file), file.read_bytes()) for file in files], today=utc_today())
    except OSError as error:
        raise OperatorError(
            f"can't read {error.filename}: {error.strerror}", "run it as root, or with --json"
        ) from error
    same = [p for p in compiled.policies if (p.name, p.hash) == (own.get("policy"), own.get("hash"))]
    return same[0] if same else None


def _steps(own: dict[str, Any], policy: CompiledPolicy | None) -> list[dict[str, Any]]:
    from execray.eventfile import EventFileError, Notes, parse_record  # noqa: PLC0415
    from execray.eventfile.reading import pack  # noqa: PLC0415
    from policyd.workbench.whynot import judged  # noqa: PLC0415

    places = {} if policy is None else {(s.place.line, s.place.column): s for s in policy.steps}
    bindings: dict[str, Any] = {}
    out = []
    for trace in as_maps(own.get("trail")):
        raw = as_maps(trace.get("events"))
        line, column = (
            int(part) if part.isdecimal() else 0 for part in str(trace.get("place", "::")).rsplit(":", 2)[1:]
        )
        step = places.get((line, column))
        conditions: list[dict[str, Any]] = []
        if raw and step is not None:
            try:
                event = pack(0, [parse_record(raw[0], "the alert", 1, Notes())]).event(0)
            except EventFileError as error:
                raise OperatorError(error.message, "was it written by another version?") from error
            conditions = [{"text": text, "holds": holds} for text, holds in judged(step, event, bindings)]
            if step.alias:
                bindings[step.alias] = event
        out.append(
            {
                "step": trace.get("step"),
                "alias": trace.get("alias"),
                "event": raw[0] if raw else None,
                "conditions": conditions,
            }
        )
    return out


def _show_step(number: int, step: dict[str, Any]) -> None:
    event = as_map(step["event"])
    click.echo(
        f"\n{number}. {safe(step['alias'] or 'step')}: met by {safe(event.get('event', 'no event'))} {safe(event.get('id', ''))}"
    )
    click.echo(f"   {paint(safe(step['step'], 400), 'dim')}")
    for condition in step["conditions"]:
        mark = paint("holds", "good") if condition["holds"] else paint("fails", "bad")
        click.echo(f"   {mark}  {safe(condition['text'], 400)}{values_of(condition['text'], event)}")


def values_of(condition: str, shown: dict[str, Any]) -> str:
    """Returns what an event has in the fields that a condition names. shown: the event as JSON."""
    words = condition.replace("(", " ").replace(")", " ").split()
    return "".join(f"   [{name} is {safe(shown[name])}]" for name in shown if name in words)
