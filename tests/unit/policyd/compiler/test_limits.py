"""Large policies, large files and large sets: they compile, or a diagnostic says what is too much. None takes long by itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from policyd.compiler import Level, SetCompilation, compile_set, compile_source
from policyd.compiler.parser import MAX_POLICIES
from policyd.compiler.source import MAX_FILE_BYTES
from policyd.program import Test as FieldTest

MOST_STEPS = 1024


def errors(found: SetCompilation) -> set[str]:
    return {diagnostic.code for diagnostic in found.diagnostics if diagnostic.level is Level.ERROR}


def sequence(steps: Iterator[str]) -> str:
    return f'path "p" key process within 5s {{ {" ".join(steps)} }}'


ALTERNATIVES = {
    "list": "path in [" + ", ".join(f'"/etc/f{n}"' for n in range(1500)) + "]",
    "or": " or ".join(f'path = "/etc/f{n}"' for n in range(1500)),
    "pattern": 'path =~ "^/etc/(' + "|".join(f"f{n}" for n in range(1500)) + ')$"',
    "patterns": "path =~ [" + ", ".join(f'"^/etc/f{n}$"' for n in range(1500)) + "]",
    "prefixes": "path startswith [" + ", ".join(f'"/etc/f{n}/"' for n in range(1500)) + "]",
    "globs": "path glob [" + ", ".join(f'"/etc/f{n}/*"' for n in range(1500)) + "]",
}


@pytest.mark.parametrize("condition", ALTERNATIVES.values(), ids=ALTERNATIVES.keys())
def test_a_policy_of_fifteen_hundred_literal_alternatives_compiles(condition: str) -> None:
    compilation = compile_source(f'path "p" {{ open {{ {condition} }} }}', "x")
    assert compilation.ok and len(compilation.policies) == 1


def test_all_alternatives_of_a_long_list_are_kept() -> None:
    (policy,) = compile_source(f'path "p" {{ open {{ {ALTERNATIVES["list"]} }} }}', "x").policies
    condition = policy.steps[0].condition
    assert isinstance(condition, FieldTest) and isinstance(condition.value, tuple) and len(condition.value) == 1500


STEPS = {
    "steps": lambda n: sequence(f'open {{ path = "/f{i}" }}' for i in range(n)),
    "either": lambda n: sequence(
        iter(["exit {} either", " or ".join(f'{{ open {{ path = "/f{i}" }} }}' for i in range(n - 1))])
    ),
    "conditionals": lambda n: sequence(
        f"open {{ uid = {i} }} ? exec {{ uid = {i} }} : write {{ uid = {i} }}" for i in range(n // 3 + (n > MOST_STEPS))
    ),
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_policy_has_at_most_so_many_steps_however_they_stand(kind: str) -> None:
    assert compile_source(STEPS[kind](MOST_STEPS), "x").ok
    more = compile_source(STEPS[kind](MOST_STEPS + 1), "x")
    assert {d.code for d in more.diagnostics if d.level is Level.ERROR} == {"ER0402"}


FIVE_THOUSAND = [f'path "p{n}" {{ open {{ path = "/etc/f{n}" uid != {n} }} }}\n'.encode() for n in range(5000)]


def test_five_thousand_policies_compile_from_one_file() -> None:
    found = compile_set([("all.policy", b"".join(FIVE_THOUSAND))])
    assert found.ok and len(found.policies) == 5000


def test_five_thousand_policies_compile_from_as_many_files() -> None:
    found = compile_set([(f"{n}.policy", text) for n, text in enumerate(FIVE_THOUSAND)])
    assert found.ok and len(found.policies) == 5000


def test_more_policies_than_a_set_may_hold_are_a_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_POLICIES >= 5000
    for module in ("parser", "policyset"):
        monkeypatch.setattr(f"policyd.compiler.{module}.MAX_POLICIES", 10)
    texts = [f'path "p{n}" {{ exit {{}} }}\n' for n in range(11)]
    assert compile_set([("x", "".join(texts[:10]).encode())]).ok
    assert errors(compile_set([("x", "".join(texts).encode())])) == {"ER0402"}
    files = [(str(n), text.encode()) for n, text in enumerate(texts)]
    assert compile_set(files[:10]).ok
    crowded = compile_set(files)
    assert errors(crowded) == {"ER0402"} and crowded.policies == () and len(crowded.sources) == 11
    assert compile_set(files[1:], before=crowded).ok


def long_list(size: int) -> str:
    elements = ", ".join(f'"/etc/file{n:06}"' for n in range(size // 19 - 10))
    return f'list L = [{elements}]\npath "p" {{ open {{ path in L }} }}'


def test_a_file_of_the_most_bytes_compiles() -> None:
    text = long_list(MAX_FILE_BYTES)
    assert MAX_FILE_BYTES * 0.9 < len(text) <= MAX_FILE_BYTES
    assert compile_source(text, "x").ok


def test_memory_for_a_file_grows_with_its_length_only() -> None:
    peaks = []
    for size in (MAX_FILE_BYTES // 40, MAX_FILE_BYTES // 20):
        tracemalloc.start()
        try:
            assert compile_source(long_list(size), "x").ok
            peaks.append(tracemalloc.get_traced_memory()[1] / size)
        finally:
            tracemalloc.stop()
    assert max(peaks) < 60 and peaks[1] < 1.5 * peaks[0]


def test_a_file_of_the_most_bytes_full_of_policies_is_a_diagnostic() -> None:
    text = "".join(f'path "p{n}" {{}}\n' for n in range(MAX_FILE_BYTES // 18))
    assert len(text) <= MAX_FILE_BYTES
    compilation = compile_source(text, "x")
    assert "ER0402" in {diagnostic.code for diagnostic in compilation.diagnostics}


DEEP = {
    "parentheses": lambda d: 'path "p" { exit { ' + "(" * d + "uid = 0" + ")" * d + " } }",
    "blocks": lambda d: 'path "p" { ' + "{" * d + " exit {} " + "}" * d + " }",
    "conditionals": lambda d: 'path "p" key process within 5s { ' + "exit {} ? " * d + "exec {} }",
    "either": lambda d: 'path "p" { ' + "either { " * d + "exit {}" + " }" * d + " }",
}


@pytest.mark.parametrize("kind", DEEP)
def test_sixty_four_levels_compile_and_one_more_is_a_diagnostic(kind: str) -> None:
    assert compile_source(DEEP[kind](64), "x").ok
    deeper = compile_source(DEEP[kind](65), "x")
    assert "ER0108" in {d.code for d in deeper.diagnostics if d.level is Level.ERROR}
