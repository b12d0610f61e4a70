"""Hypothesis strategies for policy source: from plausible to hopeless."""

from __future__ import annotations

from hypothesis import strategies as st

_WORDS = (
    "path policy list let meta macro block either unordered no until except on match step if as by within "
    "times key process tree response audit enforce max_partials mode latest throttle per alert kill "
    "capture log notify with net for max actor exec open write connect ptrace setuid exit fork chmod openat execve "
    "nonsense uid path argv content flags ret comm exe proc.id dst.ip old.uid parent.exe dl.path O_CREAT "
    "PTRACE_ATTACH EPERM READ true false A SHELLS and or not in contains startswith like glob has hasany "
    "exception for language import "
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
#: Words and signs in any order, and parts that go together.
token_lists = st.lists(
    st.one_of(
        pieces,
        st.sampled_from(["open { uid = 0 }", 'block "b" {', "exec {} ? {", "on match { kill }", "either {", "} or {"]),
        st.sampled_from(
            ["list A = [1, 2]", "macro m(p) = p in A", "times 5 distinct path", 'path "q" {', "until exit {}"]
        ),
    ),
    max_size=80,
).map(" ".join)

_FIELDS = (
    "uid",
    "exe",
    "path",
    "argv",
    "argv[1]",
    "flags",
    "dst.ip",
    "a.path",
    "b.uid",
    "proc.id",
    "parent.comm",
    "ret",
    "nope",
)
_VALUES = (
    '"/a"',
    '"("',
    r'"\xff"',
    "5",
    "-EPERM",
    "5s",
    "O_CREAT",
    "A",
    "B",
    "a.path",
    "uid",
    "true",
    '"10.0.0.0/8"',
    "1|2",
)
_RELATIONS = (
    "=",
    "!=",
    "<",
    ">=",
    "in",
    "not in",
    "contains",
    "startswith any",
    "endswith all",
    "like",
    "has",
    "hasany",
    "ieq",
)
_KEYS = ("process", "tree", "session", "host", "uid", "path, uid", "a.path", "proc.id", "(parent.id)", "nope")

_values = st.sampled_from(_VALUES)
_lists = st.lists(st.sampled_from([value for value in _VALUES if "|" not in value]), max_size=3).map(
    lambda items: f"[{', '.join(items)}]"
)
_tests = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(_FIELDS), st.sampled_from(_RELATIONS), st.one_of(_values, _lists)),
    st.builds("{} =~ {}".format, st.sampled_from(_FIELDS), st.sampled_from(('"a+"', '"("', '["x", "(?=y)"]'))),
    st.builds("{} exists".format, st.sampled_from(_FIELDS)),
    st.sampled_from(("created", "m(path)", "m(uid)", "m()", "truncated(content)", 'basename(path) = "x"', "nope(uid)")),
    st.builds("{} {}({} = {})".format, st.sampled_from(("any", "all", "none")), st.sampled_from(("argv", "ancestor", "uid")),
              st.sampled_from(("it", "it.exe", "it.nope", "uid")), _values),
)  # fmt: skip
_conditions = st.recursive(
    _tests,
    lambda inner: st.one_of(
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
        st.builds("({} and {})".format, inner, inner),
    ),
    max_leaves=4,
)
_steps = st.builds(
    "{} {{ {} }}{}{}{}{}".format,
    st.sampled_from(("open", "exec", "write", "connect|open", "exit", "opne", "unlink")),
    st.lists(_conditions, max_size=2).map(", ".join),
    st.sampled_from(("", " as a", " as b", " as path")),
    st.sampled_from(("", "", " by uid", " by path, uid", " by nope")),
    st.sampled_from(("", "", " times 3", " times 2 distinct path", " times 1", " within 1s")),
    st.sampled_from(("", "", " ..", " ...")),
)
_statements = st.recursive(
    _steps,
    lambda inner: st.one_of(
        st.builds("{} ? {{ {} }} : {{ {} }}".format, _steps, inner, inner),
        st.builds("either {{ {} }} or {{ {} }}".format, inner, inner),
        st.builds('block "b" {{ {}\nuntil {}\non match {{ alert }} }}'.format, inner, _steps),
        st.builds("{}\n{}".format, inner, inner),
        st.builds("{{ {}\nbenign }}".format, inner),
    ),
    max_leaves=5,
)
_policies = st.builds(
    'path "{}"{}{}{} {{\n{}\n{}\n{}\n}}'.format,
    st.sampled_from(("p", "q", "normal")),
    st.one_of(st.just(""), st.sampled_from(_KEYS).map(" key {}".format)),
    st.sampled_from(("", " within 5s", " within 0s", " max_partials 3")),
    st.sampled_from(("", " mode first", " mode all 3", " response enforce", " throttle 1 per 1s by uid")),
    _statements,
    st.one_of(st.just(""), _steps.map("until {}".format), _conditions.map("except {{ {} }}".format)),
    st.sampled_from(
        ("", "on match { kill }", "on step a { capture }", 'on match if a.uid = 0 { notify "x" with { k = uid } }')
    ),
)


@st.composite
def well_formed(draw: st.DrawFn) -> str:
    """A file that the parser takes whatever its names and values are."""
    head = draw(st.sampled_from(("", "language 1\n")))
    declared = draw(st.lists(st.one_of(
        _lists.map("list A = {}".format), _lists.map("list A += {}".format), st.just("let B = 5"),
        _conditions.map("macro m(p) = {} and p = 1".format),
        _conditions.map('exception for "*" until "2026-01-01" {{ {} }}'.format),
    ), max_size=3))  # fmt: skip
    return head + "\n".join([*declared, *draw(st.lists(_policies, min_size=1, max_size=3))])


@st.composite
def mutated(draw: st.DrawFn, sources: list[str]) -> str:
    """A good file with a few pieces cut out, doubled or replaced."""
    text = draw(st.sampled_from(sources))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        text = text[:start] + draw(st.one_of(pieces, st.just(text[start:end] * 2), st.just(""))) + text[end:]
    return text
