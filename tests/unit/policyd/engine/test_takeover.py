"""A generation takes over the tables of the policies that were there before, wherever their bits lie now."""

from __future__ import annotations

from policyd.compiler import compile_set
from policyd.engine.generation import Generation
from policyd.engine.machine import Machine
from policyd.engine.outputs import Match
from policyd.engine.table import PolicyTable
from policyd.program import CompiledPolicy
from tests.support.playbook import Play

TEXTS = (
    'path "one" { open { path = "/etc/one" } }',
    'path "two" key process within 5s { open { path = "/etc/two" } as o write { path = o.path } until exit {} }',
    'path "three" key uid within 5s { open { path startswith "/etc/t" } times 2 connect {} }',
    'path "four" key tree within 5s { either { exec {} } or { open { uid = 0 or path = "/x" } } chmod {} .. write {} }',
)


def policies(*texts: str) -> tuple[CompiledPolicy, ...]:
    found = compile_set([(f"{number}.policy", text.encode()) for number, text in enumerate(texts)])
    assert found.ok
    return found.policies


def test_a_table_elsewhere_is_what_it_would_be_if_it_were_made_there() -> None:
    for policy in policies(*TEXTS):
        for first, second in ((0, 70), (70, 3), (5, 5)):
            moved, made = PolicyTable(policy, first).at(second), PolicyTable(policy, second)
            for name in ("base", "bits", "first", "awaits", "untils", "until_steps", "states", "counting", "plain"):
                assert getattr(moved, name) == getattr(made, name), name


def test_tables_of_the_same_policies_are_taken_over_and_no_others() -> None:
    one, two, three, four = policies(*TEXTS)
    (other,) = policies(TEXTS[1].replace("/etc/two", "/etc/other"))
    before = Generation((one, two, three), 1, 100)
    after = Generation((four, one, other, three), 2, 100, before)
    assert after.tables[1].plans is before.tables[0].plans and after.tables[3].plans is before.tables[2].plans
    assert after.tables[2].policy is other and after.tables[2].plans is not before.tables[1].plans
    assert [table.base for table in before.tables] == [0, 1, 4]  # what runs is not touched


def test_what_was_taken_over_matches_as_before() -> None:
    one, two, three, four = policies(*TEXTS)
    machine = Machine()
    for number, loaded in enumerate(((one, two, three), (four, three, two, one), (two,), (one, four, two, three)), 1):
        machine.load(loaded, number)
        play = Play()
        actor = play.process(exe=f"/bin/x{number}")
        play.event("open", actor, path="/etc/one", flags=0, ret=3)
        play.event("open", actor, path="/etc/two", flags=0, ret=3)
        play.event("write", actor, path="/etc/two", ret=1)
        found = [output.policy.name for output in machine.feed(play.batch()) if isinstance(output, Match)]
        assert found == [policy.name for policy in (one, two) if policy in loaded]
