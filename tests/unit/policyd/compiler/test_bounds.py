"""What policies may hold at most, from their automata; and that a set which may hold too much is refused."""

from __future__ import annotations

import pytest

from policyd.compiler import compile_set, compile_source
from policyd.compiler.bounds import Bounds, bounds_of, most_count_bytes, size_text
from policyd.compiler.story import story
from policyd.engine.partials import Limits
from policyd.program import MAX_PARTIALS, CompiledPolicy


def one(text: str) -> CompiledPolicy:
    compilation = compile_source(text, "x.policy")
    assert compilation.ok, compilation.diagnostics
    return compilation.policies[0]


COUNTS = {
    'path "p" { open {} }': Bounds(1, 0, 0, 0),
    'path "p" within 5s { open {} write {} exec {} }': Bounds(3, 2, 1024, 0),
    'path "p" within 5s max_partials 7 { open {} times 5 }': Bounds(1, 0, 7, 5 * 8),
    'path "p" within 5s { open {} times 5 distinct path }': Bounds(1, 0, 1024, 5 * 72),
    # one after the other, never both at once
    'path "p" within 5s { open {} times 5 exec {} times 9 }': Bounds(2, 1, 1024, 9 * 8),
    # both at once
    'path "p" within 5s { either { open {} times 5 } or { exec {} times 9 distinct name } }': Bounds(
        2, 0, 1024, 5 * 8 + 9 * 72
    ),
    'path "p" within 5s { open {} exec {} until exit {} }': Bounds(3, 1, 1024, 0),
}


@pytest.mark.parametrize("text", COUNTS)
def test_bounds_of_a_policy(text: str) -> None:
    assert bounds_of(one(text)) == COUNTS[text]


def test_all_policies_together_have_no_more_partials_than_the_engine_keeps() -> None:
    assert Limits().max_partials == MAX_PARTIALS
    many = [one(f'path "p{n}" within 5s {{ open {{}} times {n + 2} }}') for n in range(40)]
    greediest = [n + 2 for n in range(39, 39 - 19, -1)]  # 19 have all their 1024, the next one what is left
    assert most_count_bytes(many) == 8 * (1024 * sum(greediest) + (MAX_PARTIALS - 19 * 1024) * (39 - 19 + 2))
    assert most_count_bytes(many[:3]) == 8 * 1024 * (2 + 3 + 4)


def test_a_set_over_its_budget_is_refused_with_the_biggest_policy() -> None:
    small = b'path "small" within 5s { open {} times 100 }'
    big = b'path "single" { open {} }\npath "big" within 5s { open {} times 300 distinct path }'
    files = [("a.policy", small), ("b.policy", big)]
    needed = 1024 * (100 * 8 + 300 * 72)
    fits = compile_set(files, budget_bytes=needed)
    assert fits.ok and len(fits.policies) == 3
    refused = compile_set(files, budget_bytes=needed - 1, before=fits)
    assert not refused.ok and refused.policies == ()
    (found,) = [diagnostic for diagnostic in refused.diagnostics if diagnostic.code == "ER0415"]
    assert (found.file, refused.sources[1].snippet(found.primary.span)) == ("b.policy", '"big"')
    assert "21.9 MiB" in found.message and "21.1 MiB" in found.primary.text
    assert compile_set(files).ok


def test_words_say_what_a_policy_holds() -> None:

    holds = [part.lines for part in story(one('path "p" within 5s { open {} times 300 distinct path }'))][-1]
    assert holds == (
        "1 step, 0 waiting places, at most 1024 begun at a time",
        "counts in at most 21.1 MiB: 21.1 KiB for each that has begun",
    )


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
