"""What a row of the event catalogue is made of, and the fields that several rows share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from execray.schema.actor import ACTOR_FIELDS
from execray.schema.calls import Call, parse_call
from execray.schema.field import PATH_UNSURE, Content, Field, Flag
from execray.schema.kinds import Kind


@dataclass(frozen=True)
class EventType:
    """One kind of event."""

    code: int  # `enum er_event` of event.h, and the first element of an event on the stream
    name: str
    doc: str
    fields: tuple[Field, ...]
    calls: tuple[str, ...] = ()  # the system calls that it is: see execray.schema.calls
    points: tuple[str, ...] = ()  # where else in the kernel it is seen
    aliases: tuple[str, ...] = ()
    ecs_category: str = "process"
    ecs_action: str = ""
    package: str = ""  # who brought it: name and version of a package; empty: ExecRay itself
    handler: str = ""  # file of a BPF object that gives its records, whose calls then only say what stands in them
    place: int = 0  # among the events of that object

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        """Where in the kernel it is seen, for people."""
        names = ", ".join(call.name for call in self.system_calls)
        if self.handler:
            return (f"{self.handler.rpartition('/')[2]} of {self.package}: {names}",)
        seen = (*self.points, f"tp_btf/sys_exit: {names}") if names else self.points
        return (*seen, "tp_btf/io_uring_complete") if any(call.uring for call in self.system_calls) else seen

    @cached_property
    def system_calls(self) -> tuple[Call, ...]:
        """What `calls` says."""
        return tuple(parse_call(line) for line in self.calls)

    @property
    def fact(self) -> bool:
        """Whether it is told only when it has happened; else also when it failed, and its `ret` says which."""
        return not any(field.name == "ret" for field in self.fields)

    @cached_property
    def claims(self) -> frozenset[str]:
        """The fields that the caller's memory said when the call returned: another thread may have changed them by then."""
        return frozenset(field.name for field in self.fields if field.spoofable)

    @cached_property
    def slots(self) -> tuple[Field, ...]:
        """The fields a batch carries, in order."""
        return tuple(field for field in self.fields if not field.derived)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Own and actor fields by name and alias. Own fields never reuse the name of an actor field."""
        return {name: field for field in (*self.fields, *ACTOR_FIELDS) for name in (field.name, *field.aliases)}

    @cached_property
    def taken(self) -> dict[str, Content]:
        """The secret slots, which are filled only where somebody asked for them, by name, each with what is to be asked for."""
        return {field.name: field.taken for field in self.slots if field.taken}

    @cached_property
    def asked(self) -> dict[str, Content]:
        """All slots that aren't surely filled where nobody asked for them, by name, each with what is to be asked for."""
        return {field.name: field.taken | field.asked for field in self.slots if field.taken | field.asked}

    @cached_property
    def slot_of(self) -> dict[str, int]:
        """Index of each slot by canonical name."""
        return {field.name: index for index, field in enumerate(self.slots)}


RET = Field("ret", Kind.INT, "Result: a value >= 0, or the negated error number.", constants="E")
RAWPATH = Field(
    "rawpath",
    Kind.BYTES,
    "The path as the caller wrote it; not resolved. Read when the call returns.",
    cut_by=Flag.RAWPATH_TRUNCATED,
    spoofable=True,
)


def path(doc: str) -> Field:
    """Returns the field `path` of a file that was open: the path that the kernel used."""
    return Field("path", Kind.PATH, doc, ("pathname",), ecs="file.path", cut_by=PATH_UNSURE)


OLD_KIND = Field(
    "old.kind",
    Kind.BYTES,
    "What kind of thing the descriptor is. `anonymous` is what has no place in a file system: an epoll, a timer, a pidfd and"
    " the like; a memfd is a `file`.",
    words=("file", "directory", "link", "pipe", "socket", "character", "block", "anonymous"),
)
TARGET_PID = Field("target.pid", Kind.INT, "The target's process id.", ("target.tgid",), derived="target.id")
CALL = Field("call", Kind.BYTES, "Which call it was, by its name.")
FILE_ID = Field(
    "file.id",
    Kind.BYTES,
    "The kernel's name for the file, whatever path leads to it: device, inode, and the inode's generation, which tells it from"
    " an earlier file of that inode number; as `MAJOR:MINOR:INODE:GENERATION`. The device is the filesystem's own: on overlayfs"
    " and btrfs not the one of stat(2). The generation is 0 where a filesystem keeps none (proc, overlayfs).",
    ecs="file.inode",
)
#: Its name: the compiler and the engine look for it.
FILE_NAMES_NAME = "file.names"
FILE_NAMES = Field(
    FILE_NAMES_NAME,
    Kind.TEXTS,
    "The exact paths of the loaded policies that stand for this very file now, whatever name it was reached by. A test of"
    " `path` for being one path, or one of a list, looks here as well. Missing for most files, and always where `file.id` has no"
    " generation.",
    optional=True,
)
FSPATH = Field(
    "fspath",
    Kind.PATH,
    "The path within the file's filesystem, whatever part of it is mounted where: beside `path`, it sees through bind mounts and"
    " mount namespaces. Missing for what has no place in a tree.",
    cut_by=PATH_UNSURE,
)


def named_path(doc: str, *aliases: str) -> Field:
    """Returns the field `path` of a file that a call names, or that it has a descriptor of."""
    cut_by = PATH_UNSURE | Flag.PATH_UNRESOLVED
    return Field("path", Kind.PATH, doc, ("pathname", *aliases), ecs="file.path", cut_by=cut_by)
