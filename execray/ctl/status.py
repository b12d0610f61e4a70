"""`status`: each daemon, what it has seen and lost, and whether each hook is alive."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from execray.control_client import OperationFailed, Unreachable
from execray.ctl.context import (
    DAEMONS,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    Context,
    as_map,
    as_maps,
    command_errors,
    duration,
    json_option,
    paint,
    print_json,
)
from execray.ctl.kernelside import full_words, gate_words, plan_words, skipped_words
from execray.terminal import safe


@dataclass(frozen=True, slots=True)
class Answer:
    """What one daemon said of itself, or why it said nothing."""

    daemon: str
    status: dict[str, Any]
    error: str = ""
    hint: str = ""
    reachable: bool = True

    def to_json(self) -> dict[str, object]:
        """Returns the daemon's own words, with `up` put before them."""
        if self.error:
            return {"up": self.reachable, "error": self.error, "hint": self.hint}
        return {"up": True, **self.status}


def ask(context: Context, daemon: str) -> Answer:
    """Asks one daemon for its status; never raises for one that can't be reached or fails."""
    try:
        with context.client(daemon) as client:
            return Answer(daemon, as_map(client.call("status")))
    except Unreachable as error:
        return Answer(daemon, {}, error.message, error.hint, reachable=False)
    except OperationFailed as error:
        return Answer(daemon, {}, error.message, error.hint)


@click.command()
@json_option
@click.pass_obj
@command_errors
def status(context: Context, as_json: bool) -> None:
    """Show each daemon: up, version, uptime, events, losses, and which hooks are alive.

    \b
    Examples:
      execray-ctl status
      execray-ctl status --json | jq .tracerd.lost
      watch -n1 execray-ctl status           like top, for the sensor
    """
    answers = [ask(context, daemon) for daemon in DAEMONS]
    if as_json:
        print_json({answer.daemon: answer.to_json() for answer in answers})
    else:
        for answer in answers:
            for line in _lines(answer):
                click.echo(line)
    if not all(answer.reachable for answer in answers):
        sys.exit(EXIT_UNREACHABLE)
    if any(answer.error for answer in answers):
        sys.exit(EXIT_FAILED)


def _lines(answer: Answer) -> Iterator[str]:
    name = answer.daemon.ljust(9)
    if answer.error:
        state = "failed" if answer.reachable else "down"
        yield f"{name} {paint(state.ljust(5), 'down')} {safe(answer.error, 500)}"
        if answer.hint:
            yield f"{'':9}       hint: {safe(answer.hint, 500)}"
        return
    found = answer.status
    stats = {**found, **as_map(found.get("stats"))}
    words = [
        f"version {safe(found.get('version', '?'))}",
        f"pid {safe(found.get('pid', '?'))}",
        f"up {duration(found.get('uptime_s'))}",
        *_rates(stats),
    ]
    yield f"{name} {paint('up   ', 'up')} {', '.join(words)}"
    yield from _loss(stats)
    if answer.daemon == "tracerd":
        yield from _kernel(stats)
        yield from _inline(as_map(stats.get("inline")))
    yield from _hooks(stats)
    if paths := as_map(stats.get("paths")):
        yield f"{'':9}  paths    {paint(*paths_words(paths))}"
    if answer.daemon == "policyd":
        yield from _policyd(found)
    if answer.daemon == "enforcer":
        yield from _counts("orders", as_map(found.get("orders") or found.get("outcomes")))


def _rates(stats: dict[str, Any]) -> Iterator[str]:
    if isinstance(rate := stats.get("rate"), int | float):
        yield f"{rate:,.0f} events/s"
    if isinstance(events := stats.get("events"), int):
        yield f"{events:,} events"
    if isinstance(own := stats.get("self_dropped"), int):
        yield f"{own:,} of our own left out"


def _loss(stats: dict[str, Any]) -> Iterator[str]:
    if "lost" not in stats:
        return
    lost = stats["lost"]
    places = lost if isinstance(lost, dict) else {"all": lost}
    some = {where: count for where, count in places.items() if count}
    if not some:
        yield f"{'':9}  lost     {paint('0', 'good')}"
        return
    yield f"{'':9}  lost     " + paint(", ".join(f"{safe(n)} at {safe(where)}" for where, n in some.items()), "bad")


def _kernel(stats: dict[str, Any]) -> Iterator[str]:
    if skipped := skipped_words(as_map(stats.get("skipped"))):
        yield f"{'':9}  skipped  {paint(skipped, 'bad')}"
    if gate := as_map(stats.get("gate")):
        yield f"{'':9}  gate     {gate_words(gate)}"
    for words in full_words(stats):
        yield f"{'':9}  filling  {paint(words, 'warning')}"


def _inline(inline: dict[str, Any]) -> Iterator[str]:
    if inline.get("mode") != "on":
        return
    counts = {name: inline.get(name) for name in ("killed", "spared", "budget", "expired", "unsent", "failed")}
    force = "in force" if inline.get("in_force") else "not in force"
    words = [f"{inline.get('rules', 0)} rules {force}"]
    words += [
        f"{count:,} {name}" for name, count in counts.items() if isinstance(count, int) and (count or name == "killed")
    ]
    yield f"{'':9}  kills    " + ", ".join(words)


def _hooks(stats: dict[str, Any]) -> Iterator[str]:
    for number, (name, raw) in enumerate(sorted(as_map(stats.get("hooks")).items())):
        text, style = hook_words(as_map(raw))
        label = "hooks" if number == 0 else ""
        yield f"{'':9}  {label:7}  {safe(name):24} {paint(text, style)}"


def hook_words(hook: dict[str, Any]) -> tuple[str, str]:
    """Returns how a hook is, in words and as a style: live, attached but silent, idle, or refused."""
    if hook.get("refused"):
        return f"refused: {safe(hook['refused'])}", "bad"
    if not hook.get("attached"):
        return ("missing", "bad") if hook.get("needed") else ("idle, no policy needs it", "warning")
    if hook.get("live") is False:
        return "attached, but silent", "bad"
    seen = hook.get("last_seen_ms")
    ago = f", seen {seen / 1000:.1f} s ago" if isinstance(seen, int | float) and not isinstance(seen, bool) else ""
    return f"live{ago}", "good"


def paths_words(paths: dict[str, Any]) -> tuple[str, str]:
    """Returns how the exact paths of policies fare that are matched by file too, in words and as a style."""
    if paths.get("failure"):
        return f"matched by name only: {safe(paths['failure'])}", "bad"
    if not paths.get("watched"):
        return "none to match by file", ""
    text = f"{safe(paths.get('resolved'))} of {safe(paths['watched'])} matched by file too"
    looked = paths.get("looked_ms")
    text += f", looked {looked / 1000:.1f} s ago" if isinstance(looked, int) else ", not looked yet"
    reasons = [f"{safe(count)} {safe(why)}" for why, count in as_map(paths.get("unresolved")).items()]
    text += f"; by name only: {'; '.join(reasons)}" if reasons else ""
    if paths.get("stuck_at"):
        return f"{text}; stuck at {safe(paths['stuck_at'])}", "bad"
    return text, "good"


def left_out_words(left_out: dict[str, Any]) -> Iterator[str]:
    """Yields what policies need and the sensor isn't asked for, in words."""
    if left_out.get("paths"):
        yield f"{safe(left_out['paths'])} exact paths are too many: matched by name only"
    for name, why in as_map(left_out.get("events")).items():
        yield f"event {safe(name)}: {safe(why)}"


def _policyd(found: dict[str, Any]) -> Iterator[str]:
    pad = f"{'':9}  "
    policies, generation = safe(found.get("policies", "?")), safe(found.get("generation", "?"))
    yield f"{pad}mode     {safe(found.get('mode', '?'))}; {policies} policies, generation {generation}"
    for words in left_out_words(as_map(found.get("left_out"))):
        yield f"{pad}left out {paint(words, 'bad')}"
    for words, style in plan_words(as_map(found.get("gate"))):
        yield f"{pad}gate     {paint(words, style)}"
    stream = as_map(found.get("stream"))
    if stream:
        good = stream.get("connected") and stream.get("live")
        if good:
            words = "connected, live"
        elif stream.get("connected"):
            words = "connected, but no heartbeat"
        else:
            words = f"not connected: {safe(stream.get('error') or 'tracerd does not answer')}"
        yield f"{pad}sensor   {paint(words, 'good' if good else 'bad')}"
    if as_map(found.get("enforcer")).get("connected") is False:
        yield f"{pad}orders   {paint('no connection to the enforcer: kills go the direct way', 'bad')}"
    yield from _counts("alerts", as_map(found.get("alerts")))
    yield from _counts("kills", as_map(found.get("kills")))
    plugins = as_maps(found.get("plugins"))
    own = {plugin.get("name") for plugin in plugins if plugin.get("kind") == "sink"}
    for name, raw in as_map(found.get("sinks")).items():
        if name in own:
            continue
        sink = as_map(raw)
        failed, dropped = sink.get("failed", 0), sink.get("dropped", 0)
        if failed or dropped:
            words = f"{safe(name)}: {safe(failed)} failed, {safe(dropped)} dropped. {safe(sink.get('last_error', ''))}"
            yield f"{pad}sink     {paint(words.rstrip(), 'bad')}"
    for plugin in plugins:
        text, style = plugin_words(plugin)
        yield f"{pad}plug-in  {paint(text, style)}"


def plugin_words(plugin: dict[str, Any]) -> tuple[str, str]:
    """Returns how a plug-in is, in words and as a style: bad where it is down, failed or lost something."""
    who = f"{safe(plugin.get('kind', '?'))} {safe(plugin.get('name', '?'))} ({safe(plugin.get('package', '?'))})"
    bad = {name: plugin.get(name) for name in ("failed", "dropped", "crashes", "timeouts") if plugin.get(name)}
    counts = [f"{safe(plugin.get(name, 0))} {name}" for name in ("done", "waiting")]
    counts += [f"{safe(count)} {name}" for name, count in bad.items()]
    text = f"{who}: {safe(plugin.get('state', '?'))}, {', '.join(counts)}"
    if plugin.get("last_error"):
        text = f"{text}. Last: {safe(plugin['last_error'])}"
    return text, "bad" if bad or plugin.get("state") in ("down", "stopped") else "good"


def _counts(label: str, counts: dict[str, Any]) -> Iterator[str]:
    words = [
        f"{safe(value)} {safe(name).replace('_', ' ')}" for name, value in counts.items() if isinstance(value, int)
    ]
    if words:
        yield f"{'':9}  {label:7}  {', '.join(words)}"
