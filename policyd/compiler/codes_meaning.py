"""Codes 02 (names) and 03 (types): what can be read and means nothing."""

from __future__ import annotations

from policyd.compiler.code_entry import Code
from policyd.compiler.diagnostics import Level

NAMES: tuple[Code, ...] = (
    Code(
        "ER0201",
        "unknown field",
        "None of the step's events has the field. The reference page of events lists the fields of each, and those of the "
        "actor, which every event has.",
        'path "p" { open { flgas has O_CREAT } }\n',
        'path "p" { open { flags has O_CREAT } }\n',
    ),
    Code(
        "ER0202",
        "unknown event",
        "The reference page of events lists them with their other names.",
        'path "p" { opeen {} }\n',
        'path "p" { open {} }\n',
    ),
    Code(
        "ER0203",
        "unknown name",
        "The name on the right is neither a constant of the field's family, nor a declared list or value, nor a field.",
        'path "p" { open { flags has O_CRAET } }\n',
        'path "p" { open { flags has O_CREAT } }\n',
    ),
    Code(
        "ER0204",
        "unknown step",
        "No step of the policy has this alias. Steps are named with `as`.",
        'path "p" within 5s { open {} as o write { path = oo.path } }\n',
        'path "p" within 5s { open {} as o write { path = o.path } }\n',
    ),
    Code(
        "ER0205",
        "the step comes later, or on another way",
        "A condition can read steps that lie before its own on some way through the policy. Where such a step was not "
        "taken, its fields are missing.",
        'path "p" within 5s { open { path = w.path } write {} as w }\n',
        'path "p" within 5s { open {} as o write { path = o.path } }\n',
    ),
    Code(
        "ER0206",
        "the alias is taken",
        "Two steps that can both happen need different aliases; the alternatives of a conditional may share one.",
        'path "p" within 5s { open {} as a write {} as a }\n',
        'path "p" within 5s { open {} as a write {} as b }\n',
    ),
    Code(
        "ER0207",
        "two policies of one name",
        "Alerts, hashes and settings go by the policy's name, so it occurs once in all files that are loaded together.",
        'path "p" { exit {} }\npath "p" { exec {} }\n',
        'path "p" { exit {} }\npath "q" { exec {} }\n',
    ),
    Code(
        "ER0208",
        "the name is taken",
        "A list or value is declared once in its file, or once in its policy, where it may hide the file's. The names of "
        "constants can't be used.",
        'list A = ["sh"]\nlist A = ["bash"]\npath "p" { exec { name in A } }\n',
        'list A = ["sh", "bash"]\npath "p" { exec { name in A } }\n',
    ),
    Code(
        "ER0209",
        "unknown function",
        "Functions are `basename(field)`, on the left of a comparison, and `truncated(field)`, a condition by itself.",
        'path "p" { open { dirname(path) = "/etc" } }\n',
        'path "p" { open { basename(path) = "shadow" } }\n',
    ),
    Code(
        "ER0210",
        "unknown meta entry",
        "Entries are id, title, description, severity, attack, references, author, status, falsepositives and tags.",
        'path "p" { meta { serverity: high } exit {} }\n',
        'path "p" { meta { severity: high } exit {} }\n',
    ),
    Code(
        "ER0211",
        "not observed yet",
        "The event or field belongs to the language, but no sensor of this version delivers it, so the condition could "
        "never hold.",
        'path "p" { dns {} }\n',
        'path "p" { chmod {} }\n',
    ),
    Code(
        "ER0212",
        "the alias would hide fields",
        "An alias may not be the first part of a dotted field name, such as `proc`, `parent`, `old` or `target`.",
        'path "p" within 5s { open {} as target write { path = target.path } }\n',
        'path "p" within 5s { open {} as opened write { path = opened.path } }\n',
    ),
    Code(
        "ER0213",
        "`it` does not fit",
        "Inside of `any`, `all` and `none`, `it` is the element in hand: of `argv` a text, of `ancestor` a process, which has "
        "the fields of the actor. Elsewhere it means nothing.",
        'path "p" { exec { any argv(it.exe = "-c") } }\n',
        'path "p" { exec { any argv(it = "-c") and none ancestor(it.exe = "/usr/sbin/cron") } }\n',
    ),
    Code(
        "ER0214",
        "a macro's arguments",
        "A macro is used with as many arguments as it has parameters: fields, values or lists. A parameter followed by a dot or "
        "an index stands for the name of a step or a field.",
        'macro scratch(p) = p startswith "/tmp/"\npath "p" { open { scratch() } }\n',
        'macro scratch(p) = p startswith "/tmp/"\npath "p" { open { scratch(path) } }\n',
    ),
    Code(
        "ER0215",
        "a macro uses itself",
        "Macros are written out where they are used, so none may lead back to itself.",
        'macro a() = uid = 0 or b()\nmacro b() = a()\npath "p" { exec { a() } }\n',
        'macro a() = uid = 0\nmacro b() = a() or gid = 0\npath "p" { exec { b() } }\n',
    ),
    Code(
        "ER0216",
        "the file asks for too much",
        "A short file can ask for very much: macros that use macros, each twice, or a long list tested in every policy. One file "
        "may have a million conditions and list elements written out; a pattern counts for ten.",
        "",
        'path "p" { exit {} }\n',
    ),
    Code(
        "ER0217",
        "no such list to add to",
        "`list NAME += [...]` makes a list of that name longer, in every file of the set that declares one; inside of a policy, "
        "for that policy only. Where none does, it changes nothing. Check the files together that are loaded together.",
        'list SHELS += ["fish"]\nlist SHELLS = ["sh"]\npath "p" { exec { name in SHELLS } }\n',
        'list SHELLS += ["fish"]\nlist SHELLS = ["sh"]\npath "p" { exec { name in SHELLS } }\n',
        Level.WARNING,
    ),
)

TYPES: tuple[Code, ...] = (
    Code(
        "ER0301",
        "the operator does not fit",
        "`<` and its like compare numbers; `contains`, `startswith`, `endswith`, `like`, `glob`, `=~` and the operators "
        "that ignore case work on text; `has` and `hasany` on bit sets.",
        'path "p" { open { path < 5 } }\n',
        'path "p" { open { uid < 5 } }\n',
    ),
    Code(
        "ER0302",
        "a constant of another kind",
        "Each field takes the constants of its own family.",
        'path "p" { open { flags has PTRACE_ATTACH } }\n',
        'path "p" { ptrace { request = PTRACE_ATTACH } }\n',
    ),
    Code(
        "ER0303",
        "fields of different kinds",
        "Two fields compare when both hold numbers, text, addresses, process identities, or true and false.",
        'path "p" { open { path = uid } }\n',
        'path "p" { open { path = exe } }\n',
    ),
    Code(
        "ER0304",
        "a value of another kind",
        "A number field accepts a quoted number; otherwise the kinds of the field and of the value must agree.",
        'path "p" { exec { exe = 493 } }\n',
        'path "p" { exec { exe = "/usr/bin/nc" } }\n',
    ),
    Code(
        "ER0305",
        "the pattern is refused",
        "Patterns are RE2's: no look-around and no back-references, so that matching takes linear time whatever the text. A "
        "pattern matches anywhere in the value; anchor it with `^` and `$`. The dot matches every byte.",
        'path "p" { open { path =~ "/etc/(passwd" } }\n',
        'path "p" { open { path =~ "/etc/(passwd|shadow)$" } }\n',
    ),
    Code(
        "ER0306",
        "longer than a thread's name",
        "The kernel keeps 15 bytes of a thread's name, so a longer text never equals it.",
        'path "p" { setuid { comm = "polkit-agent-helper" } }\n',
        'path "p" { setuid { comm = "polkit-agent-he" } }\n',
    ),
    Code(
        "ER0307",
        "not an address",
        "Address fields compare with IPv4 and IPv6 addresses, and `in` also takes networks such as `10.0.0.0/8`, whose bits "
        "beyond the prefix are zero.",
        'path "p" { connect { dst.ip in ["10.0.0.300"] } }\n',
        'path "p" { connect { dst.ip in ["10.0.0.0/8", "::1"] } }\n',
    ),
    Code(
        "ER0308",
        "not a condition by itself",
        "Only a field that is true or false, or a bit set, is a condition by itself.",
        'path "p" { open { path } }\n',
        'path "p" { open { path exists } }\n',
    ),
    Code(
        "ER0309",
        "a comparison begins with a field",
        "The field stands on the left, what it is compared with on the right.",
        'path "p" { open { "/etc/passwd" = path } }\n',
        'path "p" { open { path = "/etc/passwd" } }\n',
    ),
    Code(
        "ER0310",
        "the index does not fit",
        "Only `argv` is a list: `argv[0]` is its first element, up to `argv[4095]`. `ancestor[1]` is the parent's parent, up to "
        "`ancestor[63]`.",
        'path "p" { exec { exe[0] = "/bin/sh" } }\n',
        'path "p" { exec { argv[0] = "/bin/sh" } }\n',
    ),
    Code(
        "ER0311",
        "the list is empty",
        "Nothing is in an empty list, so the condition would always be false.",
        'path "p" { exec { name in [] } }\n',
        'path "p" { exec { name in ["sh"] } }\n',
    ),
    Code(
        "ER0312",
        "out of range",
        "The help gives the range.",
        'path "p" within 0s { open {} write {} }\n',
        'path "p" within 10s { open {} write {} }\n',
    ),
    Code(
        "ER0313",
        "errors are negative",
        "A failed call's `ret` is the negated error number.",
        'path "p" { open { ret = EPERM } }\n',
        'path "p" { open { ret = -EPERM } }\n',
    ),
    Code(
        "ER0314",
        "not an ATT&CK technique",
        "Techniques are a T with four digits, and three more for a sub-technique.",
        'path "p" { meta { attack: ["TA0005"] } exit {} }\n',
        'path "p" { meta { attack: ["T1055.008"] } exit {} }\n',
    ),
    Code(
        "ER0315",
        "`notify` can't hand this over",
        "What `notify` hands over is a text, a number, a duration, a constant, or a field of the event at hand or of an earlier "
        "step. A field that is a list, such as `argv`, is handed over whole.",
        'list PORTS = [80, 443]\npath "p" { connect {} on match { notify "soc" with { ports = PORTS } } }\n',
        'path "p" { connect {} on match { notify "soc" with { port = dst.port, argv = argv } } }\n',
    ),
    Code(
        "ER0316",
        "not a key",
        "A key is a field of the event that meets the step, or several, up to 16, none of them a list; or one of the words "
        "process, session, entry, container, user and host. `key tree` stands alone, for the whole policy.",
        'path "p" key argv within 5s { exec {} exit {} }\n',
        'path "p" within 5s { open {} by path exec {} by exe }\n',
    ),
    Code(
        "ER0317",
        "the keys of two steps can't be equal",
        "A partial is advanced by events whose key equals its own, part by part, so the keys of all steps have equally many "
        "parts of the same kinds. A step without `by` has the policy's key, which is `process` unless it says otherwise.",
        'path "p" within 5s { open {} by path exec {} by pid }\n',
        'path "p" within 5s { open {} by path exec {} by exe }\n',
    ),
    Code(
        "ER0318",
        "an exception without a condition",
        "It would hold for every match, and the policy would never alert.",
        'path "p" { exec {} except "backups" {} }\n',
        'path "p" { exec {} except "backups" { exe = "/usr/bin/restic" } }\n',
    ),
    Code(
        "ER0319",
        "`distinct` takes one field",
        "What is counted is how many values a field of the event has had in the window.",
        'path "p" { exec {} times 5 distinct argv }\n',
        'path "p" { exec {} times 5 distinct name }\n',
    ),
    Code(
        "ER0320",
        "never captured in part",
        "Only text that has a capture limit can be truncated: paths, arguments, content.",
        'path "p" { open { truncated(uid) } }\n',
        'path "p" { write { truncated(content) } }\n',
    ),
    Code(
        "ER0321",
        "not a date",
        "The last day of an exception is a text with year, month and day.",
        'path "p" { exec {} }\nexception for "p" "migration" until "1.3.2027" { uid = 0 }\n',
        'path "p" { exec {} }\nexception for "p" "migration" until "2027-03-01" { uid = 0 }\n',
    ),
    Code(
        "ER0322",
        "never that word",
        "Some fields hold one of a few words, so a comparison with any other never holds. The help says which.",
        'path "p" { exec { entry.kind = "sshd" } }\n',
        'path "p" { exec { entry.kind = "ssh" } }\n',
    ),
)
