"""Events of files: what is opened, read, written, made, renamed, removed and changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from execray.schema.field import PATH_UNSURE, Content, Field, Flag
from execray.schema.kinds import Kind
from execray.schema.row import FILE_ID, FILE_NAMES, FSPATH, RAWPATH, RET, TARGET_PID, EventType, named_path, path

_BY_NAME = "The file. By name: the name put behind the directory where it begins, symbolic links in it not resolved."
_MODE = Field("mode", Kind.BITS, "Permission bits as passed.", constants="S_")
_ID_BY_FD = Field("file.id", Kind.BYTES, "As for open; known only where the call names a descriptor.", ecs="file.inode")
_NEWPATH = Field(
    "newpath",
    Kind.PATH,
    "The new name, put behind the directory where it begins; symbolic links in it are not resolved.",
    cut_by=PATH_UNSURE | Flag.PATH_UNRESOLVED,
)
_RAWNEWPATH = Field(
    "rawnewpath", Kind.BYTES, "The new name as the caller wrote it.", cut_by=Flag.RAWPATH_TRUNCATED, spoofable=True
)

_OPENED: Final = (
    replace(
        RAWPATH,
        doc="The path as the caller wrote it; not resolved. Read when the call returns. Where there is a `path`, this one is"
        " there only while a loaded policy names it for this event, or somebody follows such events (`execray-ctl events`).",
        asked=Content.SPELLING,
    ),
    Field("flags", Kind.BITS, "Open flags as passed.", constants="O_"),
    Field("mode", Kind.BITS, "Permission bits as passed with O_CREAT.", constants="S_"),
)
_ACCESS: Final = Field(
    "access",
    Kind.BITS,
    "READ, WRITE or both, as the flags ask (O_RDONLY is 0, so a bit test on flags can't see it).",
    constants="ACCESS_",
    derived="flags",
)
_OPENS: Final = ("open 2 5 =fd", "creat 85 8 =fd", "openat 257 295 =fd uring=18,28", "openat2 437 437 =fd")

FILE_EVENTS: Final[tuple[EventType, ...]] = (
    EventType(
        4,
        "open",
        "A file was opened, or that was tried: open, openat, openat2, creat, and their 32-bit forms.",
        (
            path("The path that the kernel used, from the mount namespace's root. Missing when the call failed."),
            *_OPENED,
            Field("created", Kind.BOOL, "The call made the file."),
            FILE_ID,
            FILE_NAMES,
            FSPATH,
            Field("file.uid", Kind.INT, "Who owns the file. Missing when the call failed.", ecs="file.uid"),
            Field(
                "target.id",
                Kind.PROCESS,
                "Of a file or folder below /proc/PID or /proc/PID/task/TID: the process that it is about, whatever name, mount or"
                " pid namespace it was opened through. Missing for others, where that process is gone, and when the call failed.",
            ),
            RET,
            _ACCESS,
            TARGET_PID,
        ),
        calls=(*_OPENS, "open_by_handle_at 304 342 =fd"),
        aliases=("openat",),
        ecs_category="file",
        ecs_action="open",
    ),
    EventType(
        5,
        "write",
        "Bytes were written to a descriptor: write, writev, pwrite64, pwritev, vmsplice, sendto, sendmsg, sendmmsg (the first "
        "message counts; `ret` is their number), and sendfile, splice and copy_file_range, whose content is in nobody's hand.",
        (
            Field("fd", Kind.INT, "The descriptor."),
            path("What the descriptor refers to: a path, or `socket:`, `pipe:` and the like."),
            Field(
                "content",
                Kind.BYTES,
                "The first 256 bytes, taken only where a policy names them. Another thread can change them meanwhile.",
                ("buf",),
                cut_by=Flag.CONTENT_TRUNCATED,
                spoofable=True,
                taken=Content.WRITE,
            ),
            Field("len", Kind.INT, "Bytes asked to be written.", ("length",), unit="bytes"),
            FILE_ID,
            FILE_NAMES,
            FSPATH,
            RET,
        ),
        calls=(
            "write 1 4 fd uring=23,5",
            "writev 20 146 fd x32=516 uring=2",
            "pwrite64 18 181 fd",
            "pwritev 296 334 fd x32=535",
            "pwritev2 328 379 fd x32=547",
            "sendto 44 369 fd socketcall=11,9 uring=26,47",
            "sendmsg 46 370 fd x32=518 socketcall=16 uring=9,48",
            "sendmmsg 307 345 fd x32=538 socketcall=20",
            "vmsplice 278 316 fd x32=532",
            "sendfile 40 187,239 fd",
            "splice 275 313 _ _ fd uring=30",
            "copy_file_range 326 377 _ _ fd",
        ),
        ecs_category="file",
        ecs_action="write",
    ),
    EventType(
        6,
        "chmod",
        "A file's permission bits were changed, or that was tried.",
        (
            named_path(_BY_NAME),
            RAWPATH,
            Field("mode", Kind.BITS, "The new bits.", constants="S_"),
            _ID_BY_FD,
            FILE_NAMES,
            RET,
        ),
        calls=(
            "chmod 90 15 name~ mode&4095",
            "fchmod 91 94 fd mode&4095",
            "fchmodat 268 306 dir name~ mode&4095",
            "fchmodat2 452 452 dir name~ mode&4095",
        ),
        ecs_category="file",
        ecs_action="chmod",
    ),
    EventType(
        10,
        "rename",
        "A file or folder was renamed or moved, or that was tried.",
        (
            named_path("The old name, as for unlink.", "oldpath"),
            RAWPATH,
            _NEWPATH,
            _RAWNEWPATH,
            Field("flags", Kind.BITS, "Flags as passed to renameat2.", constants="RENAME_"),
            RET,
        ),
        calls=(
            "rename 82 38 name name2 flags=0",
            "renameat 264 302 dir name dir2 name2 flags=0",
            "renameat2 316 353 dir name dir2 name2 flags uring=35",
        ),
        ecs_category="file",
        ecs_action="rename",
    ),
    EventType(
        11,
        "unlink",
        "A name of a file, or an empty folder, was removed, or that was tried.",
        (
            named_path(
                "The name that was removed, put behind the directory where it begins; symbolic links in it are not resolved."
            ),
            RAWPATH,
            Field("directory", Kind.BOOL, "A folder: rmdir, or unlinkat with AT_REMOVEDIR."),
            RET,
        ),
        calls=(
            "unlink 87 10 name directory=0",
            "rmdir 84 40 name directory=1",
            "unlinkat 263 301 dir name directory&512 uring=36",
        ),
        ecs_category="file",
        ecs_action="deletion",
    ),
    EventType(
        12,
        "link",
        "A file got one more name, a hard link, or that was tried.",
        (named_path("The name it has, as for unlink.", "oldpath"), RAWPATH, _NEWPATH, _RAWNEWPATH, RET),
        calls=("link 86 9 name name2", "linkat 265 303 dir name~ dir2 name2 uring=39"),
        ecs_category="file",
        ecs_action="creation",
    ),
    EventType(
        13,
        "symlink",
        "A symbolic link was made, or that was tried.",
        (
            named_path("The link, as for unlink."),
            RAWPATH,
            Field(
                "target", Kind.BYTES, "What the link says, as passed.", cut_by=Flag.RAWPATH_TRUNCATED, spoofable=True
            ),
            RET,
        ),
        calls=("symlink 88 83 $target name", "symlinkat 266 304 $target dir name uring=38"),
        ecs_category="file",
        ecs_action="creation",
    ),
    EventType(
        14,
        "mkdir",
        "A folder was made, or that was tried.",
        (named_path("The folder, as for unlink."), RAWPATH, _MODE, RET),
        calls=("mkdir 83 39 name mode&4095", "mkdirat 258 296 dir name mode&4095 uring=37"),
        ecs_category="file",
        ecs_action="creation",
    ),
    EventType(
        15,
        "truncate",
        "A file was given another length, or that was tried. Opening with O_TRUNC is an open.",
        (
            named_path(_BY_NAME),
            RAWPATH,
            Field("len", Kind.INT, "The new length.", ("length",), unit="bytes"),
            _ID_BY_FD,
            FILE_NAMES,
            RET,
        ),
        calls=(
            "truncate 76 92 name~ len:q",
            "ftruncate 77 93 fd len:q uring=55",
            "truncate64 - 193 name~ len:w",
            "ftruncate64 - 194 fd len:w",
        ),
        ecs_category="file",
        ecs_action="change",
    ),
    EventType(
        16,
        "mknod",
        "A device, pipe, socket or plain file was made by mknod, or that was tried.",
        (
            named_path("The file, as for unlink."),
            RAWPATH,
            Field("mode", Kind.BITS, "Its kind and permission bits as passed.", constants="S_"),
            Field("dev", Kind.INT, "The device's number as passed."),
            RET,
        ),
        calls=("mknod 133 14 name mode&65535 dev:u", "mknodat 259 297 dir name mode&65535 dev:u"),
        ecs_category="file",
        ecs_action="creation",
    ),
    EventType(
        17,
        "chown",
        "A file was given to another user or group, or that was tried.",
        (
            named_path(_BY_NAME),
            RAWPATH,
            Field("new.uid", Kind.INT, "The user as passed; missing where it stays."),
            Field("new.gid", Kind.INT, "The group as passed; missing where it stays."),
            _ID_BY_FD,
            FILE_NAMES,
            RET,
        ),
        calls=(
            "chown 92 212 name~ new.uid:m new.gid:m",
            "fchown 93 207 fd new.uid:m new.gid:m",
            "lchown 94 198 name new.uid:m new.gid:m",
            "fchownat 260 298 dir name~ new.uid:m new.gid:m",
            "chown16 - 182 name~ new.uid:h new.gid:h",
            "fchown16 - 95 fd new.uid:h new.gid:h",
            "lchown16 - 16 name new.uid:h new.gid:h",
        ),
        ecs_category="file",
        ecs_action="chown",
    ),
    EventType(
        18,
        "setxattr",
        "An extended attribute of a file was set or removed, or that was tried: capabilities, labels, access lists.",
        (
            named_path(_BY_NAME),
            RAWPATH,
            Field(
                "attr",
                Kind.BYTES,
                "Its name, as `security.capability`.",
                cut_by=Flag.RAWPATH_TRUNCATED,
                spoofable=True,
            ),
            Field("removed", Kind.BOOL, "It was removed."),
            _ID_BY_FD,
            FILE_NAMES,
            RET,
        ),
        calls=(
            "setxattr 188 226 name~ $attr removed=0 uring=42",
            "lsetxattr 189 227 name $attr removed=0",
            "fsetxattr 190 228 fd $attr removed=0 uring=41",
            "setxattrat 463 463 dir name~ _ $attr removed=0",
            "removexattr 197 235 name~ $attr removed=1",
            "lremovexattr 198 236 name $attr removed=1",
            "fremovexattr 199 237 fd $attr removed=1",
            "removexattrat 466 466 dir name~ _ $attr removed=1",
        ),
        ecs_category="file",
        ecs_action="change",
    ),
    EventType(
        19,
        "utimes",
        "A file's times were set, or that was tried.",
        (named_path(_BY_NAME), RAWPATH, _ID_BY_FD, FILE_NAMES, RET),
        calls=(
            "utime 132 30 name~",
            "utimes 235 271 name~",
            "futimesat 261 299 dir name~",
            "utimensat 280 320,412 dir name~",
        ),
        ecs_category="file",
        ecs_action="change",
    ),
    EventType(
        49,
        "read",
        "Bytes were read from a descriptor, or that was tried: of the usual calls the most frequent.",
        (
            Field("fd", Kind.INT, "The descriptor."),
            path("What the descriptor refers to, as for write."),
            Field(
                "content",
                Kind.BYTES,
                "The first 256 bytes, as far as they were read, taken only where a policy names them. Another thread can change"
                " them meanwhile.",
                ("buf",),
                cut_by=Flag.CONTENT_TRUNCATED,
                spoofable=True,
                taken=Content.READ,
            ),
            Field(
                "len",
                Kind.INT,
                "Bytes asked to be read, of several pieces the first eight; of recvmmsg the first message's.",
                ("length",),
                unit="bytes",
            ),
            FILE_ID,
            FILE_NAMES,
            FSPATH,
            RET,
        ),
        calls=(
            "read 0 3 fd uring=22,4",
            "pread64 17 180 fd",
            "readv 19 145 fd x32=515 uring=1",
            "preadv 295 333 fd x32=534",
            "preadv2 327 378 fd x32=546",
            "recvfrom 45 371 fd x32=517 socketcall=12,10 uring=27",
            "recvmsg 47 372 fd x32=519 socketcall=17 uring=10",
            "recvmmsg 299 337,417 fd x32=537 socketcall=19",
        ),
        ecs_category="file",
        ecs_action="read",
    ),
    EventType(
        57,
        "create",
        "A file was made by opening it: with O_CREAT where there was none of that name, or with O_TMPFILE. Each is an `open`,"
        " too. Where another thread has closed the descriptor at once, or it went into a ring's own table, any open with O_CREAT"
        " is one, without `path`. Where a thread put another file there, none is: only `open { flags has O_CREAT }` misses"
        " nothing. Other ways to a new name are `mkdir`, `mknod`, `symlink`, `link`, `rename`, and `bind` for a socket's.",
        (
            path("The path that the kernel used, from the mount namespace's root."),
            *_OPENED,
            FILE_ID,
            FILE_NAMES,
            FSPATH,
            Field("file.uid", Kind.INT, "Who owns the file.", ecs="file.uid"),
            Field("fd", Kind.INT, "Its descriptor."),
            _ACCESS,
        ),
        calls=_OPENS,
        ecs_category="file",
        ecs_action="creation",
    ),
)
