"""Layouts of the kernel's records. Generated from BTF by `make abi`; don't edit."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

ER_ABI_VERSION: Final = 31
ER_PATH_MAX: Final = 4096
ER_ARGV_MAX: Final = 16384
ER_CONTENT_MAX: Final = 256
ER_CGROUP_MAX: Final = 1024
ER_INTERP_MAX: Final = 256
ER_KIND_URGENT: Final = 32768
ER_GATHERED: Final = 32768
ER_SHAPES_NATIVE: Final = 0
ER_SHAPES_COMPAT: Final = 1024
ER_SHAPES_SOCKETCALL: Final = 1536
ER_SHAPES_URING: Final = 1600
ER_SHAPES: Final = 2048
ER_PID_SLOTS: Final = 4096
ER_PID_MARK: Final = 257
ER_GATE_SHADOW: Final = 256
ER_GATE_CODES: Final = 64
ER_GATE_WORDS: Final = 64
ER_GATE_PLACES: Final = 4096
ER_GATE_ROWS: Final = 4096
ER_GATE_KEYS: Final = 8192
ER_GATE_BUCKETS: Final = 4096
ER_GATE_BUCKET: Final = 16
ER_GATE_BLOOM: Final = 1024
ER_GATE_SUFFIXES: Final = 8
ER_GATE_NUMBERS: Final = 6
ER_GATE_BOUNDS: Final = 16
ER_GATE_INPUTS: Final = 32
ER_GATE_CHOSEN: Final = 48
ER_GATE_DEPTH: Final = 32
ER_GATE_FILES: Final = 8192
ER_GATE_FILE_ROW: Final = 32768
ER_GATE_HALVES: Final = 2
ER_GATE_SLOTS: Final = 512
ER_GATE_OWN: Final = 64
ER_GATE_WAITS: Final = 3
ER_GATE_LOOKS: Final = 8
ER_GATE_CELLS: Final = 8192
ER_GATE_THREADS: Final = 4096
ER_GATE_CASE_MAX: Final = 4224
ER_INLINE_CODES: Final = 64
ER_INLINE_RULES: Final = 256
ER_INLINE_NUMBERS: Final = 6
ER_INLINE_TEXTS: Final = 4
ER_INLINE_TEXT: Final = 128
ER_INLINE_POLICIES: Final = 64
ER_INLINE_STEPS: Final = 4
ER_INLINE_NAME: Final = 64
ER_INLINE_SPARED: Final = 1024
ER_INLINE_TOKENS: Final = 64
ER_INLINE_HOST: Final = 64
ER_INLINE_CELLS: Final = 16384
ER_INLINE_CLAIMS: Final = 1024
ER_INLINE_HALVES: Final = 2
ER_INLINE_SLACK_NS: Final = 100000000

ER_ARMED_EVENT: Final = {
    "ER_ARMED_EVENT": 1,
    "ER_ARMED_ALSO": 2,
    "ER_ARMED_THIRD": 4,
    "ER_ARMED_WHOLE": 8,
}

ER_CONTENT: Final = {
    "ER_CONTENT_WRITE": 1,
    "ER_CONTENT_READ": 2,
    "ER_CONTENT_ENV": 4,
    "ER_CONTENT_SPELLING": 8,
}

ER_COUNTER: Final = {
    "ER_COUNT_SENT": 0,
    "ER_COUNT_DROPPED": 1,
    "ER_COUNT_SELF": 2,
    "ER_COUNT_CREDS_FULL": 3,
    "ER_COUNT_SELF_FULL": 4,
    "ER_COUNT_SYSCALLS": 5,
    "ER_COUNT_NAMES_FULL": 6,
    "ER_COUNT_REFUSED": 7,
    "ER_COUNT_MAX": 8,
}

ER_EVENT: Final = {
    "ER_EVENT_INVALID": 0,
    "ER_EVENT_EXEC": 1,
    "ER_EVENT_FORK": 2,
    "ER_EVENT_EXIT": 3,
    "ER_EVENT_OPEN": 4,
    "ER_EVENT_WRITE": 5,
    "ER_EVENT_CHMOD": 6,
    "ER_EVENT_CONNECT": 7,
    "ER_EVENT_PTRACE": 8,
    "ER_EVENT_SETUID": 9,
    "ER_EVENT_RENAME": 10,
    "ER_EVENT_UNLINK": 11,
    "ER_EVENT_LINK": 12,
    "ER_EVENT_SYMLINK": 13,
    "ER_EVENT_MKDIR": 14,
    "ER_EVENT_TRUNCATE": 15,
    "ER_EVENT_MKNOD": 16,
    "ER_EVENT_CHOWN": 17,
    "ER_EVENT_SETXATTR": 18,
    "ER_EVENT_UTIMES": 19,
    "ER_EVENT_MOUNT": 20,
    "ER_EVENT_UMOUNT": 21,
    "ER_EVENT_CHROOT": 22,
    "ER_EVENT_PIVOT_ROOT": 23,
    "ER_EVENT_SETNS": 24,
    "ER_EVENT_UNSHARE": 25,
    "ER_EVENT_SOCKET": 26,
    "ER_EVENT_BIND": 27,
    "ER_EVENT_LISTEN": 28,
    "ER_EVENT_ACCEPT": 29,
    "ER_EVENT_SENDTO": 30,
    "ER_EVENT_DUP": 31,
    "ER_EVENT_PROCMEM": 32,
    "ER_EVENT_CAPSET": 33,
    "ER_EVENT_PRCTL": 34,
    "ER_EVENT_PERSONALITY": 35,
    "ER_EVENT_KEYCTL": 36,
    "ER_EVENT_KILL": 37,
    "ER_EVENT_MEMFD_CREATE": 38,
    "ER_EVENT_MMAP": 39,
    "ER_EVENT_MPROTECT": 40,
    "ER_EVENT_BPF": 41,
    "ER_EVENT_PERF_EVENT_OPEN": 42,
    "ER_EVENT_USERFAULTFD": 43,
    "ER_EVENT_IO_URING_SETUP": 44,
    "ER_EVENT_KEXEC": 45,
    "ER_EVENT_MODULE_LOAD": 46,
    "ER_EVENT_MODULE_UNLOAD": 47,
    "ER_EVENT_SETGID": 48,
    "ER_EVENT_READ": 49,
    "ER_EVENT_SYSCALL": 50,
    "ER_EVENT_FANOTIFY_INIT": 51,
    "ER_EVENT_FANOTIFY_MARK": 52,
    "ER_EVENT_SETSID": 53,
    "ER_EVENT_PROCREAD": 54,
    "ER_EVENT_IO_SUBMIT": 55,
    "ER_EVENT_CRED_CHANGE": 56,
    "ER_EVENT_CREATE": 57,
    "ER_EVENT_SCAN": 63,
    "ER_EVENT_OWN": 128,
}

ER_FACT: Final = {
    "ER_FACT_INTERACTIVE": 1,
    "ER_FACT_UPPER": 2,
}

ER_FLAG: Final = {
    "ER_F_PATH_TRUNCATED": 1,
    "ER_F_ARGV_TRUNCATED": 2,
    "ER_F_CONTENT_TRUNCATED": 4,
    "ER_F_RAWPATH_TRUNCATED": 8,
    "ER_F_UNREADABLE": 16,
    "ER_F_COMPAT_ABI": 32,
    "ER_F_HEARTBEAT": 64,
    "ER_F_OLD_CREDS_UNKNOWN": 128,
    "ER_F_CWD_TRUNCATED": 256,
    "ER_F_PATH_UNRESOLVED": 512,
    "ER_F_PATH_TORN": 1024,
    "ER_F_PATH_DETACHED": 2048,
    "ER_F_DELETED": 4096,
    "ER_F_IO_URING": 8192,
    "ER_F_GATE_DROP": 16384,
    "ER_F_KILLED": 32768,
}

ER_GATE_INPUT: Final = {
    "ER_GATE_NONE": 0,
    "ER_GATE_RET": 1,
    "ER_GATE_UID": 2,
    "ER_GATE_EUID": 3,
    "ER_GATE_FLAGS": 4,
    "ER_GATE_MODE": 5,
    "ER_GATE_FAMILY": 6,
    "ER_GATE_PORT": 7,
    "ER_GATE_REQUEST": 8,
    "ER_GATE_NEW_UID": 9,
    "ER_GATE_NEW_EUID": 10,
    "ER_GATE_CREATED": 11,
    "ER_GATE_DST_IP": 12,
    "ER_GATE_SRC_IP": 13,
    "ER_GATE_FILE": 14,
    "ER_GATE_COMM": 15,
    "ER_GATE_OLD_UID": 16,
    "ER_GATE_OLD_EUID": 17,
}

ER_GATE_KIND: Final = {
    "ER_GATE_RANGES": 1,
    "ER_GATE_BITS": 2,
}

ER_GATE_PATH: Final = {
    "ER_GATE_UNKNOWN": 0,
    "ER_GATE_KNOWN": 1,
    "ER_GATE_NAMELESS": 2,
    "ER_GATE_MISSING": 3,
}

ER_INLINE_KIND: Final = {
    "ER_INLINE_RANGE": 1,
    "ER_INLINE_SAME": 2,
}

ER_INLINE_PART: Final = {
    "ER_INLINE_EXACT": 1,
    "ER_INLINE_STARTS": 2,
    "ER_INLINE_ENDS": 3,
    "ER_INLINE_COMM": 4,
}

ER_RESTS: Final = {
    "ER_RESTS": 1,
    "ER_RESTS_ALONE": 2,
}

ER_SELF_FLAG: Final = {
    "ER_SELF_DROP": 1,
    "ER_SELF_INHERIT": 2,
    "ER_SELF_HEARTBEAT": 4,
    "ER_SELF_CHILD": 8,
}

ER_SETUID_CALL: Final = {
    "ER_CALL_INVALID": 0,
    "ER_CALL_SETUID": 1,
    "ER_CALL_SETREUID": 2,
    "ER_CALL_SETRESUID": 3,
    "ER_CALL_SETFSUID": 4,
    "ER_CALL_GETUID": 5,
    "ER_CALL_GETEUID": 6,
    "ER_CALL_GETRESUID": 7,
    "ER_CALL_GETGID": 8,
    "ER_CALL_GETEGID": 9,
    "ER_CALL_GETRESGID": 10,
    "ER_CALL_CAPGET": 11,
    "ER_CALL_EXEC": 12,
    "ER_CALL_FORK": 13,
}


class Config(NamedTuple):
    """struct er_config, 56 bytes without its tail."""

    wanted: int
    content: int
    heartbeat_tgid: int
    heartbeat_tid: int
    gate: int
    followed: int
    waiting: int
    urgent: int
    lapsed_ns: int


CONFIG: Final = Struct("<QIIIIQQQQ")


class Connect(NamedTuple):
    """struct er_connect, 200 bytes without its tail."""

    amount: int
    nr: int
    fd: int
    ret: int
    family: int
    dport: int
    sport: int
    path_len: int
    daddr: bytes
    saddr: bytes


CONNECT: Final = Struct("<136xQH2x4xiiHHHH16s16s")


class Counts(NamedTuple):
    """struct er_counts, 64 bytes without its tail."""

    value: bytes


COUNTS: Final = Struct("<64s")


class CredChange(NamedTuple):
    """struct er_cred_change, 176 bytes without its tail."""

    old_cap_effective: int
    old_cap_permitted: int
    old_uid: int
    old_euid: int
    old_gid: int
    old_egid: int
    call: int


CRED_CHANGE: Final = Struct("<136xQQIIIII4x")


class Creds(NamedTuple):
    """struct er_creds, 48 bytes without its tail."""

    start_ns: int
    cap_effective: int
    cap_permitted: int
    uid: int
    euid: int
    gid: int
    egid: int
    ns_user: int


CREDS: Final = Struct("<QQQIIIII4x")


class Exec(NamedTuple):
    """struct er_exec, 232 bytes without its tail."""

    ino: int
    parent_start_ns: int
    ppid: int
    dev: int
    ret: int
    argv_len: int
    path_len: int
    filename_len: int
    cwd_len: int
    cgroup_len: int
    v1_len: int
    i_mode: int
    generation: int
    i_uid: int
    own_len: int
    below_len: int
    cap_bounding: int
    mtime_ns: int
    ctime_ns: int
    env_len: int
    ns_nr: int
    interp_len: int
    facts: int


EXEC: Final = Struct("<136xQQIIiIHHHHHHIIHHQqqIIHH4x")


class Exit(NamedTuple):
    """struct er_exit, 144 bytes without its tail."""

    code: int


EXIT: Final = Struct("<136xI4x")


class File(NamedTuple):
    """struct er_file, 200 bytes without its tail."""

    asked: int
    ret: int
    fd: int
    open_flags: int
    mode: int
    f_mode: int
    raw_len: int
    content_len: int
    ino: int
    dev: int
    generation: int
    i_uid: int
    about: int
    i_mode: int
    path_len: int
    own_len: int
    below_len: int


FILE: Final = Struct("<136xQiiIIIHHQIIIIHHHH")


class Fork(NamedTuple):
    """struct er_fork, 160 bytes without its tail."""

    child_start_ns: int
    child_pid: int
    child_ns_nr: int
    clone_flags: int


FORK: Final = Struct("<136xQIII4x")


#: struct er_gate: member -> offset, size
GATE_AT: Final = {
    "generation": (0, 8),
    "open": (8, 8),
    "first": (16, 4),
    "named": (20, 4),
    "window_ns": (24, 4096),
    "settled_ns": (4120, 4096),
    "until_ns": (8216, 4096),
    "cells_ns": (12312, 512),
    "crowd_ns": (12824, 8),
    "slot": (12832, 8192),
    "celled_ns": (21024, 32768),
    "threads_ns": (53792, 32768),
    "suffix": (86560, 8),
    "bloom": (86568, 8192),
    "bucket": (94760, 8200),
    "key": (102960, 65536),
    "key_row": (168496, 16384),
    "free_words": (184880, 32768),
    "code": (217648, 54784),
    "row": (272432, 2097152),
}
GATE_BYTES: Final = 2369584

#: struct er_gate_case: member -> offset, size
GATE_CASE_AT: Final = {
    "work": (0, 2800),
    "verdict": (2800, 4),
    "len": (2808, 64),
    "path": (2872, 4224),
}
GATE_CASE_BYTES: Final = 7096


class GateCell(NamedTuple):
    """struct er_gate_cell, 512 bytes without its tail."""

    until_ns: bytes


GATE_CELL: Final = Struct("<512s")


class GateCellKey(NamedTuple):
    """struct er_gate_cell_key, 8 bytes without its tail."""

    tgid: int
    half: int


GATE_CELL_KEY: Final = Struct("<II")


class GateCode(NamedTuple):
    """struct er_gate_code, 856 bytes without its tail."""

    first_word: int
    end_word: int
    all: int
    path_free: int
    path_nameless: int
    path_missing: int
    comm_free: int
    numbers: int
    asks: int
    begins: int
    waits: int
    failed: int
    slot: bytes
    number: bytes


GATE_CODE: Final = Struct("<HHHHHHHHIIHH12s816s")


class GateFile(NamedTuple):
    """struct er_gate_file, 16 bytes without its tail."""

    ino: int
    dev: int
    generation: int


GATE_FILE: Final = Struct("<QII")


class GateNumber(NamedTuple):
    """struct er_gate_number, 136 bytes without its tail."""

    input: int
    kind: int
    rows: int
    bounds: int
    bound: bytes


GATE_NUMBER: Final = Struct("<BBHH2x128s")


class GateRow(NamedTuple):
    """struct er_gate_row, 512 bytes without its tail."""

    word: bytes


GATE_ROW: Final = Struct("<512s")


#: struct er_gate_work: member -> offset, size
GATE_WORK_AT: Final = {
    "event": (0, 4),
    "half": (4, 4),
    "path": (8, 4),
    "count": (12, 4),
    "size": (16, 4),
    "known": (20, 4),
    "tgid": (24, 4),
    "named": (28, 4),
    "now_ns": (32, 8),
    "number": (40, 256),
    "comm": (296, 16),
    "tail": (312, 16),
    "component": (328, 256),
    "at": (584, 4),
    "hits": (588, 4),
    "rows": (592, 4),
    "comm_row": (596, 4),
    "row": (600, 96),
    "pass": (696, 8),
    "urgent": (704, 8),
    "left": (712, 8),
    "hit": (720, 512),
    "passed": (1232, 512),
    "dropped": (1744, 512),
    "deep": (2256, 8),
    "begun": (2264, 8),
    "full": (2272, 8),
    "key": (2280, 8),
    "fresh": (2288, 512),
}
GATE_WORK_BYTES: Final = 2800


class Header(NamedTuple):
    """struct er_header, 16 bytes without its tail."""

    len: int
    kind: int
    flags: int
    time_ns: int


HEADER: Final = Struct("<IHHQ")


class InlineCell(NamedTuple):
    """struct er_inline_cell, 48 bytes without its tail."""

    start_ns: int
    generation: int
    since: bytes


INLINE_CELL: Final = Struct("<QQ32s")


class InlineCellKey(NamedTuple):
    """struct er_inline_cell_key, 8 bytes without its tail."""

    tgid: int
    slot: int


INLINE_CELL_KEY: Final = Struct("<II")


class InlineClaimKey(NamedTuple):
    """struct er_inline_claim_key, 16 bytes without its tail."""

    start_ns: int
    tgid: int


INLINE_CLAIM_KEY: Final = Struct("<QI4x")


class InlineNumber(NamedTuple):
    """struct er_inline_number, 24 bytes without its tail."""

    input: int
    kind: int
    negate: int
    low: int
    high: int


INLINE_NUMBER: Final = Struct("<BBB5xQQ")


#: struct er_inline_plan: member -> offset, size
INLINE_PLAN_AT: Final = {
    "generation": (0, 8),
    "first": (8, 128),
    "end": (136, 128),
    "rule": (264, 182272),
}
INLINE_PLAN_BYTES: Final = 182536


class InlineRule(NamedTuple):
    """struct er_inline_rule, 712 bytes without its tail."""

    policy: int
    slot: int
    step: int
    steps: int
    within_ns: int
    numbers: int
    texts: int
    number: bytes
    text: bytes


INLINE_RULE: Final = Struct("<IHBBQHH4x144s544s")


class InlineState(NamedTuple):
    """struct er_inline_state, 136 bytes without its tail."""

    lease_ns: int
    half: int
    killed: int
    expired: int
    spared: int
    budget: int
    unsent: int
    failed: int
    next: bytes


INLINE_STATE: Final = Struct("<QQQQQQQQ72s")


class InlineText(NamedTuple):
    """struct er_inline_text, 136 bytes without its tail."""

    part: int
    negate: int
    len: int
    bytes: bytes


INLINE_TEXT: Final = Struct("<BBH4x128s")


class Plain(NamedTuple):
    """struct er_plain, 224 bytes without its tail."""

    arg0: int
    arg1: int
    arg2: int
    arg3: int
    arg4: int
    arg5: int
    ret: int
    ino: int
    dev: int
    generation: int
    i_mode: int
    nr: int
    len0: int
    len1: int
    len2: int
    len3: int
    i_uid: int


PLAIN: Final = Struct("<136xQQQQQQqQIIHHHHHHI")


class Ptrace(NamedTuple):
    """struct er_ptrace, 192 bytes without its tail."""

    request: int
    target_start_ns: int
    target_parent_start_ns: int
    target_pid: int
    target_tid: int
    target_uid: int
    target_ppid: int
    target_nr: int
    nr: int
    ret: int


PTRACE: Final = Struct("<136xQQQIIIIiH2xq")


class RingKey(NamedTuple):
    """struct er_ring_key, 16 bytes without its tail."""

    request: int
    place: int


RING_KEY: Final = Struct("<QI4x")


class RingName(NamedTuple):
    """struct er_ring_name, 4128 bytes without its tail."""

    time_ns: int
    ring: int
    user_data: int
    opcode: int
    len: int
    text: bytes


RING_NAME: Final = Struct("<QQQII4096s")


class Self(NamedTuple):
    """struct er_self, 16 bytes without its tail."""

    start_ns: int
    flags: int


SELF: Final = Struct("<QI4x")


class Setuid(NamedTuple):
    """struct er_setuid, 160 bytes without its tail."""

    call: int
    ret: int
    new_uid: int
    new_euid: int
    old_uid: int
    old_euid: int


SETUID: Final = Struct("<136xIiIIII")


class Shape(NamedTuple):
    """struct er_shape, 20 bytes without its tail."""

    event: int
    also: int
    third: int
    fd: int
    dir: int
    name: int
    dir2: int
    name2: int
    text: int
    text2: int
    need: int
    armed: int
    nr: int
    rests: int
    bits: int


SHAPE: Final = Struct("<BBBBBBBBBBBBHB1xI")


class Task(NamedTuple):
    """struct er_task, 120 bytes without its tail."""

    start_ns: int
    cgroup_id: int
    cap_effective: int
    cap_permitted: int
    comm: bytes
    pid: int
    uid: int
    euid: int
    suid: int
    fsuid: int
    gid: int
    egid: int
    sgid: int
    fsgid: int
    loginuid: int
    tty_nr: int
    session: int
    pgrp: int
    ns_pid: int
    ns_mnt: int
    ns_net: int
    ns_user: int
    tid: int


TASK: Final = Struct("<QQQQ16sIIIIIIIIIIIIIIIIII")
