"""A plan made with what earlier plans found out is the plan that would be made without."""

from __future__ import annotations

from unittest import mock

from policyd.compiler import compile_set
from policyd.engine.generation import Generation
from policyd.gate import known
from policyd.gate.known import Known
from policyd.gate.plan import build_plan
from policyd.gate.ways import bits_of
from policyd.program import CompiledPolicy

TEXTS = (
    'path "one" { open { path = "/etc/one" } }',
    'path "two" within 5s { open { path startswith "/etc/two/" } connect { dst.port = 4444 } }',
    'path "three" key uid within 5s { open { path endswith ".key" or uid = 7 } write { path contains "/x/" } }',
    'path "four" { open { path = "/etc/one" } }',
)


def policies(*texts: str) -> tuple[CompiledPolicy, ...]:
    found = compile_set([(f"{number}.policy", text.encode()) for number, text in enumerate(texts)])
    assert found.ok
    return found.policies


def test_plans_one_after_the_other_are_what_each_would_be_by_itself() -> None:
    one, two, three, four = policies(*TEXTS)
    remembered, before = Known(), Generation((), 0, 64)
    for number, loaded in enumerate(((one, two, three), (four, three, two), (two,), (), (three, one, two, four))):
        before = Generation(loaded, number, 64, before)
        assert build_plan(before.tables, remembered).raw == build_plan(before.tables).raw


def test_only_policies_that_are_new_are_looked_at_and_those_that_went_are_forgotten() -> None:
    one, two, three, _ = policies(*TEXTS)
    remembered = Known()
    with mock.patch.object(known, "bits_of", side_effect=bits_of) as looked:
        for loaded in ((one, two), (three, one, two), (three,), (one, three)):
            build_plan(Generation(loaded, 0, 64).tables, remembered)
    assert [call.args[0].policy.name for call in looked.call_args_list] == ["one", "two", "three", "one"]
