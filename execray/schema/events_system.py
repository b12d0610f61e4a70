"""Events of the system itself: mounts, namespaces, memory that becomes code, and the kernel's more dangerous interfaces."""

from __future__ import annotations

from typing import Final

from execray.schema.field import Field, Flag
from execray.schema.kinds import Kind
from execray.schema.row import CALL, FILE_ID, FILE_NAMES, RAWPATH, RET, EventType, named_path, path

_PROT: Final = Field("prot", Kind.BITS, "Protection as passed; PROT_EXEC is always among it.", constants="PROT_")
_LEN: Final = Field("len", Kind.INT, "Length as passed.", ("length",), unit="bytes")


def _text(name: str, doc: str) -> Field:
    return Field(name, Kind.BYTES, doc, cut_by=Flag.RAWPATH_TRUNCATED, spoofable=True)


def _arguments(first: int, last: int) -> tuple[Field, ...]:
    return tuple(Field(f"arg{n}", Kind.INT, f"Argument {n}, counted from 0.") for n in range(first, last + 1))


MOUNT_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        20,
        "mount",
        "A file system was mounted, remounted, bound, moved or cloned, or that was tried.",
        (
            CALL,
            _text("source", "What is mounted, as passed; for move_mount and open_tree a name."),
            named_path("Where, as for unlink; for open_tree what is cloned."),
            RAWPATH,
            _text("fstype", "Kind of file system as passed, by mount(2) only."),
            Field("flags", Kind.BITS, "Flags as passed, by mount(2) only.", constants="MS_"),
            RET,
        ),
        calls=(
            "mount 165 21 $source name~ $fstype flags:u",
            "move_mount 429 429 _ $source dir name~ fstype=none flags=none",
            "open_tree 428 428 dir name~ _?1 source=none fstype=none flags=none",
        ),
        ecs_category="configuration",
        ecs_action="mount",
    ),
    EventType(
        21,
        "umount",
        "A file system was unmounted, or that was tried.",
        (
            named_path("Where it was mounted, as for unlink."),
            RAWPATH,
            Field("flags", Kind.BITS, "Flags as passed.", constants="MNT_"),
            RET,
        ),
        calls=("umount2 166 52 name~ flags", "umount - 22 name~ flags=0"),
        ecs_category="configuration",
        ecs_action="umount",
    ),
    EventType(
        22,
        "chroot",
        "A process changed its root folder, or tried.",
        (
            path("The root it has now; missing when the call failed."),
            RAWPATH,
            RET,
        ),
        calls=("chroot 161 61 name~ =root",),
        ecs_action="chroot",
    ),
    EventType(
        23,
        "pivot_root",
        "The root of a mount namespace was replaced, or that was tried.",
        (
            RAWPATH,
            _text("putold", "Where the old root goes, as passed."),
            RET,
        ),
        calls=("pivot_root 155 217 $rawpath $putold",),
        ecs_action="pivot_root",
    ),
    EventType(
        24,
        "setns",
        "A thread entered namespaces of others, or tried. After the call they are the actor's `ns.*`.",
        (
            Field("fd", Kind.INT, "A descriptor of a namespace, or of a process."),
            Field(
                "nstype", Kind.BITS, "Kinds of namespace as passed; 0: whatever the descriptor is.", constants="CLONE_"
            ),
            Field(
                "file.id",
                Kind.BYTES,
                "What the descriptor refers to; of a namespace, the inode is its number.",
                ecs="file.inode",
            ),
            RET,
        ),
        calls=("setns 308 346 fd nstype:u",),
        ecs_action="setns",
    ),
    EventType(
        25,
        "unshare",
        "A process made namespaces of its own, or tried. After the call they are the actor's `ns.*`.",
        (Field("flags", Kind.BITS, "What is to be its own.", constants="CLONE_"), RET),
        calls=("unshare 272 310 flags:u",),
        ecs_action="unshare",
    ),
)

SYSTEM_EVENTS: Final[tuple[EventType, ...]] = (
    *MOUNT_EVENTS,
    EventType(
        34,
        "prctl",
        "A process set or asked for one of its many options.",
        (Field("option", Kind.INT, "Which.", constants="PR_"), *_arguments(1, 4), RET),
        calls=("prctl 157 172 option arg1:q arg2:q arg3:q arg4:q",),
        ecs_action="prctl",
    ),
    EventType(
        35,
        "personality",
        "A process set its execution domain; 0xffffffff only asks.",
        (Field("persona", Kind.BITS, "The new value as passed.", constants="ADDR_"), RET),
        calls=("personality 135 136 persona:u",),
        ecs_action="personality",
    ),
    EventType(
        36,
        "keyctl",
        "A process used the kernel's keyrings: keyctl.",
        (Field("option", Kind.INT, "Which operation.", constants="KEYCTL_"), *_arguments(1, 4), RET),
        calls=("keyctl 250 288 option arg1:q arg2:q arg3:q arg4:q",),
        ecs_action="keyctl",
    ),
    EventType(
        38,
        "memfd_create",
        "A file that is in memory only was made, or that was tried.",
        (
            _text("memfd.name", "Its name."),
            Field("flags", Kind.BITS, "Flags as passed.", constants="MFD_"),
            RET,
        ),
        calls=("memfd_create 319 356 $memfd.name flags:u",),
        ecs_category="file",
        ecs_action="creation",
    ),
    EventType(
        39,
        "mmap",
        "Memory was mapped so that it can be executed, or that was tried. Other mappings are no event.",
        (
            path("The file that is mapped; missing for anonymous memory."),
            FILE_ID,
            FILE_NAMES,
            Field("addr", Kind.INT, "The address asked for; the one it got is `ret`."),
            _LEN,
            _PROT,
            Field("flags", Kind.BITS, "Flags as passed.", constants="MAP_"),
            Field("anon", Kind.BOOL, "Anonymous memory."),
            RET,
        ),
        calls=(
            "mmap 9 - addr:q len:q prot?4 flags:u fd anon=4&32",
            "mmap2 - 192 addr:q len:q prot?4 flags:u fd anon=4&32",
        ),
        ecs_category="process",
        ecs_action="mmap",
    ),
    EventType(
        40,
        "mprotect",
        "Memory was made executable, or that was tried. Other changes of protection are no event.",
        (Field("addr", Kind.INT, "Where it begins."), _LEN, _PROT, RET),
        calls=("mprotect 10 125 addr:q len:q prot?4", "pkey_mprotect 329 380 addr:q len:q prot?4"),
        ecs_category="process",
        ecs_action="mprotect",
    ),
    EventType(
        41,
        "bpf",
        "A process used bpf(2), or tried.",
        (Field("bpf.cmd", Kind.INT, "The command.", constants="BPF_"), RET),
        calls=("bpf 321 357 bpf.cmd",),
        ecs_action="bpf",
    ),
    EventType(
        42,
        "perf_event_open",
        "A process began to measure, or to hook into the kernel by perf events, or tried.",
        (
            Field("perf.pid", Kind.INT, "The process or thread as passed; 0: itself, -1: all."),
            Field("perf.cpu", Kind.INT, "The processor as passed; -1: all."),
            Field("flags", Kind.BITS, "Flags as passed.", constants="PERF_FLAG_"),
            RET,
        ),
        calls=("perf_event_open 298 336 _ perf.pid perf.cpu _ flags:u",),
        ecs_action="perf_event_open",
    ),
    EventType(
        43,
        "userfaultfd",
        "A process asked to handle page faults itself.",
        (Field("flags", Kind.BITS, "Flags as passed.", constants="UFFD_"), RET),
        calls=("userfaultfd 323 374 flags:u",),
        ecs_action="userfaultfd",
    ),
    EventType(
        44,
        "io_uring_setup",
        "A process made an io_uring, by which it can act without system calls.",
        (Field("entries", Kind.INT, "Its size as passed."), RET),
        calls=("io_uring_setup 425 425 entries:u",),
        ecs_action="io_uring_setup",
    ),
    EventType(
        45,
        "kexec",
        "Another kernel was loaded to be started, or that was tried.",
        (CALL, path("The kernel's file, where kexec_file_load names it by a descriptor."), RET),
        calls=("kexec_load 246 283 x32=528", "kexec_file_load 320 - fd"),
        ecs_category="driver",
        ecs_action="kexec",
    ),
    EventType(
        46,
        "module_load",
        "A kernel module was loaded, or that was tried.",
        (
            CALL,
            path("The module's file, where finit_module names it by a descriptor."),
            FILE_ID,
            FILE_NAMES,
            Field("from_memory", Kind.BOOL, "It came from the caller's memory: init_module."),
            _text("module.params", "Its parameters as passed."),
            RET,
        ),
        calls=(
            "init_module 175 128 _ _ $module.params from_memory=1",
            "finit_module 313 350 fd $module.params from_memory=0",
        ),
        ecs_category="driver",
        ecs_action="start",
    ),
    EventType(
        47,
        "module_unload",
        "A kernel module was removed, or that was tried.",
        (_text("module.name", "Its name."), Field("flags", Kind.BITS, "Flags as passed.", constants="O_"), RET),
        calls=("delete_module 176 129 $module.name flags",),
        ecs_category="driver",
        ecs_action="end",
    ),
    EventType(
        51,
        "fanotify_init",
        "A process asked to be told of what others do with files, or to decide it, or tried.",
        (
            Field("flags", Kind.BITS, "Flags as passed.", constants="FAN_CL"),
            Field("event_flags", Kind.BITS, "Open flags of the descriptors that it is to get.", constants="O_"),
            RET,
        ),
        calls=("fanotify_init 300 338 flags:u event_flags:u",),
        ecs_category="configuration",
        ecs_action="fanotify_init",
    ),
    EventType(
        52,
        "fanotify_mark",
        "What a process is told of by fanotify was changed, or that was tried.",
        (
            named_path("The file, folder, mount or file system that is meant, as for unlink."),
            RAWPATH,
            Field("flags", Kind.BITS, "Flags as passed.", constants="FAN_MARK_"),
            Field("mask", Kind.BITS, "Which events.", constants="FAN_"),
            FILE_ID,
            RET,
        ),
        calls=("fanotify_mark 301 - _ flags:u mask:q dir name~", "fanotify_mark32 - 339 _ flags:u mask:w dir name~"),
        ecs_category="configuration",
        ecs_action="fanotify_mark",
    ),
    EventType(
        55,
        "io_submit",
        "A process handed reads and writes to Linux AIO, or tried. They are done without being the events `read` and `write`.",
        (Field("count", Kind.INT, "How many, as passed; how many were taken is `ret`."), RET),
        calls=("io_submit 209 248 _ count:q x32=544",),
        ecs_action="io_submit",
    ),
    EventType(
        50,
        "syscall",
        "Any system call whose number a policy names, whatever other event it is. Where a policy leaves it open, every one.",
        (
            Field(
                "nr",
                Kind.INT,
                "Its number among the 64-bit calls of x86-64, also where it came through the 32-bit entry point.",
            ),
            *_arguments(0, 5),
            RET,
        ),
        points=("tp_btf/sys_exit: by number",),
        ecs_action="syscall",
    ),
)
