"""Codes 00 (lexical) and 01 (syntax): what can't be read."""

from __future__ import annotations

from policyd.compiler.code_entry import Code
from policyd.compiler.diagnostics import Level

LEXICAL: tuple[Code, ...] = (
    Code(
        "ER0001",
        "the file is not UTF-8",
        "Policy files are UTF-8 text. Nothing else of the file was read. Bytes that aren't UTF-8 can be tested: write them "
        "as `\\xHH` in a text that is not a regular expression, or in the pattern itself.",
        'path "caf\xe9" { exit {} }\n',
        'path "café" { open { path contains "caf\\xe9" } }\n',
        encoding="latin-1",
    ),
    Code(
        "ER0002",
        "the file is too large",
        "A policy file has at most 5 MiB. Nothing of it was read.",
        "",
        'path "small" { exit {} }\n',
    ),
    Code(
        "ER0003",
        "unexpected character",
        "The character means nothing outside of a text. Often it is a typographic quote or a single quote: texts stand "
        "between straight double quotes. Only the first such character of a line is reported.",
        "path 'dropper' { exit {} }\n",
        'path "dropper" { exit {} }\n',
    ),
    Code(
        "ER0004",
        "a text has no closing quote",
        "A text may span lines, so a missing quote shows only when the quotes of the file come out odd. The report is "
        "about the first text that swallowed what looks like policy; reading went on at the next line.",
        'path "p" {\n    open { path = "/etc/passwd }\n}\n',
        'path "p" {\n    open { path = "/etc/passwd" }\n}\n',
    ),
    Code(
        "ER0005",
        "a comment is never closed",
        "A comment that begins with `/*` ends at the next `*/`; such comments don't nest.",
        'path "p" { exit {} } /* to do\n',
        'path "p" { exit {} } /* to do */\n',
    ),
    Code(
        "ER0006",
        "a number begins with a zero",
        "In C a leading zero means octal, elsewhere it doesn't; so it is refused. Octal is written `0o755`.",
        'path "p" { chmod { mode has 0755 } }\n',
        'path "p" { chmod { mode has 0o755 } }\n',
    ),
    Code(
        "ER0007",
        "not a number",
        "Numbers are whole: decimal, `0x` hexadecimal or `0o` octal. Units of time are ns us ms s m h d, of size KiB MiB "
        "GiB, without a space before them.",
        'path "p" within 1.5s { open {} write {} }\n',
        'path "p" within 1500ms { open {} write {} }\n',
    ),
    Code(
        "ER0008",
        "a number is too large",
        "Numbers, durations in nanoseconds and sizes in bytes have at most 64 bits.",
        'path "p" { write { len > 99999999999999999999 } }\n',
        'path "p" { write { len > 9999 } }\n',
    ),
)

SYNTAX: tuple[Code, ...] = (
    Code(
        "ER0101",
        "something else was expected here",
        "The message says what could have stood here. Reading goes on at the next line or behind the bracket, so one "
        "mistake can cause a second report further down; mend the first one first.",
        'path "p" { on miss { alert } exit {} }\n',
        'path "p" { on match { alert } exit {} }\n',
    ),
    Code(
        "ER0102",
        "a bracket is never closed",
        "The report is about the opening bracket.",
        'path "p" within 9s {\n    open { path = "/etc/passwd"\n    write {}\n}\n',
        'path "p" within 9s {\n    open { path = "/etc/passwd" }\n    write {}\n}\n',
    ),
    Code(
        "ER0103",
        "this stands outside of a policy",
        'A file holds policies, `path "name" { ... }`, and declarations, `list NAME = [...]` and `let NAME = ...`.',
        'open { path = "/etc/passwd" }\n',
        'path "p" { open { path = "/etc/passwd" } }\n',
    ),
    Code(
        "ER0104",
        "a policy needs a name",
        "The name stands in quotes after `path` or `policy`: printable, not empty, at most 200 characters.",
        "path dropper { exit {} }\n",
        'path "dropper" { exit {} }\n',
    ),
    Code(
        "ER0105",
        "a value or condition is missing",
        "A condition reads field, operator, value; several stand beside each other and must all hold.",
        'path "p" { open { path = } }\n',
        'path "p" { open { path = "/etc/passwd" } }\n',
    ),
    Code(
        "ER0106",
        "this does not belong here",
        "Options (`key`, `within`, `response`, `max_partials`, `mode`, `throttle`) stand between the policy's name and its "
        "brace, or as a line of its body. Blocks hold only steps and handlers.",
        'path "p" { block "b" { key tree exit {} } }\n',
        'path "p" key tree { block "b" { exit {} } }\n',
    ),
    Code(
        "ER0107",
        "a step needs braces",
        "A step is an event with its conditions in braces, also when there are none.",
        'path "p" { exit }\n',
        'path "p" { exit {} }\n',
    ),
    Code(
        "ER0108",
        "nested too deep",
        "Parentheses, `not`, blocks and conditionals may stand in each other 64 levels deep.",
        'path "p" { exit { ' + "(" * 65 + "uid = 0" + ")" * 65 + " } }\n",
        'path "p" { exit { ((uid = 0)) } }\n',
    ),
    Code(
        "ER0109",
        "given twice",
        "The option, modifier or entry may be given once.",
        'path "p" within 5s within 9s { open {} write {} }\n',
        'path "p" within 9s { open {} write {} }\n',
    ),
    Code(
        "ER0110",
        "not supported yet",
        "The construct belongs to the language, and this version can't run it. It is refused, because a policy that quietly "
        "did less than it says would be worse.",
        'path "p" within 5s { unordered { exec {} open {} } }\n',
        'path "p" within 5s { exec {} open {} }\n',
    ),
    Code(
        "ER0111",
        "unknown action",
        "Actions are `alert [severity]`, `log`, `kill [actor]`, `capture [net] [for DURATION] [max SIZE]` and "
        '`notify "NAME" [with { key = value }]`, separated by `;` or line breaks.',
        'path "p" { exit {} on match { explode } }\n',
        'path "p" { exit {} on match { alert high } }\n',
    ),
    Code(
        "ER0112",
        "not one of the possible words",
        "The help lists them.",
        'path "p" response sometimes { exit {} }\n',
        'path "p" response audit { exit {} }\n',
    ),
    Code(
        "ER0113",
        "`:` without `?`",
        "A conditional reads `step ? statement : statement`; each branch is one statement, so several steps stand in a "
        "block. In nested conditionals `:` belongs to the nearest one without.",
        'path "p" within 9s { open {} : write {} }\n',
        'path "p" within 9s { open {} ? write {} : connect {} }\n',
    ),
    Code(
        "ER0114",
        "not the name of a plug-in",
        "`notify` names an action plug-in by its entry point: small letters, digits, `_` and `-`, beginning with a letter, at "
        "most 64.",
        'path "p" { exit {} on match { notify "The SOC" } }\n',
        'path "p" { exit {} on match { notify "soc" } }\n',
    ),
    Code(
        "ER0115",
        "dots behind a counted step",
        "`times 5` says how often the step is met; `..` and `...` would say it again.",
        'path "p" within 9s { open {} times 5 .. write {} }\n',
        'path "p" within 9s { open {} times 5 write {} }\n',
    ),
    Code(
        "ER0116",
        "another language",
        "`language 1` says which version of the language a file is written in. This version knows that one.",
        'language 2\npath "p" { exit {} }\n',
        'language 1\npath "p" { exit {} }\n',
    ),
)

READING_LINTS: tuple[Code, ...] = (
    Code(
        "ER0501",
        "`or` beside another condition",
        "Adjacent conditions are joined by `and`, which binds loosest: `a or b c` reads `(a or b) and c`. Parentheses or a "
        "comma say it plainly.",
        'path "p" { open { uid = 0 or gid = 0 ret >= 0 } }\n',
        'path "p" { open { (uid = 0 or gid = 0) ret >= 0 } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0507",
        "nothing follows `?`",
        "`step ?` with no statement behind it means just the step: there is no optional step, because a policy that is "
        "complete without it would be complete before it.",
        'path "p" within 9s { open {} write {} ? }\n',
        'path "p" within 9s { open {} write {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0508",
        "this `within` limits the whole policy",
        "On a line of its own `within` is an option of the policy. It limits one step when it stands on the line of that "
        "step's closing brace.",
        'path "p" {\n    open {}\n    write {}\n    within 5s\n}\n',
        'path "p" within 5s {\n    open {}\n    write {}\n}\n',
        Level.NOTE,
    ),
)
