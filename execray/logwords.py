"""Every event that the daemons may log: one row each, as the catalogue has one for each event of the kernel.

A test compares the rows with the code, both ways; execray.logreference makes the page of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from execray.logs import BURST, WINDOW_S

TRACERD: Final = ("tracerd",)
POLICYD: Final = ("policyd",)
ENFORCER: Final = ("enforcer",)
ALL: Final = ("tracerd", "policyd", "enforcer")


class Word(NamedTuple):
    """One event: who logs it and how urgent it is, the keys it may have, what it means, and what to do."""

    daemons: tuple[str, ...]
    level: str  # critical, error, warning, info; any: as the library says
    keys: tuple[str, ...]
    meaning: str
    todo: str = ""


#: What each key stands for, in every event.
KEYS: Final[dict[str, str]] = {
    "account": "a user's name",
    "by": "who carried an order out: `enforcer`, `policyd`",
    "bytes": "size",
    "content": "whether the bytes of events are wanted, or which",
    "count": "how many",
    "disabled": "how many policies are switched off",
    "events": "events since the start; or how many kinds are wanted",
    "file": "path of a file",
    "generation": "number of the loaded set of policies; it grows with each load",
    "hidden": "whether the process's events are left out from now on",
    "hint": "what to do about it",
    "key": "key of the configuration",
    "killed": "kills since the start",
    "kind": "of a plug-in: `sink`, `action`",
    "logger": "which library",
    "mode": "of this host: `audit`, `enforce`",
    "ms": "how long it took, in milliseconds",
    "names": "of policies, or of events",
    "next_start_s": "seconds until it is started again",
    "of": "the event that is meant",
    "left_out": "how many of them are too many",
    "order_id": "the order; alert and audit log name it too",
    "package": "name and version of an installed package",
    "packets": "packets recorded",
    "paths": "how many exact paths are matched by file too",
    "peer": "process id at the other end of a connection, when it connected",
    "pid": "process id",
    "plugin": "name of a plug-in",
    "plugins": "names of plug-ins",
    "policies": "how many policies run",
    "policy": "name of a policy",
    "processes": "processes known at the start",
    "reason": "why, in words",
    "result": "of an order, as in its outcome",
    "role": "what a daemon registers as",
    "silent_s": "seconds since the last sign of life",
    "sink": "where alerts go: `file`, `stdout`, `journal`",
    "socket": "path of a socket",
    "start_ns": "when a process started, CLOCK_BOOTTIME in nanoseconds",
    "stream": "id of tracerd's event stream; another one after its restart",
    "tcpdump": "path of tcpdump; not there: no captures",
    "text": "what a library says",
    "trace": "where in the program it happened",
    "tracerd": "tracerd's process id",
    "uid": "user id of the process at the other end",
    "version": "of ExecRay",
    "waiting": "alerts that wait in memory",
}

WORDS: Final[dict[str, Word]] = {
    # --- critical and error: somebody has to look
    "bug": Word(
        ALL,
        "critical",
        ("trace",),
        "A mistake in ExecRay itself. The daemon ends, and its service manager starts it again.",
        "Report it with the line's `trace`.",
    ),
    "gave up": Word(
        ALL,
        "error",
        ("reason", "hint"),
        "The daemon could not start, or not go on, and ended. Without a journal, stderr has it as `error:` and `hint:`.",
        "What `hint` says.",
    ),
    "no sign of life": Word(
        ALL,
        "error",
        ("reason",),
        "Work is stuck: for half the time that the service manager waits, nothing got done. It restarts the daemon soon.",
        "If it comes again: `reason` names the part that hangs, such as the disk or a hook.",
    ),
    "package refused": Word(
        ("tracerd", "policyd"),
        "error",
        ("package", "reason"),
        "An installed package would add events, and can't: it is left out, and all else works.",
        "`reason` says what is wrong with it; after a change restart tracerd and policyd.",
    ),
    "package adds events": Word(
        ("tracerd", "policyd"),
        "info",
        ("package", "names"),
        "An installed package adds these events, or calls of them.",
    ),
    "events differ": Word(
        POLICYD,
        "error",
        ("of", "reason"),
        "tracerd and policyd have not read the same packages: policies that name this event don't match.",
        "Restart the daemon that `reason` names, or both.",
    ),
    "hook refused": Word(
        TRACERD,
        "error",
        ("reason",),
        "The kernel didn't take a program that some policy needs: its events are not seen.",
        "`execray-ctl doctor`.",
    ),
    "can't hide": Word(
        TRACERD,
        "error",
        ("peer", "reason"),
        "A daemon's own events could not be left out. They cost time, and policies may match them.",
        "Restart tracerd.",
    ),
    "policies refused": Word(
        POLICYD,
        "error",
        ("generation", "policies", "ms", "reason"),
        "Some policy has a mistake, or can't be trusted. The set that ran before goes on; at the start, none runs.",
        "Mend what `reason` shows; `execray-ctl policy check`, then `execray-ctl reload`.",
    ),
    "alerts not written in time": Word(
        POLICYD,
        "error",
        (),
        "policyd was told to stop, and could not write every alert. tracerd sends their events again to the next policyd.",
        "Look whether the disk is slow.",
    ),
    "alert sink failed": Word(
        POLICYD,
        "error",
        ("sink", "reason"),
        "A sink did not take an alert. Said once; `execray-ctl status` counts.",
        "Mend the sink, or take it out of `policyd.sinks`.",
    ),
    "plug-in ended": Word(
        POLICYD,
        "error",
        ("plugin", "kind", "reason", "next_start_s"),
        "A plug-in's process crashed, gave no answer in time or could not start. It is started again, and nothing waits for it.",
        "`execray-ctl status` has its own words; mend it, its settings, or `policyd.plugin_timeout_s`.",
    ),
    "alert file refused": Word(
        POLICYD,
        "error",
        ("reason", "waiting"),
        "Alerts could not be written to the file. The latest 256 wait in memory, and are tried again with the next.",
        "Make room on the disk, mend the folder's owner.",
    ),
    "audit line lost": Word(
        ENFORCER,
        "error",
        ("file", "reason"),
        "The enforcer could not write down an order. Orders are carried out all the same. Said once; `status` counts.",
        "Make room on the disk, mend the folder's owner.",
    ),
    # --- warning: something is not as it should be, or ought to be known
    "kill": Word(
        POLICYD,
        "warning",
        ("order_id", "result", "by", "reason"),
        "An order to kill was answered: `killed`, `gone`, `refused`, `would_kill` or `failed`.",
        "The alert has the story.",
    ),
    "plug-in failed an item": Word(
        POLICYD,
        "warning",
        ("plugin", "kind", "reason"),
        "A plug-in could not do what it is for with an alert or request. Said once in 10 s; `execray-ctl status` counts.",
        "`execray-ctl status` has its own words.",
    ),
    "unused plug-in settings": Word(
        POLICYD,
        "warning",
        ("plugins",),
        "`policyd.plugins` has settings for names that are neither in `policyd.sinks` nor in `policyd.actions`.",
        "Mend the name, or list it.",
    ),
    "mode changed": Word(
        ("policyd", "enforcer"),
        "warning",
        ("mode", "uid", "peer"),
        "Somebody set over the control socket how far any policy may go on this host.",
        "Know who it was.",
    ),
    "policies disabled": Word(
        POLICYD,
        "warning",
        ("names", "uid", "peer"),
        "Somebody asked over the control socket that all policies run but these.",
        "Know who it was.",
    ),
    "tails ended": Word(
        POLICYD,
        "warning",
        ("count", "reason"),
        "Tails of live events that needed more of the sensor than policies do were ended, so that detection doesn't suffer.",
        "Look at fewer kinds of event (`--type`), or when the host is less busy.",
    ),
    "no event stream": Word(
        POLICYD,
        "warning",
        ("reason", "socket"),
        "policyd has no connection to tracerd, and sees nothing. tracerd keeps events for it, if it lives. Said once a reason.",
        "Start tracerd; `execray-ctl status`.",
    ),
    "sensor not live": Word(
        POLICYD,
        "warning",
        ("silent_s",),
        "tracerd is connected, and gives no sign of life.",
        "`execray-ctl status`: is tracerd stuck, or the host overloaded?",
    ),
    "sensor live again": Word(POLICYD, "warning", (), "tracerd gives signs of life again."),
    "no enforcer": Word(
        POLICYD,
        "warning",
        ("reason",),
        "There is no connection to the enforcer: policyd kills directly, and nothing is captured. Said once a reason.",
        "Start the enforcer.",
    ),
    "no capture": Word(
        ENFORCER,
        "warning",
        ("order_id", "reason"),
        "Traffic could not be recorded.",
        "Install tcpdump; give the enforcer CAP_NET_RAW.",
    ),
    "tcpdump doesn't stop": Word(
        ENFORCER,
        "warning",
        ("pid",),
        "tcpdump did not end when it was asked to, and is killed: its file may lack its end.",
    ),
    "order peer refused": Word(
        ENFORCER,
        "warning",
        ("reason", "uid", "peer"),
        "Somebody who may not order connected to the order socket, or too many did.",
        "If it is policyd: `enforcer.orderers`. If not, find out who it is.",
    ),
    "bad order": Word(
        ENFORCER,
        "warning",
        ("reason", "uid", "peer"),
        "A peer sent what is no order; its connection was closed. The audit log has how it began.",
        "Are all daemons of one version?",
    ),
    "control peer refused": Word(
        ALL,
        "warning",
        ("reason", "uid", "peer"),
        "Somebody who may not connected to a control socket, or too many did.",
        "Put operators into the group `execray`.",
    ),
    "bad control request": Word(
        ALL,
        "warning",
        ("reason", "uid", "peer"),
        "A peer of a control socket broke the protocol; its connection was closed.",
        "Is execray-ctl of the daemons' version?",
    ),
    "subscriber refused": Word(
        TRACERD,
        "warning",
        ("peer", "uid"),
        "Somebody who may not see events connected to the stream, or too many did.",
        "If it is policyd: `tracerd.subscribers`. If not, find out who it is.",
    ),
    "subscriber broke the protocol": Word(
        TRACERD,
        "warning",
        ("peer", "reason"),
        "What should be policyd sent what is no frame; its connection was closed.",
        "Are all daemons of one version?",
    ),
    "subscriber reports": Word(TRACERD, "warning", ("peer", "reason"), "policyd closed the stream, and said why."),
    "subscriber gone": Word(
        TRACERD,
        "warning",
        ("peer",),
        "policyd went away. Events are kept for it, up to `tracerd.buffer_mib`.",
        "Nothing, if it is restarted; else start it.",
    ),
    "registered as ours": Word(
        TRACERD,
        "warning",
        ("peer", "uid", "role", "hidden"),
        "A daemon asked that its own events be left out. Nothing that process does is seen from here on.",
        "`peer` should be policyd or the enforcer.",
    ),
    "no longer ours": Word(TRACERD, "warning", ("peer",), "That daemon went away; its events are events again."),
    "no such account": Word(
        ("tracerd", "enforcer"),
        "warning",
        ("key", "account"),
        "A user that the configuration names doesn't exist, so it permits nobody.",
        "Create the user, or mend the key.",
    ),
    "notify failed": Word(
        ALL,
        "warning",
        ("reason",),
        "The service manager could not be told how it is.",
        "If often: is the host overloaded?",
    ),
    "lines held back": Word(
        ALL,
        "warning",
        ("of", "count"),
        f"An event came more than {BURST} times in {WINDOW_S:g} s, and so many lines of it were left out.",
        "Look at the lines that are there; a policy's `log` may be too chatty.",
    ),
    "lines lost": Word(
        ALL,
        "warning",
        ("count",),
        "Whoever reads the log was too slow, and so many lines before this one were dropped.",
        "Look at journald, or at the program that reads stderr.",
    ),
    "kills in the kernel suspended": Word(
        TRACERD,
        "error",
        ("reason",),
        "The budget of the kernel's kills can't be looked after, so it kills nobody; the enforcer does.",
        "It is tried again every second. Where it goes on, restart tracerd.",
    ),
    "killed in the kernel, and no match": Word(
        POLICYD,
        "error",
        ("policy", "pid", "start_ns"),
        "The kernel killed a process for a policy that didn't match here: its sequence was evicted here (`evicted` in status),"
        " or the policy was just reloaded, events were lost on the way, or policyd was restarted in the midst of it. Else it is a"
        " mistake in ExecRay. An alert was made of the last call alone, unless the policy is unloaded: then its tag is shown.",
        "where none of that was so, set `tracerd.inline` to `off`, and report it with the policy",
    ),
    "no room for policies to kill in the kernel": Word(
        POLICYD,
        "warning",
        ("policies", "left_out"),
        "So many policies can kill in the kernel, and for others there was no room: the enforcer kills for those.",
        "nothing need be done; `execray-ctl status --json` names them under `inline`",
    ),
    "gate would have lost an event": Word(
        POLICYD,
        "error",
        ("policy", "of"),
        "In shadow mode: the kernel gate would have dropped an event that is evidence of what the policy found. That is a mistake"
        " in ExecRay.",
        "leave `tracerd.gate` at `shadow` or `off`, and report it with the policy",
    ),
    "paths matched by name only": Word(
        POLICYD,
        "warning",
        ("paths", "left_out"),
        "The policies name more exact paths than can be matched by file too; those of the last policies aren't.",
        "switch off policies that this host doesn't need",
    ),
    # --- info: how it goes
    "started": Word(ALL, "info", ("version", "mode", "policies", "processes", "tcpdump"), "The daemon is ready."),
    "stopped": Word(ALL, "info", ("events", "killed"), "The daemon ended in order."),
    "policies loaded": Word(POLICYD, "info", ("generation", "policies", "ms"), "All policies were read, and run."),
    "policies enabled or disabled": Word(
        POLICYD, "info", ("generation", "policies", "disabled"), "Another choice of the loaded policies runs."
    ),
    "reload asked for": Word(POLICYD, "info", ("uid", "peer"), "Somebody asked for it over the control socket."),
    "events followed": Word(
        POLICYD, "info", ("uid", "peer", "content"), "Somebody began to look at live events (`execray-ctl events`)."
    ),
    "events no longer followed": Word(POLICYD, "info", ("uid", "peer"), "And ended."),
    "policy log": Word(POLICYD, "info", ("policy", "pid", "start_ns"), "A policy's action `log`."),
    "plug-in started": Word(
        POLICYD, "info", ("plugin", "kind", "package"), "A plug-in's process is ready, and gets what waits for it."
    ),
    "event stream connected": Word(POLICYD, "info", ("stream", "tracerd"), "policyd sees events from here on."),
    "captured": Word(POLICYD, "info", ("order_id", "file", "packets", "bytes"), "Traffic was recorded."),
    "subscribed": Word(
        TRACERD,
        "info",
        ("peer", "events", "content"),
        "policyd said what it needs; only the hooks for that are attached.",
    ),
    "gate settled": Word(
        TRACERD,
        "info",
        ("count",),
        "policyd said what had begun before the plan came, in how many places; the gate no longer takes everything to have.",
    ),
    "not registered": Word(
        ("policyd", "enforcer"),
        "info",
        ("reason",),
        "tracerd doesn't leave out this daemon's events yet. It is tried again each second; said once.",
        "If it stays so: `tracerd.registrants`.",
    ),
    "registered": Word(("policyd", "enforcer"), "info", (), "tracerd leaves out this daemon's own events."),
    "tracerd went away": Word(("policyd", "enforcer"), "info", (), "The registration ended with it."),
    "library": Word(
        ALL,
        "any",
        ("logger", "text"),
        "A library that ExecRay uses said something, in its own words.",
        "If it is an error, report it.",
    ),
}
