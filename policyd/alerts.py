"""An alert as JSON: what matched, every step's evidence, and what was done. Its fields are documented in docs/alerts.md."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, TypeAlias

from execray.schema.catalog import ACTOR_FIELDS, Field
from execray.schema.event import Actor, Event, Value, actor_get, text, value_to_json
from execray.schema.field import Content
from execray.schema.kinds import Kind
from execray.schema.row import FILE_NAMES_NAME
from policyd.engine.outputs import Finding, Match, StepEvidence
from policyd.engine.table import content_of
from policyd.program import CompiledPolicy, KeyKind, Place, Severity, paths_in
from policyd.throttle import LossSum

Json: TypeAlias = dict[str, Any]

ECS_VERSION: Final = "8.11.0"
#: ECS wants a number that grows with severity; these are the ones its own detections use.
_SEVERITY_NUMBER: Final = {
    Severity.INFORMATIONAL: 0,
    Severity.LOW: 21,
    Severity.MEDIUM: 47,
    Severity.HIGH: 73,
    Severity.CRITICAL: 99,
}
#: ECS keeps ids of users and groups as text.
_TEXT_LEAVES: Final = (".user.id", ".group.id", "real_user.id", "saved_user.id", "real_group.id", ".inode")
LOSS_RULE_ID: Final = "execray-sensor-loss"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the events come from."""

    boot_id: str
    stream_id: str


def finding_alert(
    finding: Finding, origin: Origin, severity: Severity, *, host_mode: str, suppressed: int, action: Json
) -> Json:
    """Returns the alert for a match, or for a step that a policy asked to be told of.

    suppressed: alerts of the same policy and process image held back since the last one.
    """
    policy, event, number = finding.policy, finding.event, finding.id
    kind = "match" if isinstance(finding, Match) else "step"
    out = _frame(number, finding.time_ns, origin)
    out["message"] = _message(finding, severity, action)
    out["event"] |= {
        "category": [event.type.ecs_category],
        "type": ["info"],
        "action": event.type.ecs_action,
        "severity": _SEVERITY_NUMBER[severity],
    }
    out["rule"] = _rule(policy)
    if policy.meta.attack:
        out["threat"] = _threat(policy.meta.attack)
    taken = content_of(policy)
    hidden = _hidden(event, taken)
    _put_fields(out, ((field, event.get(field.name)) for field in event.type.fields if field.name not in hidden))
    out |= _process(finding.actor)
    out["execray"] = {
        "alert_id": number,
        "kind": kind,
        "severity": severity.name.lower(),
        "policy": policy.name,
        "hash": policy.hash,
        "place": place_text(policy.place),
        "generation": finding.generation,
        "mode": host_mode,
        "response": policy.response.value,
        "attack": list(policy.meta.attack),
        "falsepositives": list(policy.meta.falsepositives),
        "tags": list(policy.meta.tags),
        "key": {"by": policy.key_text, "values": _key(finding)},
        "started_ns": finding.started_ns,
        "time_ns": finding.time_ns,
        "trail": [_evidence(step, taken) for step in finding.trail],
        "tainted": finding.tainted,
        "degraded": finding.degraded,
        "partial_evidence": finding.partial_evidence,
        "suppressed": suppressed,
        "action": action,
        "stream": origin.stream_id,
    }
    kill = action.get("kill", {})
    if kill.get("result") == "killed":
        out["execray"]["killed_by"] = kill["by"]
    return out


def loss_alert(loss: LossSum, origin: Origin, *, host_mode: str) -> Json:
    """Returns the alert that says how many events were not seen, where, and since when."""
    out = _frame(loss.id, loss.time_ns, origin)
    how_many = f"{loss.count} events" if loss.count else "an unknown number of events"
    out["message"] = f"sensor loss: {how_many} lost at {loss.where}"
    severity = Severity.MEDIUM
    out["event"] |= {
        "category": ["host"],
        "type": ["error"],
        "action": "sensor-loss",
        "severity": _SEVERITY_NUMBER[severity],
    }
    out["rule"] = {"id": LOSS_RULE_ID, "name": "sensor loss", "description": "ExecRay was blind for a while."}
    span = {"count": loss.count, "since_ns": loss.since_ns, "until_ns": loss.time_ns, "records": loss.records}
    out["execray"] = {
        "alert_id": loss.id,
        "kind": "sensor_loss",
        "severity": severity.name.lower(),
        "mode": host_mode,
        "time_ns": loss.time_ns,
        "lost": {loss.where: span},
        "stream": origin.stream_id,
    }
    return out


def place_text(place: Place) -> str:
    """Returns `file:line:column`."""
    return f"{place.file}:{place.line}:{place.column}"


@cache
def _hostname() -> str:
    return socket.gethostname()


def wall_clock(boottime_ns: int) -> str:
    """Returns the moment of a CLOCK_BOOTTIME value as ISO 8601 in UTC, by the wall clock as it is set now."""
    offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    seconds, ns = divmod(offset + boottime_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(max(0, seconds), UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='seconds')}.{ns // 1000:06}Z"


def _frame(number: str, time_ns: int, origin: Origin) -> Json:
    return {
        "@timestamp": wall_clock(time_ns),
        "ecs": {"version": ECS_VERSION},
        "message": "",
        "event": {"id": number, "kind": "alert", "module": "execray", "dataset": "execray.alerts"},
        "host": {"hostname": _hostname(), "boot": {"id": origin.boot_id}},
    }


def _message(finding: Finding, severity: Severity, action: Json) -> str:
    name, pid = actor_get(finding.actor, "name"), finding.actor.id[0]
    who = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else "?"
    kill = action.get("kill", {}).get("result")
    done = f", {kill.replace('_', ' ')}" if kill else ""
    return f"{severity.name.lower()}: {finding.policy.name} by {who}[{pid}]{done}"


def _rule(policy: CompiledPolicy) -> Json:
    meta = policy.meta
    rule: Json = {"id": meta.id or policy.name, "name": policy.name, "ruleset": policy.place.file, "uuid": policy.hash}
    optional = {
        "description": meta.description or meta.title,
        "author": meta.author,
        "reference": meta.references[0] if meta.references else "",
    }
    return rule | {name: value for name, value in optional.items() if value}


def _threat(attack: Iterable[str]) -> Json:
    ids = list(dict.fromkeys(attack))
    technique: Json = {"id": list(dict.fromkeys(found.partition(".")[0] for found in ids))}
    if subs := [found for found in ids if "." in found]:
        technique["subtechnique"] = {"id": subs}
    return {"framework": "MITRE ATT&CK", "technique": technique}


def _process(actor: Actor) -> Json:
    out: Json = {}
    _put_fields(out, ((field, actor_get(actor, field.name)) for field in ACTOR_FIELDS))
    if actor.parent is not None:
        parent: Json = {}
        _put_fields(parent, ((field, actor_get(actor.parent, field.name)) for field in ACTOR_FIELDS))
        out.setdefault("process", {})["parent"] = parent.get("process", {})
    if (user := out.get("process", {}).get("user")) is not None:
        out["user"] = dict(user)
    return out


def _put_fields(out: Json, values: Iterable[tuple[Field, Value]]) -> None:
    """Puts each value that has an ECS name under it: `process.user.id` becomes out["process"]["user"]["id"]."""
    for field, value in values:
        if not field.ecs or value is None:
            continue
        *path, leaf = field.ecs.split(".")
        at = out
        for name in path:
            at = at.setdefault(name, {})
        shown = value_to_json(field, value)
        at[leaf] = str(shown) if field.kind is Kind.INT and field.ecs.endswith(_TEXT_LEAVES) else shown


def _key(finding: Finding) -> list[object]:
    """Returns what the events of a sequence share, as JSON shows it: a process, or the values of the last step's key."""
    refs = finding.trail[-1].step.key
    kinds = [ref.kind for ref in refs] if finding.policy.key is KeyKind.FIELDS else [Kind.PROCESS]
    values = finding.key if finding.policy.key is KeyKind.FIELDS else (finding.key,)
    return [value_to_json(Field("", kind, ""), value) for kind, value in zip(kinds, values, strict=True)]


def _hidden(event: Event, taken: Content) -> set[str]:
    """Returns the fields that are there for some other policy only: environments hold passwords."""
    return {name for name, content in event.type.taken.items() if not content & taken}


def _event_json(event: Event, taken: Content) -> Json:
    hidden = _hidden(event, taken)
    return {name: value for name, value in event.to_json().items() if name not in hidden}


def _evidence(step: StepEvidence, taken: Content) -> Json:
    out: Json = {
        "step": step.step.text,
        "place": place_text(step.step.place),
        "labels": list(step.step.labels),
        "alias": step.step.alias,
        "count": step.count,
        "events": [_event_json(event, taken) for event in step.events],
    }
    if by_file := _by_file(step):
        out["by_file"] = by_file
    return out


def _by_file(step: StepEvidence) -> list[str]:
    """Returns the paths of the step whose file it was, where it was reached by a name that isn't one of them."""
    asked = frozenset(paths_in(step.step.condition))
    found: dict[str, None] = {}
    for event in step.events:
        names = event.get(FILE_NAMES_NAME) if FILE_NAMES_NAME in event.type.slot_of else None
        if isinstance(names, tuple) and event.get("path") not in asked:
            found |= dict.fromkeys(text(name) for name in names if isinstance(name, bytes) and name in asked)
    return list(found)


def kill_json(result: str, **facts: object) -> Json:
    """Returns the alert's `action.kill`, facts that are None left out."""
    return {"result": result} | {name: value for name, value in facts.items() if value is not None}
