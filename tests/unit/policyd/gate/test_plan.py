"""The plan of policies: what it asks for, what it drops of ordinary work, and what happens where it doesn't fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from execray.eventfile import EventReader, open_events
from execray.gate.encoding import decode_plan
from execray.gate.plan import MAX_BOUNDS, GatePlan
from execray.gate.verdict import Facts, PathState, candidates
from execray.schema.catalog import EVENT_BY_NAME, FIRST_ADDED, LOST, NO_FLAG
from execray.schema.event import Event
from policyd.compiler import compile_set
from policyd.engine.table import PolicyTable
from policyd.gate import plan
from policyd.gate.plan import Built, build_plan
from policyd.gate.telling import kernel_lines
from policyd.gate.twin import Gate, facts_of, passes
from policyd.gate.ways import ALWAYS
from policyd.program import CompiledPolicy

OPEN, WRITE, CONNECT = (EVENT_BY_NAME[name].code for name in ("open", "write", "connect"))


def compiled(*texts: str) -> tuple[CompiledPolicy, ...]:
    found = compile_set([(f"{number}.policy", text.encode()) for number, text in enumerate(texts)])
    assert found.ok, found.diagnostics
    return found.policies


def built(*texts: str) -> Built:
    tables, base = [], 0
    for policy in compiled(*texts):
        tables.append(PolicyTable(policy, base))
        base += len(policy.steps)
    return build_plan(tables)


def sends(made: GatePlan, path: str, **more: object) -> bool:
    return candidates(made, Facts(OPEN, PathState.KNOWN, path.encode(), **more)) != 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "sent", "dropped"),
    [
        ('path = "/etc/shadow"', ["/etc/shadow"], ["/etc/shadow-", "/shadow", "/etc/shadow/x"]),
        ('path startswith "/etc/cron"', ["/etc/cron.d/x", "/etc/crontab", "/etc/hosts"], ["/x/etc/cron.d"]),
        ('path endswith "/release_agent"', ["/sys/x/release_agent"], ["/release_agent/x", "/xrelease_agent"]),
        ('path endswith ".bashrc"', ["/root/.bashrc", "/x.bashrc"], ["/root/.bashrc2", "/root/.profile"]),
        ('path contains "/.ssh/"', ["/home/a/.ssh/id"], ["/home/a/ssh/id", "/home/.sshd/id"]),
        ('path =~ "/etc/(passwd|shadow)"', ["/etc/shadow", "/x/etc/passwd-"], ["/var/lib/shadow"]),
        ('path glob "/home/*/.kube/config"', ["/home/a/.kube/config"], ["/home/a/.kube2/config"]),
        ('basename(path) = "id_rsa"', ["/root/id_rsa"], ["/root/id_rsa.pub"]),
        ('path = "/a" or path startswith "/b/"', ["/a", "/b/c"], ["/c", "/a/c"]),
        ('not path = "/a"', ["/a", "/b"], []),
        ('path != "/a"', ["/a", "/b"], []),
        ('path icontains "/etc/"', ["/ETC/x", "/x"], []),
    ],
)
def test_paths_are_told_apart_as_far_as_the_kernel_can(condition: str, sent: list[str], dropped: list[str]) -> None:
    made = built(f'path "p" {{ open {{ {condition} }} }}').plan
    assert [path for path in sent if not sends(made, path)] == []
    assert [path for path in dropped if sends(made, path)] == []


def test_a_file_that_is_meant_by_identity_is_sent_whatever_its_path() -> None:
    made = built('path "p" { open { path = "/etc/shadow" } }').plan
    assert made.rows[made.named]
    assert candidates(made, Facts(OPEN, PathState.UNKNOWN)) != 0
    assert candidates(made, Facts(OPEN, PathState.MISSING)) == 0
    assert candidates(made, Facts(OPEN, PathState.NAMELESS)) == 0


def test_events_that_no_step_names_are_dropped_and_those_that_are_never_dropped_are_open() -> None:
    made = built('path "p" { open { path = "/a" } exec { } }').plan
    assert made.open_codes == ALWAYS
    assert candidates(made, Facts(CONNECT)) == 0


def test_a_tail_opens_its_events_and_those_of_packages_need_no_opening() -> None:
    found = built('path "p" { open { path = "/a" } }')
    assert found.with_open(frozenset({1, FIRST_ADDED})) == found.raw
    assert decode_plan(found.with_open(frozenset({CONNECT}))).open_codes == ALWAYS | {CONNECT}


def test_more_steps_than_there_is_room_for_open_their_event_and_no_other() -> None:
    many = [f'path "p{number}" {{ open {{ path = "/a/{number}" }} }}' for number in range(130)]
    with mock.patch.object(plan, "MAX_WORDS", 2):
        found = built(*many, 'path "w" { write { path = "/b" } }')
    assert OPEN in found.plan.open_codes and WRITE not in found.plan.open_codes
    assert list(found.open_reasons) == [OPEN]
    assert candidates(found.plan, Facts(WRITE, PathState.KNOWN, b"/c")) == 0


def test_more_numbers_than_there_are_classes_for_are_told_apart_in_part() -> None:
    wanted = list(range(10, 10 + 4 * MAX_BOUNDS, 2))
    made = built(f'path "p" {{ connect {{ dst.port in {wanted} }} }}').plan
    sent = [port for port in range(200) if candidates(made, Facts(CONNECT, numbers={7: port})) != 0]  # type: ignore[dict-item]
    assert set(wanted) <= set(sent)
    assert 199 not in sent and 0 not in sent


@pytest.fixture(scope="module")
def ordinary() -> list[Event]:
    def read() -> Iterator[Event]:
        with open_events(Path("tests/data/ordinary/work.jsonl.zst")) as lines:
            for batch in EventReader(lines, "work").batches():
                yield from (batch.event(at) for at, row in enumerate(batch.events) if row[0] != LOST)

    return list(read())


def test_of_ordinary_work_the_shipped_policies_are_sent_little_that_begins_nothing(ordinary: list[Event]) -> None:
    tables = [PolicyTable(policy, 0) for policy in _shipped()]
    made = build_plan(tables).plan
    assert made.open_codes == ALWAYS
    gated = [event for event in ordinary if event.type.code not in ALWAYS]
    sent = [event for event in gated if (candidates(made, facts_of(event)) or 0) & made.rows[made.first]]
    # A program that is dropped begins as a file made in a scratch folder, and of these there are many.
    others = [event for event in sent if not _is_dropped_file(event)]
    assert len(gated) > 15_000
    assert len(others) < len(gated) * 0.015, Counter(
        (event.type.name, event.get("path")) for event in others
    ).most_common(9)
    assert sum(passes(made, event) for event in gated) < len(gated) * 0.5


def _shipped() -> tuple[CompiledPolicy, ...]:
    return compile_set([(file.name, file.read_bytes()) for file in sorted(Path("policies").glob("*.policy"))]).policies


def _is_dropped_file(event: Event) -> bool:
    path = event.get("path") if event.type.code == OPEN else None
    return (
        isinstance(path, bytes)
        and path.startswith((b"/tmp/", b"/var/tmp/", b"/dev/shm/"))
        and bool(event.get("created"))
    )


def test_explain_says_what_is_tested_where() -> None:
    (policy,) = compiled(
        'path "p" { open { path = "/a" access has WRITE ret >= 0 exe = "/b" } as o'
        ' write | exec { len > 5 } as w  connect { dst.port < 9 uid > 0 comm = "x" } }'
    )
    assert kernel_lines(policy) == [
        "`o` on open: in the kernel the path /a, ret >= 0, flags with a bit of 0o3; or the file is known as one of these"
        " paths, ret >= 0, flags with a bit of 0o3",
        " in user space exe",
        "`w` on write: in the kernel nothing",
        " in user space len",
        " so every write is sent",
        "`w` on exec: never dropped in the kernel",
        "step 3 on connect: in the kernel uid >= 1, port <= 8, comm x",
    ]


def test_what_has_begun_is_forgotten_after_its_window_and_not_before(ordinary: list[Event]) -> None:
    found = built('path "p" within 2s { open { path = "/a" } as a  write { fd >= 0 } as b }').plan
    write = next(event for event in ordinary if event.type.code == WRITE)
    opened = next(event for event in ordinary if event.type.code == OPEN)
    values = tuple(b"/a" if field.name == "path" else None for field in opened.type.slots)
    begin = replace(opened, actor=write.actor, slots=values, flags=NO_FLAG)
    gate = Gate(found, since_ns=-(10**15))

    def sent(seconds: float, event: Event) -> bool:
        return gate.passes(replace(event, time_ns=round(seconds * 1e9)))

    assert not sent(1, write)
    assert sent(2, begin) and sent(2, write) and sent(5, write)
    assert not sent(5.001, write)  # the window, and a second in which events may come out of order
    assert not sent(4, next(event for event in ordinary if event.type.code == WRITE and event.actor != write.actor))
