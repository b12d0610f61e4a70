"""Macros: written out where they are used, with the names of the place where they were written."""

from __future__ import annotations

import pytest

from policyd import program
from policyd.compiler import compile_source, render
from policyd.program import CompiledPolicy, Expr

TESTS = 'path "p" within 5s {{ open {{}} as o exec {{ {0} }} }}'


def compiled(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    return compilation.policies[0]


def condition(text: str, before: str = "") -> Expr:
    return compiled(before + "\n" + TESTS.format(text)).steps[-1].condition


@pytest.mark.parametrize(
    ("macro", "use", "written_out"),
    [
        ("macro m = uid = 0", "m", "uid = 0"),
        ("macro m() = uid = 0 or gid = 0", "m, pid = 1", "(uid = 0 or gid = 0), pid = 1"),
        ("macro m(p) = p = 0", "m(uid)", "uid = 0"),
        ("macro m(p) = p = 0", "m(o.uid)", "o.uid = 0"),
        ("macro m(p) = p in [5, p]", "m(uid)", "uid in [5, uid]"),
        ("macro m(p) = not basename(p) = p", 'm("x") or uid = 0', None),
        ("macro m(p, q) = p = q", "m(exe, parent.exe)", "exe = parent.exe"),
        ("macro m(p) = name in p", 'm(["a", "b"])', 'name in ["a", "b"]'),
        ("macro m(p) = name in p", "m(SHELLS)", 'name in ["sh"]'),
        ("macro m(p) = exe =~ p", 'm("x.*y")', 'exe =~ "x.*y"'),
        ("macro m(s) = s.path = s.rawpath", "m(o)", "o.path = o.rawpath"),
        ("macro m(a) = a[0] = argv[1]", "m(argv)", "argv[0] = argv[1]"),
        ("macro m(a) = any a(it = name)", "m(argv)", "any argv(it = name)"),
        ("macro m(p) = p", "m(uid)", None),
        ("macro m(p) = truncated(p)", "m(argv)", "truncated(argv)"),
        ("macro m(x) = n(x) and n(gid)\nmacro n(y) = y = 0", "m(uid)", "uid = 0 and gid = 0"),
        ("macro m(x) = any argv(it = x)", "m(exe)", "any argv(it = exe)"),
        ("macro m(x) = x startswith exe", "any argv(m(it))", "any argv(it startswith exe)"),
    ],
)
def test_macro_means_what_it_says_written_out(macro: str, use: str, written_out: str | None) -> None:
    before = f'list SHELLS = ["sh"]\n{macro}'
    if written_out is None:
        assert not compile_source(before + "\n" + TESTS.format(use), "x").ok
    else:
        assert condition(use, before) == condition(written_out)


def test_names_of_a_macro_are_those_of_the_place_where_it_was_written() -> None:
    text = """
    list NAMES = ["outer"]
    macro m(p) = p in NAMES and n()
    macro n = uid = 1
    path "p" {
        list NAMES = ["inner"]
        macro n = uid = 2
        exec { m(name) and name in NAMES and n }
    }"""
    plain = """
    path "p" { exec { name in ["outer"] and uid = 1 and (name in ["inner"] and uid = 2) } }"""
    first, second = flat(compiled(text).steps[0].condition), flat(compiled(plain).steps[0].condition)
    assert first == second


def flat(expr: Expr) -> list[Expr]:
    items = getattr(expr, "items", None)
    return [expr] if items is None else [part for item in items for part in flat(item)]


def test_parameter_hides_a_field_and_a_list() -> None:
    before = "list uid = [7]\nmacro m(exe, uid) = exe in uid"
    assert condition('m(name, ["x"])', before) == condition('name in ["x"]')


def test_argument_of_an_outer_quantifier_is_not_taken_for_the_inner_element() -> None:
    before = "macro m(x) = any ancestor(it.exe = x)"
    compilation = compile_source(f"{before}\n{TESTS.format('any argv(m(it))')}", "x")
    assert [d.code for d in compilation.diagnostics if d.level.value == "error"] == ["ER0213"]


def test_report_stands_at_the_use_and_points_into_every_macro_on_the_way() -> None:
    text = 'macro a(p) = b(p)\nmacro b(p) = p < 5\npath "p" {\n    exec { a(exe) }\n}\n'
    compilation = compile_source(text, "x.policy")
    (found,) = compilation.diagnostics
    assert compilation.source.snippet(found.primary.span) == "a(exe)"
    assert [(compilation.source.snippet(label.span), label.text) for label in found.labels] == [
        ("b(p)", "here in the macro `a`"),
        ("<", "here in the macro `b`"),
    ]
    assert "--> x.policy:4:12" in render(compilation.diagnostics, [compilation.source], color=False)


def test_wrong_argument_is_reported_where_it_was_written() -> None:
    text = 'macro in_list(p, l) = p in l\nlist L = [5]\npath "p" { exec { in_list(exe, L) } }\n'
    compilation = compile_source(text, "x.policy")
    assert {compilation.source.position(d.primary.span.start)[0] for d in compilation.diagnostics} == {3}


def test_tests_of_a_macro_are_shown_with_its_use() -> None:
    before = "macro a(p) = b(p)\nmacro b(p) = p = 5"
    test = condition("a(  uid )", before)
    assert isinstance(test, program.Test)
    assert test.text == "a( uid ): b(p): p = 5"


def test_macro_that_is_never_used_is_not_checked() -> None:
    assert compiled('macro m(p) = no.such.field = p\npath "p" { exec {} }').steps
