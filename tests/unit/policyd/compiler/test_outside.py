"""What files of a set say about each other: additions to lists, exceptions from outside, and when they end."""

from __future__ import annotations

import datetime
import itertools

import pytest

from policyd.compiler import Level, SetCompilation, compile_set, diagnostics, render
from policyd.compiler.format import format_source
from policyd.compiler.story import story
from policyd.program import CompiledPolicy, Op
from policyd.program import Test as FieldTest

DAY = datetime.date(2026, 11, 22)
VENDOR = """list READERS = ["/usr/bin/sudo"]
path "reads_shadow" { open { path = "/etc/shadow" exe not in READERS } as o }
path "writes_shadow" { write { path = "/etc/shadow" } }
"""


def compiled(*texts: str, before: SetCompilation | None = None, today: datetime.date | None = DAY) -> SetCompilation:
    files = [(f"{number}.policy", text.encode()) for number, text in enumerate(texts)]
    return compile_set(files, before=before, today=today)


def good(*texts: str) -> dict[str, CompiledPolicy]:
    found = compiled(*texts)
    assert [d for d in found.diagnostics if d.level is not Level.NOTE] == []
    return {policy.name: policy for policy in found.policies}


def told(found: SetCompilation) -> set[tuple[str, str, str]]:
    sources = {source.name: source for source in found.sources}
    return {(d.file, d.code, sources[d.file].snippet(d.primary.span)) for d in found.diagnostics}


def values(policy: CompiledPolicy, field: str) -> object:
    """The constants that the policy's only step compares a field with."""
    todo: list[object] = [policy.steps[0].condition]
    for part in todo:
        if isinstance(part, FieldTest) and part.field.name == field:
            return part.value
        todo += [part.item] if hasattr(part, "item") else getattr(part, "items", ())
    raise AssertionError(field)


# ---- lists


def test_a_list_grows_by_what_other_files_add() -> None:
    found = good(VENDOR, 'list READERS += ["/opt/a", "/opt/b"]', 'list READERS += ["/opt/c", "/usr/bin/sudo"]')
    assert values(found["reads_shadow"], "exe") == (b"/usr/bin/sudo", b"/opt/a", b"/opt/b", b"/opt/c")


def test_the_order_of_files_decides_only_the_order_of_elements() -> None:
    texts = (VENDOR, 'list READERS += ["/opt/a"]', 'list READERS += ["/opt/b"]')
    found = [good(*order)["reads_shadow"] for order in itertools.permutations(texts)]
    assert {frozenset(values(policy, "exe")) for policy in found} == {  # type: ignore[call-overload]
        frozenset((b"/usr/bin/sudo", b"/opt/a", b"/opt/b"))
    }


def test_every_file_that_declares_the_list_gets_the_addition_and_no_other_list_does() -> None:
    other = 'list READERS = ["/bin/x"] list OTHERS = ["/bin/y"] path "o" { exec { exe in OTHERS and name in READERS } }'
    found = good(VENDOR, other, 'list READERS += ["/opt/a"]')
    assert values(found["o"], "name") == (b"/bin/x", b"/opt/a")
    assert values(found["o"], "exe") == (b"/bin/y",)


def test_an_addition_in_a_policy_is_for_that_policy_only() -> None:
    text = """list A = ["/bin/x"]
    path "p" { list A += ["/bin/y"] exec { exe in A } }
    path "q" { exec { exe in A } }"""
    found = good(text, 'list A += ["/bin/z"]')
    assert values(found["p"], "exe") == (b"/bin/x", b"/bin/z", b"/bin/y")
    assert values(found["q"], "exe") == (b"/bin/x", b"/bin/z")


def test_macros_and_patterns_use_the_longer_list() -> None:
    text = 'list A = ["^/a"] macro m(p) = p =~ A path "p" { exec { m(exe) } }'
    assert values(good(text, 'list A += ["^/b"]')["p"], "exe") == (b"^/a", b"^/b")


def test_a_name_in_an_addition_is_a_value_of_its_own_file() -> None:
    text = 'let MINE = "/bin/no" list A = ["/a"] path "p" { exec { exe in A } }'
    assert values(good(text, 'let MINE = "/bin/yes" list A += [MINE]')["p"], "exe") == (b"/a", b"/bin/yes")


def test_constants_ranges_and_networks_can_be_added() -> None:
    text = 'list P = [22] list N = ["::1"] path "p" { connect { dst.port in P and dst.ip in N } }'
    found = good(text, 'list P += [80, 8000..8999] list N += ["10.0.0.0/8"]')["p"]
    assert "8999" in repr(found.steps[0].condition) and "10.0.0.0/8" in repr(found.steps[0].condition)


WRONG_ELEMENTS = {
    "list READERS += [5]": ("0.policy", "ER0304", "exe"),  # the comparison, with a note about the element
    'list READERS += ["/a", EXE]': ("1.policy", "ER0203", "EXE"),
    'list READERS += ["/a", 3..4]': ("1.policy", "ER0301", "3..4"),
    "list READERS += [dirname(exe)]": ("1.policy", "ER0209", "dirname(exe)"),
}


@pytest.mark.parametrize("text", WRONG_ELEMENTS)
def test_a_wrong_element_is_reported_with_its_own_file(text: str) -> None:
    found = compiled(VENDOR, text)
    assert not found.ok
    assert WRONG_ELEMENTS[text] in told(found)
    assert "1.policy" in render(found.diagnostics, found.sources, color=False)


def test_a_refused_pattern_that_was_added_is_reported_where_it_stands() -> None:
    found = compiled('list A = ["a"] path "p" { exec { exe =~ A } }', 'list A += ["b", "(?=x)"]')
    assert ("1.policy", "ER0305", '"(?=x)"') in told(found)


def test_an_addition_to_no_list_is_a_warning() -> None:
    found = compiled(VENDOR, 'list READRS += ["/opt/a"]')
    assert found.ok
    assert told(found) == {("1.policy", "ER0217", "READRS")}


# ---- exceptions


def test_an_exception_holds_for_the_policies_that_it_names() -> None:
    outside = 'exception for "reads_*" "restic" until "2027-03-01" { exe = "/usr/bin/restic" }'
    found = good(VENDOR, outside)
    (exemption,) = found["reads_shadow"].exemptions
    assert (exemption.reason, exemption.until) == ("restic", "2027-03-01")
    assert (exemption.place.file, exemption.place.line) == ("1.policy", 1)
    assert found["writes_shadow"].exemptions == ()


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("*", {"reads_shadow", "writes_shadow"}),
        ("*_shadow", {"reads_shadow", "writes_shadow"}),
        ("?????_shadow", {"reads_shadow"}),
        ("reads_shadow", {"reads_shadow"}),
        ("[rw]*", set()),
        ("READS_*", set()),
    ],
)
def test_stars_and_question_marks_stand_for_characters_and_brackets_for_themselves(glob: str, names: set[str]) -> None:
    found = compiled(VENDOR, f'exception for "{glob}" {{ uid = 0 }}')
    assert {policy.name for policy in found.policies if policy.exemptions} == names
    assert ("ER0515" in {d.code for d in found.diagnostics}) is (not names)


def test_its_own_lists_and_macros_are_meant_and_the_policys_steps_can_be_read() -> None:
    outside = """list READERS = ["/opt/mine"]
    macro mine = exe in READERS
    exception for "reads_shadow" { mine and o.uid = 0 }"""
    found = good(VENDOR, outside, 'list READERS += ["/opt/more"]')
    (exemption,) = found["reads_shadow"].exemptions
    assert "/opt/mine" in repr(exemption.condition) and "/opt/more" in repr(exemption.condition)
    assert "/usr/bin/sudo" not in repr(exemption.condition)
    assert "alias='o'" in repr(exemption.condition)


def test_what_an_exception_can_not_read_is_reported_in_its_file_and_names_the_policy() -> None:
    found = compiled(VENDOR, 'exception for "*_shadow" { flags has O_CREAT }')
    assert not found.ok
    (diagnostic,) = [d for d in found.diagnostics if d.level is Level.ERROR]
    assert (diagnostic.file, diagnostic.code) == ("1.policy", "ER0201")
    assert diagnostic.notes == ("for the policy `writes_shadow`, 0.policy:3",)


def test_a_mistake_in_an_exception_is_told_once_whatever_it_is_about() -> None:
    texts = [f'path "p{number}" {{ exec {{}} }}' for number in range(30)]
    found = compiled(*texts, 'exception for "p*" { frobnicate = 1 }')
    assert [d.code for d in found.diagnostics] == ["ER0201"]


def test_a_mistake_in_a_macro_of_an_exception_is_reported_in_its_file() -> None:
    found = compiled(VENDOR, 'list L = [3]\nmacro m(x) = x in L\nexception for "reads_shadow" { m(exe) }')
    assert ("1.policy", "ER0304", "m(exe)") in told(found)
    assert "here in the macro `m`" in render(found.diagnostics, found.sources, color=False)


def test_an_exception_that_ended_does_not_hold_and_is_a_warning() -> None:
    outside = 'exception for "reads_shadow" "x" until "2026-11-22" { uid = 0 }'
    on_the_day = compiled(VENDOR, outside)
    assert [len(policy.exemptions) for policy in on_the_day.policies] == [1, 0]
    assert told(on_the_day) == set() and on_the_day.next_expiry == DAY
    after = compiled(VENDOR, outside, today=DAY + datetime.timedelta(days=1))
    assert after.ok and [len(policy.exemptions) for policy in after.policies] == [0, 0]
    assert told(after) == {("1.policy", "ER0514", '"2026-11-22"')} and after.next_expiry is None
    assert after.policies[0].hash != on_the_day.policies[0].hash
    without_a_day = compiled(VENDOR, outside, today=None)
    assert len(without_a_day.policies[0].exemptions) == 1 and without_a_day.next_expiry is None


def test_the_exception_that_ends_first_says_when_the_set_changes() -> None:
    days = ("2027-03-01", "2026-12-24", "2020-01-01")
    texts = [f'exception for "reads_shadow" until "{day}" {{ uid = 0 }}' for day in days]
    assert compiled(VENDOR, *texts).next_expiry == datetime.date(2026, 12, 24)


def test_the_end_of_an_exception_does_not_change_what_a_policy_does_today() -> None:
    one, other = (
        good(VENDOR, f'exception for "reads_shadow" "why"{until} {{ uid = 0 }}')["reads_shadow"]
        for until in ("", ' until "2030-01-01"')
    )
    assert one.hash == other.hash


def test_words_tell_where_an_exception_stands_and_when_it_ends() -> None:
    found = good(VENDOR, '\nexception for "reads_shadow" "restic" until "2027-03-01" { uid = 0 }')["reads_shadow"]
    lines = next(section.lines for section in story(found) if section.name == "Excepted")
    assert lines == ("restic, until 2027-03-01 (1.policy, line 2)",)


def test_a_layout_is_kept() -> None:
    text = 'language 1\nlist A += ["a"]\n\nexception for "x*" "why" until "2027-03-01" {\n    uid = 0\n}\n'
    assert format_source(text.encode(), "x") == text


# ---- what is compiled again


def test_only_files_that_another_reaches_into_are_compiled_again() -> None:
    other = 'path "other" { exec {} }'
    first = compiled(VENDOR, other, 'list READERS += ["/opt/a"]')
    second = compiled(VENDOR, other, 'list READERS += ["/opt/b"]', before=first)
    assert values(second.policies[0], "exe") == (b"/usr/bin/sudo", b"/opt/b")
    assert second.policies[2] is first.policies[2]
    third = compiled(VENDOR, other, 'exception for "other" { uid = 0 }', before=second)
    assert [len(policy.exemptions) for policy in third.policies] == [0, 0, 1]
    assert values(third.policies[0], "exe") == (b"/usr/bin/sudo",)
    again = compiled(VENDOR, other, 'exception for "other" { uid = 0 }', before=third)
    assert all(one is two for one, two in zip(third.policies, again.policies, strict=True))
    gone = compiled(VENDOR, other, before=again)
    assert [policy.exemptions for policy in gone.policies] == [(), (), ()]


def test_a_file_is_compiled_again_when_an_exception_for_it_ended() -> None:
    texts = (VENDOR, 'exception for "reads_shadow" until "2026-11-22" { uid = 0 }')
    first = compiled(*texts)
    second = compiled(*texts, before=first, today=DAY + datetime.timedelta(days=1))
    assert len(first.policies[0].exemptions) == 1 and second.policies[0].exemptions == ()


def test_a_file_is_compiled_again_when_a_list_of_its_exception_grows() -> None:
    outside = 'list L = ["/a"]\nexception for "reads_shadow" { exe in L }'
    first = compiled(VENDOR, outside, 'list L += ["/b"]')
    second = compiled(VENDOR, outside, 'list L += ["/c"]', before=first)
    assert "/c" in repr(second.policies[0].exemptions) and "/b" not in repr(second.policies[0].exemptions)


def test_incremental_and_whole_compilation_agree() -> None:
    parts = [
        VENDOR,
        'list READERS += ["/opt/a"]',
        'exception for "*s_shadow" until "2026-11-22" { exe in ["/x"] }',
        'list READERS = ["/q"] path "third" { exec { exe in READERS } } exception for "third" { exe = "/y" }',
    ]
    before: SetCompilation | None = None
    for chosen in itertools.product((True, False), repeat=len(parts)):
        texts = [part if used else "" for part, used in zip(parts, chosen, strict=True)]
        before = compiled(*texts, before=before)
        whole = compiled(*texts)
        assert before.diagnostics == whole.diagnostics and before.policies == whole.policies


# ---- bounds


def test_the_number_of_exceptions_is_bounded() -> None:
    found = compiled(VENDOR, 'exception for "other" { uid = 0 }\n' * 1025)
    assert ("1.policy", "ER0402", 'exception for "other"') in told(found)
    found = compiled(VENDOR, 'exception for "reads_shadow" { uid = 0 }\n' * 257)
    assert ("0.policy", "ER0402", '"reads_shadow"') in told(found)


def test_hostile_names_and_very_many_policies_end_soon() -> None:
    many = "".join(f'path "{"a" * 40}{number}" {{ exit {{}} }}\n' for number in range(300))
    stars = f'exception for "{"*a" * 12}b" {{ uid = 0 }}\n' * 1000
    assert {d.code for d in compiled(many, stars).diagnostics} == {"ER0515"}
    everywhere = 'exception for "*" { uid = 0 or uid = 1 }\n' * 255
    very_many = "".join(f'path "{number}" {{ exit {{}} }}\n' for number in range(2000))
    assert "ER0402" in {d.code for d in compiled(very_many, stars).diagnostics}
    assert "ER0216" in {d.code for d in compiled(very_many, everywhere).diagnostics}


def test_what_additions_make_of_one_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "MAX_WORK", 1000)
    more = "list L += [" + "1, " * 600 + "]\n"
    assert {d.code for d in compiled("list L = [1]", more).diagnostics} == set()
    assert {d.code for d in compiled("list L = [1]", more, more).diagnostics} == {"ER0216"}


def test_an_added_number_in_a_bit_list_keeps_its_operator() -> None:
    text = 'list F = [1] path "p" { chmod { mode in F } }'
    step = good(text, "list F += [S_ISUID]")["p"].steps[0].condition
    assert isinstance(step, FieldTest) and step.op is Op.IN and step.value == (1, 0o4000)
