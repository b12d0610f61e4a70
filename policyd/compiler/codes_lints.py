"""More codes 05 (lints): steps that follow from others, keys, references, and what a kill rests on."""

from __future__ import annotations

from policyd.compiler.code_entry import Code
from policyd.compiler.diagnostics import Level

FLOW_LINTS: tuple[Code, ...] = (
    Code(
        "ER0516",
        "what meets the step cancels",
        "An event that cancels and would also advance, cancels. Where every event that meets a step is one that `until` "
        "names, the step is never met.",
        'path "p" within 5s key process { open {} write { path = "/tmp/x" } until write { path startswith "/tmp/" } }\n',
        'path "p" within 5s key process { open {} write { path = "/tmp/x" } until write { path startswith "/var/" } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0517",
        "an exception for every match",
        "What the exception asks for, the last step asks for already. So it holds whenever the policy would match.",
        'path "p" { open { path = "/etc/shadow", uid = 0 } except "root may" { uid = 0 } }\n',
        'path "p" { open { path = "/etc/shadow" } except "root may" { uid = 0 } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0518",
        "the step follows from the one before",
        "Every event that meets the step before meets this one too. So two events of the first kind are enough, which is "
        "easier to read as a count; more often the second step should have asked for something else.",
        'path "p" within 5s key process { open { path = "/etc/shadow" } open { path startswith "/etc/" } }\n',
        'path "p" within 5s key process { open { path startswith "/etc/" } open { path = "/etc/shadow" } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0519",
        "no key",
        "All steps must then be done by one and the same process; a child that does the second step is another one. `key "
        "process` says so; `key tree`, `key session` or `by FIELD` behind the steps say something else.",
        'path "p" within 5s { open { path = "/etc/shadow" } connect {} }\n',
        'path "p" within 5s key tree { open { path = "/etc/shadow" } connect {} }\n',
        Level.NOTE,
    ),
    Code(
        "ER0520",
        "a guard that anybody can pass",
        "Threads give themselves any name (`comm`), and processes any arguments when they start. What is let through by "
        "these alone is let through for an attacker too.",
        'path "p" { open { path = "/etc/shadow", comm not in ["passwd", "sshd"] } }\n',
        'path "p" { open { path = "/etc/shadow", exe not in ["/usr/bin/passwd", "/usr/sbin/sshd"] } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0521",
        "a reference that a decoy can replace",
        "Under `mode latest` a newer event of the same key takes an older one's place, and under `mode first` it is "
        "dropped. So a later step compares with one of them only, and whoever knows can choose which. `mode all N` "
        "remembers N.",
        'path "p" within 5s key process { open {} as o write { path = o.path } }\n',
        'path "p" within 5s key process mode all 4 { open {} as o write { path = o.path } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0522",
        "a kill that rests on a value which may be cut",
        "`content` is captured up to 256 bytes, arguments up to 4 KiB. Where a match rests on a value that was cut, it is"
        " alerted as such and never kills: so whoever puts enough in front isn't killed.",
        'path "p" response enforce { write { content contains "evil" } except { uid = 0 } on match { kill } }\n',
        'path "p" response enforce { write { path = "/etc/ld.so.preload" } except { uid = 0 } on match { kill } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0523",
        "a kill without an exception",
        "Nearly everything is done rightly by somebody: package managers, backups, administrators. A policy that kills "
        "says for whom it doesn't hold.",
        'path "p" response enforce { open { path = "/etc/shadow" } on match { kill } }\n',
        'path "p" response enforce { open { path = "/etc/shadow" } except { exe = "/usr/bin/restic" } on match { kill } }\n',
        Level.NOTE,
    ),
    Code(
        "ER0524",
        "a name hides another",
        "A list, value or macro of a policy hides the file's of the same name, and a macro's parameter both. In the "
        "policy, what is added to the file's list from elsewhere then changes nothing.",
        'list A = ["sh"]\npath "p" { list A = ["bash"] exec { name in A } }\n',
        'list A = ["sh"]\npath "p" { list A += ["bash"] exec { name in A } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0525",
        "a tree that begins with a count",
        "A tree belongs to the process that does the first step. Where that is a count, each process counts its own "
        "events, and the tree is that of the one whose count is reached.",
        'path "p" within 5s key tree { open {} times 5 connect {} }\n',
        'path "p" within 5s key session { open {} times 5 connect {} }\n',
        Level.WARNING,
    ),
    Code(
        "ER0526",
        "a kill on an attempt",
        "Calls are told when they have returned, also those that failed: `ret` says which. Without a test of it, an "
        "attempt kills like the deed. That may be meant, where nobody tries by mistake; `ret exists` says so. A connect "
        "that goes on in the background returns EINPROGRESS, and is none that failed.",
        'path "p" response enforce { unlink { path = "/srv/book" } except { uid = 0 } on match { kill } }\n',
        'path "p" response enforce { unlink { path = "/srv/book", ret = 0 } except { uid = 0 } on match { kill } }\n',
        Level.WARNING,
    ),
    Code(
        "ER0527",
        "a kill on what the caller says",
        "The bytes of a write, and names and texts as they were passed, are read from the caller's memory when the call "
        "returns. A second thread can have put something else there since the kernel read it, so whoever knows evades such "
        "a test. What the kernel used (`path`, `file.id`, the addresses of a connection) can't be changed that way.",
        'path "p" response enforce { write { content = "x", ret > 0 } except { uid = 0 } on match { kill } }\n',
        'path "p" response enforce { write { path = "/etc/x", ret > 0 } except { uid = 0 } on match { kill } }\n',
        Level.NOTE,
    ),
)
