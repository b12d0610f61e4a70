"""Test vectors: what processes do, written in YAML beside a policy, and the matches that are expected of it (docs/testing.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

from execray.errors import OperatorError
from execray.eventfile import EventReader, Notes, open_events, parse_record
from execray.eventfile.reading import pack
from execray.schema.catalog import EVENT_BY_NAME
from execray.wire.frames import Batch

SUFFIX: Final = ".test.yaml"
MAX_FILE_BYTES: Final = 4 * 1024 * 1024
START_NS: Final = 1_000_000_000_000
_TICK_NS: Final = 1_000_000
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)")
_UNITS: Final = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9, "d": 86400e9}
_OWN_KEYS: Final = frozenset({"at", "child", "as"})


class VectorError(OperatorError):
    """A vector file that is none; the message begins with the file."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A match that is to come: by which policy, completed by the event of that number, through these events if given."""

    policy: str
    at: int
    steps: tuple[tuple[int, ...], ...] | None = None
    suppressed: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One test of a vector file. expected None: recorded events of which only silence is asked."""

    name: str
    batches: tuple[Batch, ...]
    expected: tuple[Expected, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorFile:
    """One file: the policies it is about, and its tests."""

    path: Path
    policies: tuple[Path, ...]
    cases: tuple[Case, ...]


def find_vectors(folder: Path) -> list[Path]:
    """Returns the vector files of a folder and of those in it, or the one that was named. Raises OperatorError for none."""
    found = [folder] if folder.is_file() else sorted(folder.rglob(f"*{SUFFIX}"))
    if not found:
        raise OperatorError(f"no *{SUFFIX} file is in {folder}", "write one beside the policy: see docs/testing.md")
    return found


def read_vectors(path: Path) -> VectorFile:
    """Reads a vector file and what it refers to. Raises VectorError, and EventFileError for a stream."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise VectorError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB", "record events in a file of their own")
        found = yaml.safe_load(raw)
    except OSError as error:
        raise VectorError(f"can't read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise VectorError(f"{path}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    return _FileReader(path).read(found)


@dataclass(slots=True)
class _Process:
    pid: int
    fields: dict[str, Any]
    parent: _Process | None

    @property
    def id(self) -> str:
        return f"{self.pid}-{START_NS + self.pid}"

    def line(self) -> list[dict[str, Any]]:
        """Returns the creators as an event file has them."""
        out, at = [], self.parent
        while at is not None:
            out.append({"proc.id": at.id, **at.fields})
            at = at.parent
        return out


@dataclass(slots=True)
class _FileReader:
    path: Path
    where: str = ""
    _processes: dict[str, _Process] = field(default_factory=dict)
    _pids: int = 1000

    def read(self, found: object) -> VectorFile:
        top = self._mapping(found, {"policies", "processes", "tests"}, "the file")
        own = self.path.name.removesuffix(SUFFIX) + ".policy"
        named = self._list(top.get("policies", [own]), "policies")
        policies = tuple(self.path.parent / str(name) for name in named)
        tests = self._list(top.get("tests"), "tests")
        cases = tuple(self._case(test, number, top.get("processes", {})) for number, test in enumerate(tests, start=1))
        names = [case.name for case in cases]
        for name in names:
            if names.count(name) > 1:
                self._fail(f"two tests are called {name!r}")
        return VectorFile(self.path, policies, cases)

    def _case(self, test: object, number: int, processes: object) -> Case:
        self.where = f"test {number}"
        found = self._mapping(test, {"name", "processes", "events", "stream", "expect"}, "a test")
        name = str(found.get("name", ""))
        if not name:
            self._fail("it has no `name`", "say what happens in it")
        self.where = f"test {name!r}"
        if ("events" in found) == ("stream" in found):
            self._fail("it needs either `events` or `stream`")
        if "expect" not in found:
            self._fail("it has no `expect`", "write `expect: []` for a stream that must stay silent")
        expected = tuple(self._expected(item) for item in self._list(found["expect"], "expect"))
        if "stream" in found:
            batches, notes = self._stream(self.path.parent / str(found["stream"]))
        else:
            self._processes, self._pids = {}, 1000
            for table in (processes, found.get("processes", {})):
                self._declare(table)
            batches, notes = self._events(self._list(found["events"], "events"))
        return Case(name, batches, expected, notes)

    def _stream(self, path: Path) -> tuple[tuple[Batch, ...], tuple[str, ...]]:
        notes = Notes()
        with open_events(path) as lines:
            batches = tuple(EventReader(lines, str(path), notes).batches())
        return batches, tuple(f"{path}:{line}: {text}" for text, line in notes.first_line.items())

    def _declare(self, table: object) -> None:
        if not isinstance(table, dict):
            self._fail("`processes` is a mapping of names to fields")
        for name, fields in table.items():
            own = dict(fields) if isinstance(fields, dict) else self._fail(f"process {name!r} has no fields")
            parent = own.pop("parent", None)
            self._new(str(name), self._process(parent) if parent is not None else None, own)

    def _new(self, name: str, parent: _Process | None, fields: dict[str, Any]) -> _Process:
        self._pids += 1
        # All but who it is.
        inherited = {} if parent is None else {k: v for k, v in parent.fields.items() if k not in ("proc.id", "pid")}
        self._processes[name] = _Process(self._pids, {"uid": 1000, "euid": 1000, **inherited, **fields}, parent)
        return self._processes[name]

    def _process(self, name: object) -> _Process:
        if str(name) not in self._processes:
            known = ", ".join(self._processes) or "none"
            self._fail(f"no process is called {name!r}", f"declared are: {known}")
        return self._processes[str(name)]

    def _events(self, items: Sequence[object]) -> tuple[tuple[Batch, ...], tuple[str, ...]]:
        notes = Notes()
        records = []
        now_ns = START_NS
        test = self.where
        for number, item in enumerate(items, start=1):
            self.where = f"{test}, event {number}"
            found = dict(item) if isinstance(item, dict) and item else self._fail("an event is a mapping")
            now_ns = self._time(found.pop("at", None), now_ns)
            record = self._record(found) | {"id": number, "time_ns": now_ns}
            records.append(parse_record(record, f"{self.path}: {test}", number, notes))
        batches = (pack(0, records),) if records else ()
        return batches, tuple(f"{self.path}: {test}, event {line}: {text}" for text, line in notes.first_line.items())

    def _record(self, found: dict[str, Any]) -> dict[str, Any]:
        """Returns an event as an event file has it. The event's name is the key that says who: `open: shell`."""
        kinds = [key for key in found if key in EVENT_BY_NAME and isinstance(found[key], str)]
        if not kinds:
            self._fail("no event is named", "write it as `open: PROCESS`, with the event's fields beside it")
        kind = EVENT_BY_NAME[kinds[0]].name
        actor = self._process(found.pop(kinds[0]))
        if "as" in found:  # as the process is from here on, such as after an exec
            actor.fields = {**actor.fields, **self._mapping(found.pop("as"), None, "as")}
        child = found.pop("child", None)
        if child is not None:
            found["child.id"] = self._new(str(child), actor, {}).id
        for key, value in found.items():  # a process may be named wherever a process's identity stands
            if isinstance(value, str) and value in self._processes and key.endswith(".id"):
                found[key] = self._processes[value].id
        return {"event": kind, "proc.id": actor.id, **actor.fields, "ancestor": actor.line(), **found}

    def _time(self, at: object, now_ns: int) -> int:
        if at is None:
            return now_ns + _TICK_NS
        span = _SPAN.fullmatch(str(at))
        if span is None:
            self._fail(f"`at` is {at!r}", "a time since the start, such as 90s or 1.5m")
        return START_NS + round(float(span[1]) * _UNITS[span[2]])

    def _expected(self, item: object) -> Expected:
        found = self._mapping(item, {"policy", "at", "steps", "suppressed"}, "an expected match")
        policy, at, steps, suppressed = (found.get(key) for key in ("policy", "at", "steps", "suppressed"))
        if not isinstance(policy, str) or type(at) is not int:
            self._fail("an expected match has `policy` and `at`", "`at` is the number of the event that completes it")
        if suppressed not in (None, "throttle", "exception"):
            self._fail("`suppressed` is throttle or exception")
        if steps is not None:
            lists = [step if isinstance(step, list) else [step] for step in self._list(steps, "steps")]
            if any(type(number) is not int for step in lists for number in step):
                self._fail("`steps` holds the events' numbers, step by step")
            steps = tuple(tuple(step) for step in lists)
        return Expected(policy, at, steps, suppressed)

    def _mapping(self, found: object, keys: set[str] | None, what: str) -> dict[str, Any]:
        if not isinstance(found, dict):
            self._fail(f"{what} is a mapping")
        unknown = [str(key) for key in found if keys is not None and key not in keys]
        if unknown and keys is not None:
            self._fail(f"{what} has an unknown key `{unknown[0]}`", f"it takes {', '.join(sorted(keys))}")
        return found

    def _list(self, found: object, what: str) -> list[Any]:
        if not isinstance(found, list):
            self._fail(f"`{what}` is a list")
        return found

    def _fail(self, message: str, hint: str = "") -> NoReturn:
        where = f"{self.path}: {self.where}: " if self.where else f"{self.path}: "
        raise VectorError(where + message, hint)


def unmet(expected: Sequence[Expected], found: Sequence[Any]) -> Iterator[str]:
    """Yields what is wrong: matches that did not come, and matches nobody expected. found: policyd.workbench.replay.Found."""
    left = list(found)
    for want in expected:
        hit = next((one for one in left if _is(want, one)), None)
        if hit is not None:
            left.remove(hit)
            continue
        steps = f" through {_shown(want.steps)}" if want.steps is not None else ""
        held = f", suppressed by {want.suppressed}" if want.suppressed else ""
        yield f"expected `{want.policy}` at event {want.at}{steps}{held}: it did not come"
    for one in left:
        held = f" (suppressed by {one.suppressed})" if one.suppressed else ""
        yield f"`{one.policy}` matched at event {one.event_id} through {_shown(one.steps)}{held}: nobody expected it"


def _is(want: Expected, found: Any) -> bool:
    same = (want.policy, want.at, want.suppressed) == (found.policy, found.event_id, found.suppressed)
    return same and (want.steps is None or want.steps == found.steps)


def _shown(steps: Sequence[Sequence[int]]) -> str:
    return ", ".join("+".join(map(str, step)) for step in steps)
