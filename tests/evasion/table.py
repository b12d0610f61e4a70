"""The tricks of the bench, and which of them are known to go unseen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Goal:
    """A forbidden thing: in words, and the policies of evasion.policy that are there for it."""

    words: str
    policies: frozenset[str]


THEFT: Final = Goal(
    "a secret is read and leaves",
    frozenset(
        {
            "secret_leaves",
            "secret_leaves_login",
            "secret_gets_another_name",
            "listed_reader_talks",
            "reads_another_memory",
        }
    ),
)
DROP: Final = Goal(
    "a dropped program runs",
    frozenset(
        {"dropped_and_run", "dropped_file_runs", "dropped_script_runs", "runs_from_memory", "runs_from_far_down"}
    ),
)
HOLD: Final = Goal("takes hold of another process", frozenset({"takes_hold_of_another", "writes_another_memory"}))
ROOT: Final = Goal("becomes root", frozenset({"becomes_root", "runs_as_root", "opens_as_root", "may_what_root_may"}))


#: For those that look like tricks and aren't: no policy may speak.
NOTHING: Final = Goal("nothing forbidden", THEFT.policies | DROP.policies | HOLD.policies | ROOT.policies)


@dataclass(frozen=True, slots=True)
class Trick:
    """One of them.

    program: the file in tricks/ that does it. behind: what it hides behind. lacking: what a host may lack for it; any other
    reason why it can't be done is a fault of the bench.
    """

    program: str
    name: str
    goal: Goal
    behind: str
    lacking: str = ""

    @property
    def id(self) -> str:
        """How the tables call it."""
        return f"{self.program}/{self.name}"


_FAMILIES: Final = (
    (
        "names",
        THEFT,
        {
            "plain": "nothing: the control",
            "symlink_to_it": "a symbolic link",
            "symlink_chain": "39 symbolic links, one behind another",
            "hard_link": "a hard link that it makes",
            "hard_link_by_dots": "a hard link, the secret named by `..`",
            "hard_link_by_folder": "a hard link, the secret named relative to its folder's descriptor",
            "hard_link_by_symlink": "a hard link, the secret named through a symbolic link to its folder",
            "hard_link_of_descriptor": "a hard link, the secret named by a descriptor (O_PATH, AT_EMPTY_PATH)",
            "hard_link_before": "a hard link that has long been there",
            "dot_dot": "`..`, `.` and doubled slashes",
            "long_spelling": "a spelling of 4,095 bytes",
            "proc_self_root": "/proc/self/root",
            "proc_self_cwd": "/proc/self/cwd",
            "proc_self_fd": "/proc/self/fd of the folder",
            "directory_fd": "a name relative to a folder's descriptor",
            "opath_reopened": "O_PATH, then opened again through /proc/self/fd",
            "openat2_in_root": "openat2 with RESOLVE_IN_ROOT",
            "bind_file": "a bind mount of the file",
            "bind_relative": "a bind mount of the file, by a name relative to its folder",
            "bind_folder": "a bind mount of its folder",
            "other_mount_namespace": "another process's mount namespace",
            "detached_tree": "a mount that hangs nowhere (open_tree)",
            "lazy_umount": "a mount that was detached while in use",
            "overlay": "an overlay file system over its folder",
            "chroot_to_it": "chroot",
            "pivot_to_it": "pivot_root",
            "file_renamed": "the file is renamed and put back",
            "folder_renamed": "its folder is renamed and put back",
            "path_rewritten": "a second thread rewrites the path",
        },
    ),
    (
        "hands",
        THEFT,
        {
            "fd_from_stranger": "a descriptor that another process passes over a Unix socket",
            "pidfd_getfd_stolen": "a descriptor taken from a listed program (pidfd_getfd)",
            "stolen_and_mapped": "pidfd_getfd, and mmap instead of read",
            "stolen_and_sendfile": "pidfd_getfd, and sendfile instead of read",
            "proc_fd_of_another": "/proc/PID/fd of a listed program",
            "fanotify_gives_it": "a descriptor that fanotify hands out when a listed program opens the file",
            "fanotify_and_sendfile": "fanotify, and sendfile instead of read",
            "file_handle": "open_by_handle_at",
            "uring_open": "opened by io_uring",
            "uring_open_polled": "opened by io_uring's kernel thread",
            "uring_own_table": "opened by io_uring into its own table, and read from there",
            "uring_silent": "opened and read by io_uring, without completions",
            "uring_no_room": "opened and read by io_uring, whose completions find no room",
            "uring_links": "a hard link made by io_uring",
            "uring_read": "read by io_uring",
            "uring_connect": "connected and sent by io_uring",
            "uring_all": "opened, read, connected and sent by io_uring",
            "memory_of_a_reader": "read from the memory of a listed program (process_vm_readv)",
            "proc_mem_of_a_reader": "read from the memory of a listed program (/proc/PID/mem)",
            "mapped": "mmap instead of read",
            "reader_preloaded": "LD_PRELOAD into a listed program",
            "reader_impersonated": "its own program bind-mounted over a listed one's name",
            "reader_asked": "a listed program that prints the secret",
        },
    ),
    (
        "ways",
        THEFT,
        {
            "sendfile_out": "sendfile",
            "splice_out": "splice through a pipe",
            "copied_then_sent": "copy_file_range into another file, which is sent",
            "connected_before": "a connection made before the secret is read",
            "sendmmsg_on_connected": "sendmmsg on such a connection",
            "vmspliced": "vmsplice and splice on such a connection",
            "datagram": "sendto, without a connection",
            "datagrams_by_sendmmsg": "sendmmsg, without a connection",
            "fast_open": "TCP fast open: data with the first packet, no connect",
            "fetched_from_us": "it listens, and is called",
            "through_a_broker": "a FIFO to a process of another line and session, which sends",
            "descriptor_swapped": "a second thread puts /dev/null in the socket's place while the write waits",
            "pwritev2_out": "pwritev2 on a connection made before",
            "kernel_aio": "io_submit on a connection made before",
            "int80_open": "the 32-bit open",
            "int80_connect": "the 32-bit connect",
            "int80_socketcall": "the 32-bit socketcall",
            "int80_send": "the 32-bit socketcall on a connection made before",
            "x32_open": "the x32 open",
        },
    ),
    (
        "kin",
        THEFT,
        {
            "child_sends": "a child sends",
            "double_fork": "a grandchild sends, the one between is gone",
            "new_session": "a grandchild in another session and process group sends",
            "exec_chain": "six execs between the steps",
            "vfork_reads": "a vfork child reads",
            "vfork_sends": "a vfork child sends",
            "clone_parent": "a child that is its sibling sends (CLONE_PARENT)",
            "shared_descriptors": "a process with the same descriptors opens (CLONE_FILES)",
            "parent_sends": "a child reads, its parent sends",
            "parent_sends_other_session": "a child in another session reads, its parent sends",
            "parent_sends_other_login": "a grandchild of another login reads, hands it up, and is no ancestor of the sender",
            "thread_hop": "one thread reads, another sends",
            "leader_gone": "the first thread is gone when another sends",
            "pid_reused": "the reader's pid is given to the sender",
            "pid_namespace": "the sender is pid 2 of another namespace",
        },
    ),
    (
        "cover",
        THEFT,
        {
            "forged_names": "a forged comm and argv[0]",
            "listed_name_copied": "a copy of itself with a listed program's name",
            "forged_exe": "/proc/self/exe set to a listed program (PR_SET_MM_MAP)",
            "noise_between": "20,000 other opens between the steps",
            "crowd_between": "1,500 sequences of the same kind, in other sessions, between the steps",
            "crowd_of_logins": "1,100 sequences of the same kind, each of another login, between the steps",
            "slow_inside_window": "2.5 s between the steps, of 5 s",
            "slow_outside_window": "5.3 s between the steps, of 5 s",
        },
    ),
    (
        "runs",
        DROP,
        {
            "plain": "nothing: the control",
            "written_over": "a file that was there before, written over",
            "run_by_symlink": "a symbolic link",
            "run_by_hard_link": "a hard link elsewhere",
            "moved_away": "renamed out of the scratch folder",
            "moved_in": "made elsewhere, renamed into the scratch folder",
            "linked_in": "made elsewhere, linked into the scratch folder",
            "exchanged_in": "made elsewhere, exchanged with a file in the scratch folder",
            "mounted_in": "made elsewhere, mounted over a file in the scratch folder",
            "execveat_empty": "execveat with an empty path",
            "execveat_folder": "execveat relative to the folder's descriptor",
            "proc_fd_run": "/proc/self/fd",
            "deleted": "deleted before it runs",
            "nameless": "a file without a name (O_TMPFILE)",
            "memory_file": "a file in memory (memfd_create)",
            "bound_elsewhere": "a bind mount elsewhere",
            "overlaid": "an overlay file system over the scratch folder",
            "chrooted": "chroot",
            "deep_folders": "150 folders deep",
            "argv_rewritten": "a second thread rewrites the arguments",
            "thread_runs": "a second thread calls exec",
            "vfork_runs": "a vfork child runs it",
            "grandchild_runs": "a grandchild in another session runs it",
            "stranger_runs": "dropped by a process in another session, run by one that isn't its descendant",
            "clone_parent_runs": "a child that is its sibling runs it (CLONE_PARENT)",
            "uring_drops": "made and written by io_uring",
            "int80_run": "the 32-bit execve",
        },
    ),
    (
        "code",
        DROP,
        {
            "script": "a script that names its interpreter",
            "interpreter_dropped": "a script elsewhere, whose interpreter was dropped",
            "script_as_text": "a script's text as argument of a shell",
            "script_as_argument": "a script as argument of a shell",
            "script_by_relative_name": "a script as argument of a shell, by its name in the working directory",
            "script_from_stdin": "a script as a shell's standard input",
            "renamed_interpreter": "a script as argument of a copied, renamed shell",
            "loader_asked": "the dynamic loader as the program",
            "code_mapped": "machine code, mapped and jumped to",
            "code_in_plain_memory": "machine code, read into executable memory and jumped to",
            "code_made_executable": "machine code, read into memory that is made executable then (mprotect)",
            "code_from_memory_file": "machine code, mapped from a file in memory",
            "library_preloaded": "a library, preloaded into a program of the system's",
        },
    ),
    (
        "attach",
        HOLD,
        {
            "plain": "nothing: the control",
            "seized": "PTRACE_SEIZE",
            "thread_attaches": "a second thread attaches",
            "grandchild_attaches": "a grandchild in another session attaches",
            "int80_attaches": "the 32-bit ptrace",
            "traced_from_birth": "PTRACE_TRACEME, then exec of the other program",
            "memory_written": "process_vm_writev",
            "proc_mem": "/proc/PID/mem",
            "proc_mem_of_thread": "/proc/PID/task/TID/mem",
            "proc_mem_by_folder": "a name relative to the descriptor of /proc/PID",
            "proc_mem_by_symlink": "a symbolic link to /proc/PID/mem",
            "proc_mem_other_proc": "another mount of proc",
            "proc_mem_bound": "a bind mount of /proc/PID/mem",
            "proc_mem_from_stranger": "/proc/PID/mem as a descriptor passed over a Unix socket",
            "uring_opens_mem": "/proc/PID/mem opened by io_uring",
            "uring_writes_mem": "/proc/PID/mem written by io_uring",
        },
    ),
    (
        "root",
        ROOT,
        {
            "plain": "nothing: the control",
            "setreuid_root": "setreuid, the effective id only",
            "saved_id_first": "setresuid, the saved id first",
            "int80_setuid": "the 32-bit setuid",
            "int80_setuid16": "the 16-bit setuid",
            "int80_setreuid16": "the 16-bit setreuid",
            "int80_setresuid16": "the 16-bit setresuid",
            "one_thread": "one thread only",
            "file_access_only": "setfsuid: for files only",
            "capabilities_only": "capabilities, without an id (capset)",
            "grandchild": "a grandchild in another session that is called `sudo`",
            "set_uid_program": "a set-uid program of its own",
            "capable_program": "a program of its own with CAP_SETUID",
            "uring_personality": "io_uring with credentials from before",
        },
    ),
    (
        "innocent",
        NOTHING,
        {
            "other_file_leaves": "the file beside the secret is read and sent",
            "secret_stays": "the secret is read, nothing is sent",
            "talks_then_reads": "something is sent, then the secret is read",
            "listed_program_reads": "a listed program reads the secret",
            "looked_at": "stat of the secret, something is sent",
            "scratch_is_scratch": "a file is written into the scratch folder, a program of the system's runs",
            "built_and_run": "a program is made elsewhere and run",
            "own_child_traced": "ptrace on its own child",
            "root_comes_back": "root, somebody else, root again",
            "root_leaves": "root becomes somebody else for good",
        },
    ),
)

#: What a host may lack, by trick.
_LACKING: Final = {
    "ways/x32_open": "a kernel with x32 system calls",
    "hands/file_handle": "a file system that gives out handles",
    "root/set_uid_program": "a file system that isn't mounted nosuid",
    "root/capable_program": "a file system with capabilities of files",
    "runs/nameless": "a file system with O_TMPFILE",
}

TRICKS: Final = tuple(
    Trick(program, name, goal, behind, _LACKING.get(f"{program}/{name}", ""))
    for program, goal, names in _FAMILIES
    for name, behind in names.items()
)
