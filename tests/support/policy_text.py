"""Hypothesis strategies for policy source: from plausible to hopeless."""

from __future__ import annotations

from hypothesis import strategies as st

_WORDS = (
    "path policy list let meta macro block either unordered no until except on match step if as by within "
    "times key process tree response audit enforce max_partials mode latest throttle per alert kill "
    "capture log notify with net for max actor exec open write connect ptrace setuid exit fork chmod openat execve "
    "nonsense uid path argv content flags ret comm exe proc.id dst.ip old.uid parent.exe dl.path O_CREAT "
    "PTRACE_ATTACH EPERM READ true false A SHELLS and or not in contains startswith like glob has hasany "
    "ieq exists is null any all none it ancestor basename truncated benign distinct first session host tree or except"
)
_SIGNS = "{ } ( ) [ ] = == != =~ !~ < <= > >= , ; : ? | || && ! - . .. ... $ += + * & @ ` ' “"
_LITERALS = ['"x"', '"a(b"', r'"\."', 'r"x"', '"""x"""', '"', '"two\nlines"', "0", "1", "0755", "0x1f", "5s", "1MiB"]
_LITERALS += ["10.0.0.1", "10x", "1.5", "99999999999999999999999", "// c\n", "# c\n", "/* c */", "/*", "\n", "\t", "\0"]

#: One piece of source.
pieces = st.sampled_from([*_WORDS.split(), *_SIGNS.split(), *_LITERALS])
#: Words and signs of the language in any order.
soups = st.lists(pieces, max_size=60).map(" ".join)
#: A soup inside of a policy or a step, so that the deeper parts of the parser are reached.
nested_soups = st.tuples(
    st.sampled_from(['path "p" {', 'path "p" { open {', 'path "p" { open {} on match if', "list A = ["]),
    soups,
    st.sampled_from(["}", "} }", "", "]"]),
).map(" ".join)


@st.composite
def mutated(draw: st.DrawFn, sources: list[str]) -> str:
    """A good file with a few pieces cut out, doubled or replaced."""
    text = draw(st.sampled_from(sources))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        text = text[:start] + draw(st.one_of(pieces, st.just(text[start:end] * 2), st.just(""))) + text[end:]
    return text
