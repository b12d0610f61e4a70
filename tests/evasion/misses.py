"""Tricks that are known to go unseen, and why. docs/threat-model.md lists them too; a test compares both.

A trick that is detected here and still on the list fails the bench, until the list is mended.
"""

from __future__ import annotations

from typing import Final

#: Reasons, and the tricks that each is the reason for.
REASONS: Final = (
    (
        "A policy's exact paths are compared with the name the file was opened by, not yet with the file's identity. Nobody saw "
        "the other name being made, or it was made by a mount, which is no event yet.",
        (
            "names/hard_link_before",
            "names/bind_file",
            "names/bind_folder",
            "names/other_mount_namespace",
            "names/detached_tree",
            "names/lazy_umount",
            "names/pivot_to_it",
        ),
    ),
    (
        "The path of a link or rename is the name put behind the directory where it begins; a symbolic link in the middle of it "
        "is not resolved, and the event says so (`path_unresolved`).",
        ("names/hard_link_by_symlink",),
    ),
    (
        "A file below an overlay file system has another name and another identity there; only the mount, which is no event yet, "
        "could tell.",
        ("names/overlay", "runs/overlaid"),
    ),
    (
        "What io_uring does is no event yet: neither opening, connecting and sending, nor acting with credentials from before.",
        (
            "hands/uring_open",
            "hands/uring_open_polled",
            "hands/uring_connect",
            "hands/uring_all",
            "runs/uring_drops",
            "attach/uring_opens_mem",
            "root/uring_personality",
        ),
    ),
    (
        "The descriptor comes without an open: from another process (pidfd_getfd), from the kernel (fanotify), or by "
        "open_by_handle_at, which isn't among the opens yet. `read`, by which its use could be seen, is no event yet.",
        ("hands/pidfd_getfd_stolen", "hands/fanotify_gives_it", "hands/file_handle"),
    ),
    (
        "A list of programs says which program may read, not for whom it works: here it hands the secret to its starter.",
        ("hands/reader_asked",),
    ),
    ("sendmmsg is not among the writes yet.", ("ways/sendmmsg_on_connected", "ways/datagrams_by_sendmmsg")),
    ("Kernel AIO (io_submit) is not among the writes yet.", ("ways/kernel_aio",)),
    ("Of what the 32-bit socketcall can do, only connect is seen yet.", ("ways/int80_send",)),
    (
        "What a write goes to is looked up as the call returns. One that has to wait gives a second thread the time to put "
        "another file in the descriptor's place.",
        ("ways/descriptor_swapped",),
    ),
    (
        "Reader and sender have neither line nor session in common. `key entry` or `key host` takes them together, and much "
        "else.",
        ("ways/through_a_broker", "kin/parent_sends_other_session"),
    ),
    (
        "The pool of partials is bounded, and who fills it pushes out a partial of its own. Alerts then say `degraded`.",
        ("kin/crowd_between",),
    ),
    ("The policy's time is over: whoever waits longer than `within` evades it.", ("kin/slow_outside_window",)),
    (
        "What an interpreter runs is data to the kernel. Here it opens nothing itself: the script is its standard input, or an "
        "argument.",
        ("runs/script_from_stdin", "runs/script_as_text"),
    ),
    (
        "Code that is mapped, or read into memory that may be executed, is no exec. mmap and mprotect with PROT_EXEC are no "
        "events yet.",
        ("runs/code_mapped", "runs/code_in_plain_memory", "runs/library_preloaded"),
    ),
    (
        "process_vm_writev and process_vm_readv are no events yet.",
        ("attach/memory_written", "hands/memory_of_a_reader"),
    ),
    ("The file was made where no policy looks, and comes in by a mount, which is no event yet.", ("runs/mounted_in",)),
    (
        "The name by which /proc/PID/mem is opened is that of the bind mount, and mount is no event yet.",
        ("attach/proc_mem_bound",),
    ),
    ("setfsuid is not among the set*id calls yet.", ("root/file_access_only",)),
    ("capset is no event yet.", ("root/capabilities_only",)),
)

MISSES: Final[dict[str, str]] = {trick: reason for reason, tricks in REASONS for trick in tricks}


def listing() -> str:
    """The table as docs/threat-model.md has it."""
    rows = [f"| {', '.join(f'`{trick}`' for trick in tricks)} | {reason} |" for reason, tricks in REASONS]
    return "\n".join(["| what goes unseen | why |", "|---|---|", *rows])
