"""`events`: what processes do, as it happens."""

from __future__ import annotations

import pwd
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import click

from execray.ctl.context import Context, as_map, command_errors, json_option
from execray.terminal import columns, painter, safe, use_color
from execray.wire.control import encode_line

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    _TextParam = click.ParamType[str]
    _ListParam = click.ParamType[list[str]]
    _NumberParam = click.ParamType[int]
else:
    _TextParam = _ListParam = _NumberParam = click.ParamType  # generic only in newer releases of click

#: Where a tail says that it left something out itself, and not the sensor.
_OWN: Final = "tail: "


class EventTypes(_ListParam):
    """Names of events, with commas between them."""

    name = "types"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Returns the names; fails for one that no event has."""
        known = _event_names()
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        for name in names:
            if name not in known:
                self.fail(f"there is no event {name!r}; there are {', '.join(_event_names(aliases=False))}", param, ctx)
        return names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Returns lists that are one name longer."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  # only for completion

        before, _, begun = incomplete.rpartition(",")
        done = before.split(",")
        names = [name for name in _event_names(aliases=False) if name.startswith(begun) and name not in done]
        return [CompletionItem(f"{before},{name}" if before else name) for name in names]


def _event_names(*, aliases: bool = True) -> list[str]:
    # Imported here: only those commands pay for the catalogue that show events.
    from execray.schema.catalog import EVENT_BY_NAME, EVENTS  # noqa: PLC0415

    return list(EVENT_BY_NAME) if aliases else [event.name for event in EVENTS]


class User(_NumberParam):
    """A user's name or number; becomes the number."""

    name = "user"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the uid; fails for a name that nobody has."""
        text = str(value)
        if text.isascii() and text.isdigit():
            return int(text)
        try:
            return pwd.getpwnam(text).pw_uid
        except KeyError:
            self.fail(f"there is no user {text!r}", param, ctx)


@click.command()
@click.option(
    "--type", "types", type=EventTypes(), multiple=True, metavar="NAME[,NAME]",
    help="Only these events.  [default: all but write]",
)  # fmt: skip
@click.option("--pid", type=click.IntRange(1), metavar="N", help="Only of this process.")
@click.option("--exe", metavar="GLOB", help="Only of programs with such a path; `*` goes across `/`.")
@click.option("--name", metavar="GLOB", help="Only of programs with such a name: the path's last part.")
@click.option("--path", metavar="GLOB", help="Only where the event names such a path; `*` goes across `/`.")
@click.option(
    "--user", "uid", type=User(), metavar="NAME|UID", help="Only of processes of this user, real or effective."
)
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after so many.  [default: at Ctrl-C]")
@click.option("--content", is_flag=True, help="With bytes written and read, and environments; for root.")
@json_option
@click.pass_obj
@command_errors
def events(context: Context, /, types: tuple[list[str], ...], count: int | None, as_json: bool, **filters: Any) -> None:
    """Print what processes do, as it happens, until Ctrl-C. What is given must all hold.

    The kernel's hooks are attached for what is asked, and detached when nobody asks any more. A tail gets at most 1,000
    events a second; what is left out is counted. With --json it is an event file, one object a line.

    \b
    Examples:
      execray-ctl events --type exec
      execray-ctl events --type open,connect --user www-data -n 20
      execray-ctl events --type open --path '/etc/*' --json | jq -r .exe
    """
    chosen = list(dict.fromkeys(name for names in types for name in names))
    if filters["content"] and not chosen:
        chosen = ["write"]
    asked = {name: value for name, value in filters.items() if value is not None}
    show = _json_line if as_json else _Words().show
    with context.client("policyd") as client:
        _note_blindness(as_map(client.call("status")), chosen)
        seen = 0
        try:
            for record in client.follow("events", types=chosen, ancestors=as_json, **asked):
                show(as_map(record))
                seen += as_map(record).get("event") != "lost"
                if seen == count:
                    return
        except KeyboardInterrupt:
            return  # the ordinary way to end it
    click.echo("note: policyd closed the connection", err=True)


def _note_blindness(status: dict[str, Any], types: list[str]) -> None:
    """Says on stderr why nothing may come."""
    if not as_map(status.get("stream")).get("connected"):
        click.echo("note: policyd has no connection to tracerd: events come when it has", err=True)
    hooks = as_map(as_map(status.get("sensor")).get("hooks"))
    for name in types:
        if reason := as_map(hooks.get(name)).get("refused"):
            click.echo(f"note: {safe(name)} is refused by the kernel: {safe(reason)}", err=True)


def _json_line(record: dict[str, Any]) -> None:
    sys.stdout.write(encode_line(record).decode("ascii"))
    sys.stdout.flush()


@lru_cache(maxsize=1024)
def _user(uid: int | None) -> str:
    try:
        return "?" if uid is None else safe(pwd.getpwuid(uid).pw_name, 16)
    except (KeyError, OverflowError):
        return safe(uid, 16)


class _Words:
    """One line for each event: when, whose, which process, and what it did."""

    def __init__(self) -> None:
        # Imported here, as the catalogue is.
        from execray.timeline import event_words  # noqa: PLC0415

        self._words: Callable[[dict[str, Any]], str] = event_words
        self._paint = painter(use_color())
        #: From the events' clock to that on the wall.
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def show(self, record: dict[str, Any]) -> None:
        """Prints a record at once; on a terminal on one line of it."""
        sys.stdout.write(self.line(record) + "\n")
        sys.stdout.flush()

    def line(self, record: dict[str, Any]) -> str:
        """Returns a record as one line, whatever stands in it."""
        paint, when = self._paint, self._time(record.get("time_ns"))
        if record.get("event") == "lost":
            return paint(f"{when}  {_lost_words(record)}", "warning")
        who, process = _owner(record), _process(record)
        room = (columns() or 1 << 20) - len(f"{when}  {who:9} {process:22} ")
        act, arrow, result = self._words(_with_computed(record)).rpartition(" -> ")
        if not arrow:
            act, result = result, ""
        room -= len(arrow + result)
        if len(act) > room:
            act = act[: max(room - 1, 8)] + "…"  # what came of it stays
        what = f"{act}{arrow}{paint(result, 'bad') if result.startswith('E') else result}"
        return f"{paint(when, 'dim')}  {who:9} {paint(process, 'name')}{'':{max(0, 22 - len(process))}} {what}"

    def _time(self, time_ns: object) -> str:
        if not isinstance(time_ns, int) or not 0 <= time_ns < 1 << 63:
            return "?" * 12
        seconds, rest_ns = divmod(time_ns + self._offset_ns, 1_000_000_000)
        return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{rest_ns // 1_000_000:03}"


def _owner(record: dict[str, Any]) -> str:
    uid, euid = (value if isinstance(value, int) else None for value in (record.get("uid"), record.get("euid")))
    return _user(uid) if euid in (uid, None) else f"{_user(uid)}>{_user(euid)}"


def _process(record: dict[str, Any]) -> str:
    name = str(record.get("exe") or record.get("comm") or "?").rpartition("/")[2]
    return f"{safe(name, 24)}[{_pid(record.get('proc.id'))}]"


def _pid(identity: object) -> str:
    return safe(str(identity).partition("-")[0], 12) if identity else "?"


def _with_computed(record: dict[str, Any]) -> dict[str, Any]:
    """Adds what a record leaves to be computed from the rest, as far as it is shown."""
    argv = record.get("argv")
    computed: dict[str, Any] = {}
    if isinstance(argv, list):
        computed["cmdline"] = " ".join(str(arg) for arg in argv)
    for name in ("child", "target"):
        if record.get(f"{name}.id"):
            computed[f"{name}.pid"] = _pid(record[f"{name}.id"])
    return record | computed


def _lost_words(record: dict[str, Any]) -> str:
    where, count = str(record.get("where", "?")), record.get("count")
    number = f"{count:,}" if isinstance(count, int) and count else "an unknown number of"
    if where.startswith(_OWN):
        return f"{number} events not shown: {safe(where.removeprefix(_OWN))}"
    return f"{number} events lost at `{safe(where)}`: nobody saw them"
