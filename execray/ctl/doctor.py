"""`doctor`: whether this host lets ExecRay do its work, and what it costs where it doesn't."""

from __future__ import annotations

import enum
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from execray.control_client import OperationFailed, Unreachable
from execray.ctl.config import notes_on
from execray.ctl.context import (
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    Context,
    as_map,
    as_maps,
    command_errors,
    json_option,
    paint,
    print_json,
    show_error,
)
from execray.ctl.kernelside import gate_findings, program_words, ring_findings, table_findings
from execray.ctl.status import paths_words
from execray.terminal import safe

if TYPE_CHECKING:
    from execray.config import Layered
    from execray.extensions import Outcome

#: Capabilities by number, those that some daemon needs, with what each is for.
CAPABILITIES: Final = {
    5: ("CAP_KILL", "enforcer and policyd: to kill"),
    13: ("CAP_NET_RAW", "enforcer: tcpdump"),
    38: ("CAP_PERFMON", "tracerd: tracing programs"),
    39: ("CAP_BPF", "tracerd: BPF maps and programs"),
}
MIN_KERNEL: Final = (5, 8)  # the BPF ring buffer


class State(enum.Enum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"  # something is missing that ExecRay can do without
    BAD = "bad"  # ExecRay can't work here


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, and what it costs when it isn't as it should be."""

    name: str
    state: State
    found: str
    cost: str = ""

    def to_json(self) -> dict[str, str]:
        """Returns the check as JSON shows it."""
        out = {"name": self.name, "state": self.state.value, "found": self.found}
        return {**out, "cost": self.cost} if self.cost else out


def static_checks(tcpdump: str, root: Path = Path("/")) -> list[Check]:
    """Returns what can be known without any daemon. root: where /proc and /sys are, for tests."""
    return [
        _kernel(platform.release()),
        _btf(root / "sys/kernel/btf/vmlinux"),
        _lsm(root / "sys/kernel/security/lsm"),
        _lockdown(root / "sys/kernel/security/lockdown"),
        _capabilities(root / "proc/self/status"),
        _tcpdump(tcpdump),
    ]


def _kernel(release: str) -> Check:
    numbers = release.split("-", maxsplit=1)[0].split(".")
    version = tuple(int(part) for part in numbers[:2] if part.isdecimal())
    found = f"Linux {release} {platform.machine()}"
    if version < MIN_KERNEL:
        return Check("kernel", State.BAD, found, "tracerd needs the BPF ring buffer: Linux 5.8 or newer")
    return Check("kernel", State.OK, found)


def _btf(path: Path) -> Check:
    try:
        size = path.stat().st_size
    except OSError:
        return Check(
            "BTF", State.BAD, f"{path} is missing", "tracerd can't load: a kernel with CONFIG_DEBUG_INFO_BTF=y"
        )
    return Check("BTF", State.OK, f"{path}, {size // 1024} KiB")


def _lsm(path: Path) -> Check:
    try:
        names = path.read_text(encoding="ascii").strip()
    except OSError:
        return Check(
            "LSM", State.NOTE, "unknown: securityfs is not mounted", "nothing yet: calls are never refused, only seen"
        )
    if "bpf" in names.split(","):
        return Check("LSM", State.OK, names)
    return Check(
        "LSM", State.NOTE, f"{names} (no bpf)", "calls can't be refused in the kernel, only seen; needs lsm=...,bpf"
    )


def _lockdown(path: Path) -> Check:
    try:
        modes = path.read_text(encoding="ascii").strip()
    except OSError:
        return Check("lockdown", State.OK, "not in use")
    if "[confidentiality]" in modes:
        return Check("lockdown", State.BAD, modes, "tracing programs may not read kernel memory: nothing is seen")
    return Check("lockdown", State.OK, modes)


def _capabilities(path: Path) -> Check:
    try:
        status = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return Check("capabilities", State.NOTE, f"unknown: {error.strerror}", "is /proc mounted?")
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    mask = int(line.split()[1], 16)
    missing = [f"{name} ({use})" for bit, (name, use) in CAPABILITIES.items() if not mask >> bit & 1]
    found = f"uid {os.geteuid()}, {len(CAPABILITIES) - len(missing)} of {len(CAPABILITIES)} needed"
    if missing:
        return Check("capabilities", State.NOTE, found, f"daemons started from here would lack {', '.join(missing)}")
    return Check("capabilities", State.OK, found)


def _tcpdump(name: str) -> Check:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin")
    if found is None:
        return Check(
            "tcpdump", State.NOTE, f"`{name}` is missing", "`capture` does nothing; kills and alerts are as ever"
        )
    return Check("tcpdump", State.OK, found)


def configuration_checks(layers: Layered, main: Path | None) -> list[Check]:
    """Returns a check for each thing in the configuration that is perhaps not what was meant, or one that all is well."""
    checks = [Check("configuration", State.NOTE, note) for note in notes_on(layers, main)]
    return checks or [Check("configuration", State.OK, "accounts, groups and folders are there")]


def package_checks(outcomes: Sequence[Outcome]) -> list[Check]:
    """Returns a check for each package that adds events, or would."""
    return [
        Check("package", State.NOTE, f"{found.package}: {found.refused}", "it is left out, and its events are unknown")
        if found.refused
        else Check("package", State.OK, f"{found.package}: {', '.join(found.events)}")
        for found in outcomes
    ]


@click.command()
@json_option
@click.pass_obj
@command_errors
def doctor(context: Context, as_json: bool) -> None:
    """Check this host: kernel, BTF, LSM, capabilities, tcpdump, configuration, BPF hooks.

    Works without the daemons, then for all but the objects and hooks.

    \b
    Examples:
      execray-ctl doctor
      sudo execray-ctl doctor --json
      execray-ctl doctor --json | jq '.host[] | select(.state != "ok")'
    """
    checks = [
        *static_checks(context.config.enforcer.tcpdump),
        *configuration_checks(context.layers(), context.config_file),
        *package_checks(context.extend_catalogue()),
    ]
    sensor: dict[str, Any] = {}
    failure: Unreachable | OperationFailed | None = None
    try:
        with context.client("tracerd", timeout_s=15.0) as client:
            sensor = as_map(client.call("doctor"))
    except (Unreachable, OperationFailed) as error:
        failure = error
    if as_json:
        tracerd = {"up": False, "error": failure.message, "hint": failure.hint} if failure else {"up": True, **sensor}
        print_json({"host": [check.to_json() for check in checks], "tracerd": tracerd})
    else:
        _show(checks, sensor)
        if failure is not None:
            show_error(failure)
    if isinstance(failure, Unreachable):
        sys.exit(EXIT_UNREACHABLE)
    if failure is not None or any(check.state is State.BAD for check in checks):
        sys.exit(EXIT_FAILED)


_STYLES: Final = {
    "ok": "good",
    "note": "warning",
    "bad": "bad",
    "attached": "good",
    "idle": "warning",
    "refused": "bad",
}


def _show(checks: list[Check], sensor: dict[str, Any]) -> None:
    for check in checks:
        click.echo(_line(check.state.value, check.name, check.found, check.cost))
    for text in _sensor_lines(sensor):
        click.echo(text)


def _line(state: str, name: str, found: str, cost: str, indent: str = "") -> str:
    head = f"{indent}{paint(safe(state).ljust(8), _STYLES.get(state, ''))}  {safe(name):{26 - len(indent)}}"
    text = f"{head}  {safe(found, 500)}".rstrip()
    return f"{text}\n{'':10}{'':26}  {paint(safe(cost, 500), 'warning')}" if cost else text


def _sensor_lines(sensor: dict[str, Any]) -> Iterator[str]:
    """What tracerd says of its objects, each with its programs, of the packages it left out, and of the hooks of each event."""
    for package in as_maps(sensor.get("packages")):
        if reason := str(package.get("refused") or ""):
            yield _line("refused", str(package.get("package", "?")), reason, "its events are not seen")
    for item in as_maps(sensor.get("objects")):
        reason = str(item.get("refused") or "")
        state = "refused" if reason else "loaded" if item.get("loaded") else "idle"
        yield _line(state, str(item.get("object", "?")), reason, str(item.get("cost") or "") if reason else "")
        for program in as_maps(item.get("programs")):
            yield _line(*_program(program), indent="  ")
    for name, raw in as_map(sensor.get("hooks")).items():
        yield _line(*_hook(f"event {name}", as_map(raw)))
    gate, ring, tables = (as_map(sensor.get(what)) for what in ("gate", "ring", "tables"))
    for one in (*gate_findings(gate), *ring_findings(ring), *table_findings(tables)):
        yield _line(one.state, one.name, one.found, one.cost)
    if paths := as_map(sensor.get("paths")):
        words, style = paths_words(paths)
        bad = style == "bad"
        cost = "files that are reached by other names than these paths go unseen" if bad else ""
        yield _line("bad" if bad else "ok", "paths by file", words, cost)
        for item in as_maps(paths.get("by_name_only")):
            yield _line("note", str(item.get("path", "?")), str(item.get("reason", "?")), "", indent="  ")


def _program(program: dict[str, Any]) -> tuple[str, str, str, str]:
    name, reason = str(program.get("name", "?")), str(program.get("refused") or "")
    if reason:
        return "refused", name, reason, ""
    words, cost = program_words(program)
    if program.get("attached"):
        return "note" if cost else "attached", name, words, cost
    return "idle", name, ", ".join(filter(None, ("no policy needs it", words))), cost


def _hook(name: str, hook: dict[str, Any]) -> tuple[str, str, str, str]:
    if reason := str(hook.get("refused") or ""):
        return "refused", name, reason, "a policy that names this event never matches" if hook.get("needed") else ""
    if hook.get("attached"):
        return "attached", name, "" if hook.get("needed") else "shares its program with others", ""
    return "idle", name, "no policy needs it", ""
