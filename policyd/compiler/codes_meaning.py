"""Codes 02 (names) to 05 (lints): what can be read and makes no sense, or not the sense that was meant."""

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
        "The only function is `basename(field)`, on the left of a comparison.",
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
        'path "p" { unlink {} }\n',
        'path "p" { chmod {} }\n',
    ),
    Code(
        "ER0212",
        "the alias would hide fields",
        "An alias may not be the first part of a dotted field name, such as `proc`, `parent`, `old` or `target`.",
        'path "p" within 5s { open {} as target write { path = target.path } }\n',
        'path "p" within 5s { open {} as opened write { path = opened.path } }\n',
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
        "Only `argv` is a list: `argv[0]` is its first element, up to `argv[4095]`.",
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
)

AUTOMATON: tuple[Code, ...] = (
    Code(
        "ER0401",
        "no step is required",
        "Every step may be left out (`...`), so nothing at all would match.",
        'path "p" { open {} ... }\n',
        'path "p" { open {} .. }\n',
    ),
    Code(
        "ER0402",
        "too many steps, blocks or handlers",
        "A policy has at most 1024 steps, 1024 blocks, 256 handlers, and 64 times `notify` with 32 arguments each.",
        "",
        'path "p" { exit {} }\n',
    ),
    Code(
        "ER0403",
        "a step that may be left out can't decide",
        "The first step of a conditional decides which branch is taken, so it must happen.",
        'path "p" within 5s { open {} ... ? write {} : connect {} }\n',
        'path "p" within 5s { open {} .. ? write {} : connect {} }\n',
    ),
    Code(
        "ER0404",
        "the other branch can be met by nothing",
        "What follows `:` is taken when its first step happens, so one of its steps must be required. An empty branch means "
        "that there is none.",
        'path "p" within 5s { open {} ? write {} : connect {} ... }\n',
        'path "p" within 5s { open {} ? write {} : connect {} .. }\n',
    ),
    Code(
        "ER0405",
        "the handler never runs",
        "A handler in a block runs for matches that went through a step of that block, and this one has no step.",
        'path "p" within 5s { open {} ? write {} : block "b" { on match { kill } } }\n',
        'path "p" within 5s { open {} ? block "b" { write {} on match { alert } } : exec {} on match { log } }\n',
    ),
    Code(
        "ER0406",
        "the step is never reached",
        "Of several alternatives the first in the text takes the event. One before this step takes every event that this "
        "one would.",
        'path "p" within 5s { open {} ? write {} : open {} }\n',
        'path "p" within 5s { open { uid = 0 } ? write {} : open {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0407",
        "`within` on a first step",
        "On a step `within` limits the time since the step before it, and there is none.",
        'path "p" within 9s { open {} within 5s write {} }\n',
        'path "p" within 9s { open {} write {} within 5s }\n',
    ),
    Code(
        "ER0408",
        "a policy without a step",
        "It compiles and never matches.",
        'path "p" { ... }\n',
        'path "p" { exit {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0409",
        "a handler in a block without a label",
        "A handler finds the matches that it runs for by the label of its block.",
        'path "p" within 5s { open {} ? { write {} on match { alert } } : exec {} on match { log } }\n',
        'path "p" within 5s { open {} ? block "w" { write {} on match { alert } } : exec {} on match { log } }\n',
    ),
    Code(
        "ER0410",
        "two blocks of one label, and a handler",
        "The handler would run for both.",
        'path "p" within 5s { open {} ? block "b" { write {} on match { kill } } : block "b" { exec {} } on match { log } }\n',
        'path "p" within 5s { open {} ? block "b" { write {} on match { alert } } : block "c" { exec {} } on match { log } }\n',
    ),
)

LINTS: tuple[Code, ...] = (
    Code(
        "ER0502",
        "the window is the default",
        "A policy of several steps without `within` forgets a sequence 5 minutes after its first step.",
        'path "p" { open {} write {} }\n',
        'path "p" within 30s { open {} write {} }\n',
        Level.NOTE,
    ),
    Code(
        "ER0503",
        "`=` compares all the bits",
        "`flags = O_RDWR` doesn't match a call that adds O_CLOEXEC, as most do.",
        'path "p" { open { flags = O_RDWR } }\n',
        'path "p" { open { flags has O_RDWR } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0504",
        "a kill that rests on `comm` alone",
        "Any process can give itself any such name: to escape, or to be killed in another's place.",
        'path "p" response enforce { exec { comm = "miner" } on match { kill } }\n',
        'path "p" response enforce { exec { exe = "/tmp/miner" } on match { kill } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0505",
        "a capture that stays empty",
        "A capture begun when the process is killed sees nothing that it sends.",
        'path "p" response enforce within 5s { open {} connect {} on match { capture; kill } }\n',
        'path "p" response enforce within 5s { open {} as o connect {} on step o { capture } on match { kill } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0506",
        "a branch called normal can alert",
        "A match that goes through the branch is a match like any other. A branch that means no harm is left empty.",
        'path "p" within 5s { open {} ? write {} : block "normal" { exec {} } }\n',
        'path "p" within 5s { open {} ? write {} : block "normal" { ... } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0509",
        "`...` that changes nothing",
        "A step that may be left out matters only between two others, where its events are added to the evidence.",
        'path "p" { open {} write {} ... }\n',
        'path "p" within 5s { open {} write {} ... connect {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0510",
        "`within` for a single event",
        "One event completes the policy, so there is no time to limit.",
        'path "p" within 5s { open {} }\n',
        'path "p" within 5s { open {} write {} }\n',
        Level.NOTE,
    ),
    Code(
        "ER0511",
        "`kill` without `response enforce`",
        "Policies only report until they say `response enforce`, and even then only where the host's mode is enforce: "
        "the alert says `would_kill`.",
        'path "p" { exec { exe = "/tmp/miner" } on match { kill } }\n',
        'path "p" response enforce { exec { exe = "/tmp/miner" } on match { kill } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0512",
        "some matches do nothing",
        "Every `on match` stands in a block, and there is a way through the policy that meets none of those blocks.",
        'path "p" within 5s { open {} ? block "b" { write {} on match { alert } } : exec {} }\n',
        'path "p" within 5s { open {} ? block "b" { write {} on match { alert } } : exec {} on match { log } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0513",
        "`notify` names a plug-in that isn't allowed",
        "An action plug-in runs only where the host's configuration has it on the list `policyd.actions`; the examples suppose "
        "that `soc` is on it. Elsewhere this `notify` does nothing, and the alert says so; all else in the policy works.",
        'path "p" { exit {} on match { alert; notify "sok" } }\n',
        'path "p" { exit {} on match { alert; notify "soc" } }\n',
        Level.WARNING,
    ),
)
