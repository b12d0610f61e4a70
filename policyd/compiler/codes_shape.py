"""Codes 04 (automaton) and 05 (lints): what can't be run, or is probably not what was meant."""

from __future__ import annotations

from policyd.compiler.code_entry import Code
from policyd.compiler.diagnostics import Level

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
        "too many steps, blocks, handlers, exceptions or policies",
        "A policy has at most 1024 steps, 1024 blocks, 256 handlers, 256 exceptions (those from outside counted), and 64 times "
        "`notify` with 32 arguments each. The files of a set have at most 10,000 policies, and 1024 exceptions outside of them, "
        "fewer with many thousands of policies.",
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
    Code(
        "ER0411",
        "`benign` before any step",
        "`benign` ends a partial in silence, so it stands behind a step that decides for its branch.",
        'path "p" within 5s { open {} ? write {} : benign }\n',
        'path "p" within 5s { open {} ? write {} : { exit {} benign } }\n',
    ),
    Code(
        "ER0412",
        "a branch of `either` needs a step",
        "The first event that one of the branches awaits decides which is taken, so each begins with a step, and not all of its "
        "steps may be left out.",
        'path "p" within 5s { open {} either { write {} } or { } }\n',
        'path "p" within 5s { open {} either { write {} } or { connect {} } }\n',
    ),
    Code(
        "ER0413",
        "no way ends in a match",
        "Every way through the policy ends in `benign`, and no handler waits for a step.",
        'path "p" within 5s { open {} exec {} benign }\n',
        'path "p" within 5s { open {} ? { exec {} benign } : write {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0414",
        "an `until` that cancels nothing",
        "`until` cancels partials that wait between two steps: of the policy, or of the block that it stands in.",
        'path "p" { open {} until exit {} }\n',
        'path "p" within 5s { open {} write {} until exec {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0415",
        "the policies may hold too much",
        "What policies can count with is known before they run: for each partial, 8 bytes for each event that it may count, and "
        "72 for each distinct value; times the most partials of the policy (`max_partials`), of which all policies together have "
        "20,000. It must fit `policyd.state_budget_mib`, 16 MiB by default; policies that are disabled count too. Evidence has "
        "a bound of its own, for all policies together. Here 703 MiB would be needed.",
        'path "p" within 1m { open {} times 10000 distinct path }\n',
        'path "p" within 1m max_partials 16 { open {} times 10000 distinct path }\n',
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
    Code(
        "ER0514",
        "an exception that has ended",
        "Its last day is over, so it holds nothing back any more; days are those of UTC.",
        'path "p" { exec {} }\nexception for "p" "migration" until "2020-03-01" { uid = 0 }\n',
        'path "p" { exec {} }\nexception for "p" "migration" until "2120-03-01" { uid = 0 }\n',
        Level.WARNING,
    ),
    Code(
        "ER0515",
        "an exception for no policy",
        "None of the policies that are loaded together has such a name; `*` stands for any characters in it, `?` for one.",
        'path "shell" { exec {} }\nexception for "shel" "ours" { uid = 0 }\n',
        'path "shell" { exec {} }\nexception for "shel*" "ours" { uid = 0 }\n',
        Level.WARNING,
    ),
)
