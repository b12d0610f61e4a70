"""An alert as people read it: what it is, who did it, each step with its time, and what was done about it.

Takes the alert's JSON object (docs/alerts.md) and returns text. Nothing in it is trusted: names, arguments and contents come
from the watched processes, so every character that could steer a terminal or fake a line is escaped.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeGuard

from execray.schema.catalog import EVENT_BY_NAME
from execray.schema.event import constant_name
from execray.terminal import Painter, fold, painter, safe

Alert: TypeAlias = Mapping[str, Any]


def render(alert: Alert, *, color: bool = False, width: int | None = None) -> str:
    """Returns the timeline of one alert, several lines, the last one ended too.

    width: of the terminal; longer lines are folded. Never raises for an object of another shape: what is missing is left out.
    """
    return "".join(f"{fold(line, width)}\n" for line in _lines(alert, painter(color)))


def summary(alert: Alert, *, color: bool = False) -> str:
    """Returns the alert on one line, as `alerts list` shows it."""
    own, paint = _map(alert, "execray"), painter(color)
    severity = safe(own.get("severity", "?"))
    return "  ".join(
        (
            safe(str(own.get("alert_id", "?"))),
            safe(alert.get("@timestamp", "?")),
            paint(severity.ljust(8), severity),
            safe(_map(alert, "rule").get("name", "?")),
            _who(alert),
            _verdict(own),
        )
    ).rstrip()


def _map(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _maps(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = value.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _texts(value: Mapping[str, Any], key: str) -> list[str]:
    found = value.get(key)
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _lines(alert: Alert, paint: Painter) -> Iterator[str]:
    own, rule = _map(alert, "execray"), _map(alert, "rule")
    severity = safe(own.get("severity", "?"))
    technique = " ".join(safe(t) for t in _texts(own, "attack"))
    title = paint(safe(rule.get("name", "?")), "bold")
    yield f"{paint(severity.upper(), severity)}  {title}" + (f"  {technique}" if technique else "")
    if rule.get("description"):
        yield f"  {safe(rule['description'], 400)}"
    host = safe(_map(alert, "host").get("hostname", "?"))
    yield paint(f"  {safe(alert.get('@timestamp', '?'))} on {host}, alert {safe(own.get('alert_id', '?'))}", "dim")
    yield from _process_lines(alert)
    yield from _step_lines(own, paint)
    yield from _loss_lines(own)
    yield from _action_lines(own, paint)
    for flag, words in _CAVEATS.items():
        if own.get(flag):
            yield paint(f"  note: {words}", "medium")
    if own.get("suppressed"):
        yield paint(f"  {safe(own['suppressed'])} more of the same before this one, not shown", "dim")


_CAVEATS: Final = {
    "tainted": "events were lost while this was going on, so steps may be missing",
    "degraded": "sequences were being evicted while this was going on",
    "partial_evidence": "it rests on a value that was only captured in part, so nothing was killed for it",
}


def _who(alert: Alert) -> str:
    process = _map(alert, "process")
    return f"{safe(process['name'])}[{safe(process.get('pid', '?'))}]" if "name" in process else ""


def _process_lines(alert: Alert) -> Iterator[str]:
    process = _map(alert, "process")
    if not process:
        return
    uid = safe(_map(process, "user").get("id", "?"))
    yield f"  process  {_who(alert)}, uid {uid}: {safe(process.get('command_line') or process.get('executable', '?'))}"
    parent = _map(process, "parent")
    if parent:
        words = safe(parent.get("command_line") or parent.get("executable", "?"))
        yield f"  made by  {safe(parent.get('name', '?'))}[{safe(parent.get('pid', '?'))}]: {words}"


def _step_lines(own: Mapping[str, Any], paint: Painter) -> Iterator[str]:
    trail = _maps(own, "trail")
    starts = [event["time_ns"] for step in trail for event in _maps(step, "events") if _is_int(event.get("time_ns"))]
    first = min(starts, default=0)
    for number, step in enumerate(trail, 1):
        labels = "".join(f'"{safe(label)}" ' for label in _texts(step, "labels"))
        yield paint(f"  step {number}  {labels}{safe(step.get('step', '?'))}", "dim")
        events = _maps(step, "events")
        for event in events:
            yield f"    {_offset(event, first)}  {event_words(event)}  {_actor(event)}".rstrip()
        if by_file := _texts(step, "by_file"):
            yield f"    {'':>13}  by another name: it is the file {', '.join(map(safe, by_file))}"
        count = step.get("count")
        unseen = count - len(events) if _is_int(count) else 0
        if unseen > 0:
            yield f"    {'':>13}  and {unseen} more"


def _loss_lines(own: Mapping[str, Any]) -> Iterator[str]:
    for where, lost in _map(own, "lost").items():
        count = lost.get("count") if isinstance(lost, Mapping) else None
        what = f"{safe(count)} events lost" if count else "an unknown number of events lost"
        yield f"  {what} at `{safe(where)}`: what happened there was not seen"


def _action_lines(own: Mapping[str, Any], paint: Painter) -> Iterator[str]:
    action = _map(own, "action")
    kill, capture = _map(action, "kill"), _map(action, "capture")
    if kill:
        style = {"killed": "good", "would_kill": "medium"}.get(str(kill.get("result")), "bad")
        yield f"  kill     {paint(kill_words(kill), style)}"
    if capture:
        where = f" {safe(capture['file'])}" if capture.get("file") else ""
        why = f" ({safe(capture['reason'])})" if capture.get("reason") else ""
        yield f"  capture  {safe(capture.get('result', '?'))}{where}{why}"
    for told in _maps(action, "notify"):
        yield f"  notify   {safe(told.get('plugin', '?'))}: {safe(told.get('result', '?')).replace('_', ' ')}"


def _verdict(own: Mapping[str, Any]) -> str:
    kill = _map(_map(own, "action"), "kill")
    return kill_words(kill) if kill else ""


_BY: Final = {"enforcer": "the enforcer", "policyd": "policyd directly", "kernel": "the kernel, in the call itself"}


def kill_words(kill: Mapping[str, Any]) -> str:
    """Returns what became of a kill: `killed by the enforcer, 1.8 ms after the event`."""
    result, reason = kill.get("result"), kill.get("reason")
    by = _BY.get(str(kill.get("by")), safe(kill.get("by", "?")))
    micros = kill.get("latency_us")
    after = f", {micros / 1000:.2f} ms after the event" if _is_int(micros) else ""
    why = f" ({safe(reason)})" if reason else ""
    if result == "killed":
        return f"killed by {by}{after}{why}"
    if result == "would_kill":
        return f"would have been killed{why}"
    return f"not killed: {safe(result)}{why}"


def _offset(event: Mapping[str, Any], first: int) -> str:
    time_ns = event.get("time_ns")
    return f"{(time_ns - first) / 1e6:>+10.3f} ms" if _is_int(time_ns) else f"{'?':>13}"


def _actor(event: Mapping[str, Any]) -> str:
    name = event.get("name") or event.get("comm")
    return f"[{safe(name, 40)} {safe(event.get('pid', '?'))}]" if name else ""


def _is_int(value: object) -> TypeGuard[int]:
    # JSON's integers have no bound, float's and the kernel's do.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


# --- one event in words ---------------------------------------------------------------------------------------------


def event_words(event: Mapping[str, Any]) -> str:
    """Returns an event of the trail as a sentence's worth: `open /etc/shadow (O_RDONLY) -> 3`."""
    name = str(event.get("event", "?"))
    words = _WORDS.get(name, _any_words)(event)
    ret = event.get("ret")
    if not isinstance(ret, int):
        return words
    return f"{words} -> {errno.errorcode.get(-ret, ret) if ret < 0 else ret}"


def _constant(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    row = EVENT_BY_NAME.get(str(event.get("event")))
    if not isinstance(value, int) or row is None or name not in row.by_name:
        return safe(value)
    return constant_name(row.by_name[name], value)


def _target_file(event: Mapping[str, Any]) -> str:
    return safe(event.get("path", event.get("rawpath", "?")))


def _open(event: Mapping[str, Any]) -> str:
    flags = event.get("flags")
    words = safe(flags)
    if isinstance(flags, int):
        # O_RDONLY is 0, so the access mode is named by itself and the other bits after it.
        mode = ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[flags & 3]
        rest = flags & ~3
        words = f"{mode}|{_constant({**event, 'flags': rest}, 'flags')}" if rest else mode
    return f"open {_target_file(event)} ({words}){' made it' if event.get('created') else ''}"


def _write(event: Mapping[str, Any]) -> str:
    content = f' "{safe(event["content"], 60)}"' if event.get("content") else ""
    return f"write {safe(event.get('len', '?'))} bytes to {safe(event.get('path', 'fd ' + str(event.get('fd', '?'))))}{content}"


def _connect(event: Mapping[str, Any]) -> str:
    ip = event.get("dst.ip")
    if ip is None:
        return f"connect {safe(event['path'])}" if "path" in event else f"connect ({_constant(event, 'family')})"
    host = f"[{safe(ip)}]" if ":" in str(ip) else safe(ip)
    return f"connect {host}:{safe(event.get('dst.port', '?'))}"


def _exit(event: Mapping[str, Any]) -> str:
    return (
        f"killed by {_constant(event, 'signal')}"
        if event.get("signal")
        else f"exit {safe(event.get('exit_code', '?'))}"
    )


def _exec(event: Mapping[str, Any]) -> str:
    cmdline = f": {safe(event['cmdline'])}" if event.get("cmdline") else ""
    return f"exec {safe(event.get('filename', event.get('exe', '?')))}{cmdline}"


def _ptrace(event: Mapping[str, Any]) -> str:
    exe = f" ({safe(event['target.exe'])})" if event.get("target.exe") else ""
    pid = event.get("target.pid", event.get("target.tid", "?"))
    return f"ptrace {_constant(event, 'request')} of pid {safe(pid)}{exe}"


def _setuid(event: Mapping[str, Any]) -> str:
    was = f" (was uid {safe(event['old.uid'])}, euid {safe(event.get('old.euid', '?'))})" if "old.uid" in event else ""
    now = f"uid {safe(event.get('new.uid', '?'))}, euid {safe(event.get('new.euid', '?'))}"
    return f"{safe(event.get('call', 'setuid'))} to {now}{was}"


def _any_words(event: Mapping[str, Any]) -> str:
    row = EVENT_BY_NAME.get(str(event.get("event")))
    names = [field.name for field in row.fields if field.name != "ret"] if row else []
    return " ".join([safe(event.get("event", "?")), *(f"{n}={safe(event[n])}" for n in names if n in event)])


_WORDS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "exec": _exec,
    "exit": _exit,
    "fork": lambda event: f"fork: child {safe(event.get('child.pid', '?'))}",
    "open": _open,
    "write": _write,
    "chmod": lambda event: f"chmod {_target_file(event)} to {_octal(event.get('mode'))}",
    "connect": _connect,
    "ptrace": _ptrace,
    "setuid": _setuid,
}


def _octal(value: object) -> str:
    return f"{value:04o}" if isinstance(value, int) else safe(value)
