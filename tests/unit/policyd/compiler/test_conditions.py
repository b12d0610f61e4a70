"""What conditions become: one line of source, one expression of the engine."""

from __future__ import annotations

import ipaddress

import pytest

from execray.schema.kinds import Kind
from policyd import program
from policyd.compiler import compile_source
from policyd.patterns import compile_pattern
from policyd.program import And, Expr, FieldRef, Not, Op, Or


def condition(event: str, text: str, before: str = "") -> Expr:
    """The typed condition of the last step."""
    compilation = compile_source(f'{before}\npath "p" within 5s {{ open {{}} as o {event} {{ {text} }} }}', "x")
    assert compilation.ok, compilation.diagnostics
    return compilation.policies[0].steps[-1].condition


def t(
    name: str,
    kind: Kind,
    op: Op,
    value: program.Operand | None = None,
    *,
    index: int | None = None,
    alias: str | None = None,
    ignore_case: bool = False,
) -> program.Test:
    return program.Test(FieldRef(name, kind, alias, index), op, value, ignore_case=ignore_case)


EXEC = [
    ('exe = "/bin/sh"', t("exe", Kind.PATH, Op.EQ, b"/bin/sh")),
    ('exe == "/bin/sh"', t("exe", Kind.PATH, Op.EQ, b"/bin/sh")),
    ('exe != "/bin/sh"', t("exe", Kind.PATH, Op.NE, b"/bin/sh")),
    ('not exe = "x"', Not(t("exe", Kind.PATH, Op.EQ, b"x"))),
    ('!exe = "x"', Not(t("exe", Kind.PATH, Op.EQ, b"x"))),
    ('exe in ["a", "b", "a"]', t("exe", Kind.PATH, Op.IN, (b"a", b"b"))),
    ('exe = ["a", "b"]', t("exe", Kind.PATH, Op.IN, (b"a", b"b"))),
    ('exe not in ["a"]', Not(t("exe", Kind.PATH, Op.IN, (b"a",)))),
    ('exe != ["a", "b"]', And((t("exe", Kind.PATH, Op.EXISTS), Not(t("exe", Kind.PATH, Op.IN, (b"a", b"b")))))),
    ("exe in NAMES", t("exe", Kind.PATH, Op.IN, (b"a", b"b"))),
    ("exe = ONE", t("exe", Kind.PATH, Op.EQ, b"a")),
    ('argv contains "x"', t("argv", Kind.TEXTS, Op.CONTAINS, (b"x",))),
    (
        'argv contains all ["x", "y"]',
        And((t("argv", Kind.TEXTS, Op.CONTAINS, (b"x",)), t("argv", Kind.TEXTS, Op.CONTAINS, (b"y",)))),
    ),
    ('argv[2] = "x"', t("argv", Kind.BYTES, Op.EQ, b"x", index=2)),
    ('name istartswith any ["SH", "B"]', t("name", Kind.BYTES, Op.STARTSWITH, (b"sh", b"b"), ignore_case=True)),
    ('name ieq "SH"', t("name", Kind.BYTES, Op.EQ, b"sh", ignore_case=True)),
    ('name iin ["SH"]', t("name", Kind.BYTES, Op.IN, (b"sh",), ignore_case=True)),
    ('basename(exe) = "sh"', t("name", Kind.BYTES, Op.EQ, b"sh")),
    ('basename(parent.exe) = "sh"', t("parent.name", Kind.BYTES, Op.EQ, b"sh")),
    ('filename =~ "a|b"', t("filename", Kind.BYTES, Op.MATCH, (b"a|b",))),
    ('filename =~ "\\\\.sh"', t("filename", Kind.BYTES, Op.MATCH, (rb"\.sh",))),
    ('filename =~ "\\.sh"', t("filename", Kind.BYTES, Op.MATCH, (rb"\.sh",))),
    ('filename !~ ["a", "b"]', Not(t("filename", Kind.BYTES, Op.MATCH, (b"a", b"b")))),
    ('filename = "\\x00\\n\\q\\\\"', t("filename", Kind.BYTES, Op.EQ, b"\0\n\\q\\")),
    ('filename = r"\\n"', t("filename", Kind.BYTES, Op.EQ, b"\\n")),
    ("uid = 0", t("uid", Kind.INT, Op.EQ, 0)),
    ('uid = "0x10"', t("uid", Kind.INT, Op.EQ, 16)),
    ("uid >= 0o10", t("uid", Kind.INT, Op.GE, 8)),
    ("ret = -EPERM", t("ret", Kind.INT, Op.EQ, -1)),
    ("ret = -1", t("ret", Kind.INT, Op.EQ, -1)),
    ("uid != parent.uid", t("uid", Kind.INT, Op.NE, FieldRef("parent.uid", Kind.INT))),
    ("pid = o.pid", t("pid", Kind.INT, Op.EQ, FieldRef("pid", Kind.INT, "o"))),
    ("exe = o.pathname", t("exe", Kind.PATH, Op.EQ, FieldRef("path", Kind.PATH, "o"))),
    ('o.path startswith "/tmp"', t("path", Kind.PATH, Op.STARTSWITH, (b"/tmp",), alias="o")),
    ("exe exists", t("exe", Kind.PATH, Op.EXISTS)),
    ("exe is null", Not(t("exe", Kind.PATH, Op.EXISTS))),
    ("exe is not null", t("exe", Kind.PATH, Op.EXISTS)),
    ("tid = 5", t("tid", Kind.INT, Op.EQ, 5)),
    (
        "uid in [1, 5..9]",
        Or((And((t("uid", Kind.INT, Op.GE, 5), t("uid", Kind.INT, Op.LE, 9))), t("uid", Kind.INT, Op.IN, (1,)))),
    ),
    (
        "uid = 1 or gid = 2 and pid = 3",
        Or((t("uid", Kind.INT, Op.EQ, 1), And((t("gid", Kind.INT, Op.EQ, 2), t("pid", Kind.INT, Op.EQ, 3))))),
    ),
    (
        "uid = 1 || gid = 2 && pid = 3",
        Or((t("uid", Kind.INT, Op.EQ, 1), And((t("gid", Kind.INT, Op.EQ, 2), t("pid", Kind.INT, Op.EQ, 3))))),
    ),
    (
        "(uid = 1 or gid = 2)\npid = 3",
        And((Or((t("uid", Kind.INT, Op.EQ, 1), t("gid", Kind.INT, Op.EQ, 2))), t("pid", Kind.INT, Op.EQ, 3))),
    ),
]


@pytest.mark.parametrize(("text", "expected"), EXEC, ids=[text for text, _ in EXEC])
def test_exec_condition(text: str, expected: Expr) -> None:
    assert condition("exec", text, 'list NAMES = ["a", "b"]\nlet ONE = "a"') == expected


OTHERS = [
    ("openat", "flags has O_CREAT|O_TRUNC", t("flags", Kind.BITS, Op.HAS, 0o1100)),
    ("open", "flags hasany (O_WRONLY|O_RDWR)", t("flags", Kind.BITS, Op.HASANY, 3)),
    ("open", "access has READ", t("access", Kind.BITS, Op.HAS, 1)),
    ("open", "mode has 0o4000", t("mode", Kind.BITS, Op.HAS, 0o4000)),
    ("open", "created", t("created", Kind.BOOL, Op.TRUE)),
    ("open", "created = false", t("created", Kind.BOOL, Op.EQ, False)),
    ("open", "access", t("access", Kind.BITS, Op.TRUE)),
    ("write", 'buf contains "x", length > 5', None),
    ("connect", 'dst.ip = "10.0.0.1"', t("dst.ip", Kind.IP, Op.EQ, b"\x0a\0\0\x01")),
    (
        "connect",
        'dst.ip in ["::1", "10.0.0.0/8", 192.168.0.0/16]',
        t(
            "dst.ip",
            Kind.IP,
            Op.IN,
            (bytes(15) + b"\1", ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("192.168.0.0/16")),
        ),
    ),
    ("connect", "family = AF_INET", t("family", Kind.INT, Op.EQ, 2)),
    ("ptrace", "request = PTRACE_SEIZE", t("request", Kind.INT, Op.EQ, 0x4206)),
    ("ptrace", "target.tgid = 5", t("target.pid", Kind.INT, Op.EQ, 5)),
    (
        "ptrace",
        "target.real_parent.id != proc.id",
        t("target.real_parent.id", Kind.PROCESS, Op.NE, FieldRef("proc.id", Kind.PROCESS)),
    ),
    ("exit", "signal = SIGKILL", t("signal", Kind.INT, Op.EQ, 9)),
    ("open|connect", 'path = "x"', t("path", Kind.BYTES, Op.EQ, b"x")),
]


@pytest.mark.parametrize(("event", "text", "expected"), OTHERS, ids=[text for _, text, _ in OTHERS])
def test_condition_of_other_events(event: str, text: str, expected: Expr | None) -> None:
    if expected is None:
        expected = And((t("content", Kind.BYTES, Op.CONTAINS, (b"x",)), t("len", Kind.INT, Op.GT, 5)))
    assert condition(event, text) == expected


def test_several_names_of_one_event_are_one_code() -> None:
    compilation = compile_source('path "p" { setuid|setreuid|setresuid|execve|exec {} }', "x")
    assert compilation.policies[0].steps[0].codes == (9, 1)


WILDCARDS = [
    ("like", "*.sh", [b"a.sh", b"/x/y.sh", b"\n.sh"], [b"a.sh ", b"ash"]),
    ("like", "a?c", [b"abc", b"a\nc", b"a\xffc"], [b"ac", b"abbc"]),
    ("like", r"a\*b", [b"a*b"], [b"axb"]),
    ("like", "[a]+", [b"[a]+"], [b"a"]),
    ("glob", "/etc/*.conf", [b"/etc/a.conf"], [b"/etc/a/b.conf"]),
    ("glob", "/home/**/x", [b"/home/a/b/x", b"/home/a/x"], [b"/home/x"]),
    ("glob", "/a?b", [b"/axb"], [b"/a/b"]),
    ("ilike", "READ*", [b"readme", b"READ"], [b"unread"]),
]


@pytest.mark.parametrize(("op", "text", "yes", "no"), WILDCARDS)
def test_wildcards_match_the_whole_value(op: str, text: str, yes: list[bytes], no: list[bytes]) -> None:
    assert matches(op, "filename", text, yes) == [True] * len(yes)
    assert matches(op, "filename", text, no) == [False] * len(no)


BASENAMES = [
    ("=", "shadow", [b"/etc/shadow", b"shadow"], [b"/etc/shadow-", b"/shadow/x"]),
    ("startswith", "sh", [b"/etc/shadow"], [b"/shadow/x", b"/etc/ash"]),
    ("endswith", "ow", [b"/etc/shadow"], [b"/ow/x"]),
    ("contains", "ado", [b"/etc/shadow"], [b"/shadow/x"]),
    ("like", "sh*w", [b"/etc/shadow"], [b"/sh/w"]),
]


@pytest.mark.parametrize(("op", "text", "yes", "no"), BASENAMES)
def test_basename_tests_the_last_component(op: str, text: str, yes: list[bytes], no: list[bytes]) -> None:
    assert matches(op, "basename(filename)", text, yes) == [True] * len(yes)
    assert matches(op, "basename(filename)", text, no) == [False] * len(no)


def matches(op: str, field: str, text: str, values: list[bytes]) -> list[bool]:
    typed = condition("exec", f'{field} {op} "{text}"')
    assert isinstance(typed, program.Test)
    assert typed.op is Op.MATCH
    assert isinstance(typed.value, tuple)
    (pattern,) = typed.value
    assert isinstance(pattern, bytes)
    compiled = compile_pattern(pattern, typed.ignore_case)
    return [compiled.search(value) is not None for value in values]


def test_not_equal_on_a_basename_needs_the_field() -> None:
    typed = condition("exec", 'basename(filename) != "x"')
    assert isinstance(typed, And)
    assert isinstance(typed.items[0], program.Test)
    assert typed.items[0].op is Op.EXISTS


def test_source_of_tests_and_steps_is_kept_on_one_line() -> None:
    compilation = compile_source('path "p" { exec { // why\n exe = "/a // b"\n\tuid = 0 /* x */ } }', "x")
    step = compilation.policies[0].steps[0]
    assert step.text == 'exec { exe = "/a // b" uid = 0 }'
    assert isinstance(step.condition, And)
    assert [item.text for item in step.condition.items if isinstance(item, program.Test)] == [
        'exe = "/a // b"',
        "uid = 0",
    ]
    assert (step.place.line, step.place.column) == (1, 12)


def test_long_sources_are_cut() -> None:
    compilation = compile_source(f'path "p" {{ exec {{ exe = "{"x" * 500}" }} }}', "x")
    assert len(compilation.policies[0].steps[0].text) == 200
