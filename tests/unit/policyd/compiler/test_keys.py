"""Keys, counts, modes, cancelling and exceptions: what the text becomes for the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from execray.schema.kinds import Kind
from policyd import program
from policyd.compiler import compile_source
from policyd.program import CompiledPolicy, FieldRef, KeyKind, Mode, Not, Op, Overlap, Quantified, Times
from tests.support.playbook import Play
from tests.support.stories import machine, matches

PROCESS = FieldRef("proc.id", Kind.PROCESS)
PARENT = FieldRef("parent.proc.id", Kind.PROCESS)
FILE = FieldRef("file.id", Kind.BYTES)
UID = FieldRef("uid", Kind.INT)


def one(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    (policy,) = compilation.policies
    return policy


def policy(body: str, options: str = "") -> CompiledPolicy:
    return one(f'path "p" {options} within 5s {{ {body} }}')


def keys(compiled: CompiledPolicy) -> list[tuple[FieldRef, ...]]:
    return [step.key for step in compiled.steps]


@pytest.mark.parametrize("options", ["", "key process", "key proc.id", "key (proc.id)"])
def test_steps_of_one_process_need_no_fields(options: str) -> None:
    plain = policy("open {} exec {}", options)
    assert plain.key is KeyKind.PROCESS
    assert keys(plain) == [(), ()]


def test_own_process_written_on_every_step_is_the_default_key() -> None:
    assert policy("open {} by proc.id exec {}", "key parent.id").key is KeyKind.FIELDS
    assert policy("open {} by proc.id exec {} by proc.id", "key parent.id").key is KeyKind.PROCESS


def test_step_without_a_key_of_its_own_has_that_of_the_policy() -> None:
    assert keys(policy("open {} by file.id exec {}", "key file.id")) == [(FILE,), (FILE,)]
    assert keys(policy("connect {} exec {} by parent.id")) == [(PROCESS,), (PARENT,)]


def test_parts_keep_their_order_and_parentheses_mean_nothing() -> None:
    assert keys(policy("open {} by uid, file.id exec {} by (uid, (file.id))")) == [(UID, FILE), (UID, FILE)]


def test_words_for_scopes_stand_for_fields() -> None:
    assert keys(policy("open {} exec {}", "key host")) == [(), ()]
    assert policy("open {} exec {}", "key host").key is KeyKind.FIELDS
    assert keys(policy("open {} by process, uid exec {} by parent.id, uid")) == [(PROCESS, UID), (PARENT, UID)]


def test_a_pid_is_the_process_that_has_it() -> None:
    assert policy("open {} exec {}", "key pid").key is KeyKind.PROCESS
    child = FieldRef("child.id", Kind.PROCESS)
    assert keys(policy("fork {} by child.pid, uid open {} by pid, uid")) == [(child, UID), (PROCESS, UID)]
    target, creator = FieldRef("target.id", Kind.PROCESS), FieldRef("ancestor[1].proc.id", Kind.PROCESS)
    assert keys(policy("kill {} by target.pid open {} by ancestor[1].pid")) == [(target,), (creator,)]


def test_a_pid_that_is_compared_with_other_numbers_is_a_number() -> None:
    assert keys(policy("open {} by pid exec {} by uid")) == [(FieldRef("pid", Kind.INT),), (UID,)]


def test_a_pid_that_another_process_has_got_joins_nothing() -> None:
    engine = machine(policy("fork {} as f by child.pid open {} as o by pid"))
    play = Play()
    parent = play.process()
    child = play.process(parent)
    later = replace(child, id=(child.id[0], child.id[1] + 1_000_000))
    play.event("fork", parent, child_id=child.id)
    play.event("open", later, path="/b")
    assert not matches(engine.feed(play.batch()))
    play.event("open", child, path="/b")
    assert [match.actor.id for match in matches(engine.feed(play.batch()))] == [child.id]


def test_kinds_that_compare_may_meet_in_a_key() -> None:
    mixed = policy("open {} by path exec {} by argv[0] open {} by exe write {} by name")
    assert [key[0].kind for key in keys(mixed)] == [Kind.PATH, Kind.BYTES, Kind.PATH, Kind.BYTES]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('path "p" within 5s { open {} exec {} }', "process"),
        ('path "p" key tree within 5s { open {} exec {} }', "tree"),
        ('path "p" key  (uid,\n path) within 5s { open {} chmod {} }', "(uid, path)"),
        ('path "p" within 5s { open {} by path exec {} by exe }', "by path then by exe"),
        ('path "p" within 5s { open {} by file.id exec {} by file.id }', "by file.id"),
        ('path "p" within 5s { open {} exec {} by parent.id }', "by process then by parent.id"),
    ],
)
def test_key_is_shown_as_the_author_wrote_it(text: str, expected: str) -> None:
    assert one(text).key_text == expected


def test_until_has_a_key_too() -> None:
    cancelled = policy("open {} by file.id exec {} by file.id until chmod {} by path")
    assert keys(cancelled)[cancelled.untils[0].step] == (FieldRef("path", Kind.PATH),)


# ---- counts


def test_window_behind_times_is_the_count_s_own() -> None:
    counted = policy("open {} times 5 within 2s exec {} within 1s")
    assert [(s.times, s.within_ns) for s in counted.steps] == [(Times(5, 2_000_000_000), None), (None, 1_000_000_000)]


def test_order_of_the_modifiers_does_not_matter() -> None:
    first = policy("open {} as o by file.id times 3 distinct path within 2s exec {} by file.id")
    second = policy("open {} within 2s times 3 distinct path by file.id as o exec {} by file.id")
    assert first.steps[0].times == Times(3, 2_000_000_000, FieldRef("path", Kind.PATH))
    assert first.hash == second.hash


def test_count_as_the_only_step_is_a_sequence() -> None:
    lone = one('path "p" { exit {} times 5 }')
    assert lone.within_ns == 300_000_000_000
    assert "ER0502" in {d.code for d in compile_source('path "p" { exit {} times 5 }', "x").diagnostics}


def test_policy_that_ends_in_a_count_alerts_once_in_its_window() -> None:
    assert policy("exec {} times 5 within 2s").throttle == (1, 2_000_000_000)
    assert policy("exec {} times 5").throttle == (1, 5_000_000_000)
    assert policy("exec {} times 5", "throttle 3 per 1m").throttle == (3, 60_000_000_000)
    assert policy("exec {} times 5 within 2s exit {}").throttle == (1, 60_000_000_000)
    assert policy("open {} ? exec {} times 5 within 2s : exit {}").throttle == (1, 2_000_000_000)


def test_throttle_by_reads_the_last_event() -> None:
    assert policy("open {} exec {}").throttle_by is None
    assert policy("open {} exec {}", "throttle 1 per 5m by uid, filename").throttle_by == (
        UID,
        FieldRef("filename", Kind.BYTES),
    )
    assert policy("open {} exec {}", "throttle 1 per 5m by host").throttle_by == ()


# ---- modes, cancelling, exceptions


def test_modes() -> None:
    assert policy("open {} exec {}", "mode latest").mode == Mode()
    assert policy("open {} exec {}", "mode first").mode == Mode(Overlap.FIRST)
    assert policy("open {} exec {}", "mode all 4").mode == Mode(Overlap.ALL, 4)


def test_until_may_read_steps_that_come_later_in_the_text() -> None:
    cancelled = policy("until exit { pid = o.pid } open {} as o exec {}")
    condition = cancelled.steps[cancelled.untils[0].step].condition
    assert condition == program.Test(FieldRef("pid", Kind.INT), Op.EQ, FieldRef("pid", Kind.INT, "o"))


def test_exception_is_about_the_completing_event_and_reads_earlier_ones() -> None:
    excepted = policy('open {} as o connect {} except "why" { dst.port = 53 and o.uid = 0 } except { uid = 5 }')
    first, second = excepted.exemptions
    assert (first.reason, second.reason) == ("why", "")
    assert (first.place.line, first.place.file) == (1, "x.policy")
    assert first.condition == program.And(
        (
            program.Test(FieldRef("dst.port", Kind.INT), Op.EQ, 53),
            program.Test(FieldRef("uid", Kind.INT, "o"), Op.EQ, 0),
        )
    )


# ---- quantifiers


def condition(text: str) -> program.Expr:
    return policy(f"exec {{}} as e exec {{ {text} }}").steps[-1].condition


IT = program.Test(FieldRef("it", Kind.BYTES), Op.EQ, b"x")


def test_quantifiers_over_arguments() -> None:
    argv = FieldRef("argv", Kind.TEXTS)
    assert condition('any argv(it = "x")') == Quantified(argv, IT)
    assert condition('all argv(it = "x")') == Quantified(argv, IT, every=True)
    assert condition('none argv (it = "x")') == Not(Quantified(argv, IT))
    assert condition('any e.argv(it = "x")') == Quantified(FieldRef("argv", Kind.TEXTS, "e"), IT)
    assert condition('any ancestor[2].argv(it = "x")') == Quantified(FieldRef("ancestor[2].argv", Kind.TEXTS), IT)


def test_quantifiers_over_creators() -> None:
    root = program.Test(FieldRef("it.uid", Kind.INT), Op.EQ, 0)
    assert condition("any ancestor(it.uid = 0)") == Quantified(FieldRef("ancestor", Kind.TEXTS), root)
    assert condition("any e.ancestor(it.uid = 0)") == Quantified(FieldRef("ancestor", Kind.TEXTS, "e"), root)
    inner = Quantified(FieldRef("it.argv", Kind.TEXTS), IT)
    assert condition('any ancestor(any it.argv(it = "x"))') == Quantified(FieldRef("ancestor", Kind.TEXTS), inner)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("parent.id", "parent.proc.id"),
        ("ancestor[0].id", "parent.proc.id"),
        ("ancestor[1].id", "ancestor[1].proc.id"),
        ("ancestor[01].id", None),
    ],
)
def test_names_of_creators(text: str, name: str | None) -> None:
    if name is None:
        assert not compile_source(f'path "p" {{ exec {{ {text} = proc.id }} }}', "x").ok
    else:
        assert condition(f"{text} = proc.id") == program.Test(FieldRef(name, Kind.PROCESS), Op.EQ, PROCESS)


def test_truncated_is_a_condition() -> None:
    assert condition("truncated(argv)") == program.Test(FieldRef("argv", Kind.TEXTS), Op.TRUNCATED)
    assert condition("not truncated(e.cmdline)") == Not(
        program.Test(FieldRef("cmdline", Kind.BYTES, "e"), Op.TRUNCATED)
    )
