/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records: the ABI between the programs and tracerd, written once, here. execray/schema/layout.py is generated from the
 * BTF that this leaves in the built objects (`make abi`); change anything and raise ER_ABI_VERSION.
 *
 * Every record begins with er_header and er_task. Text lies in `tail`, back to back in the order of the *_len fields.
 */
#ifndef EXECRAY_EVENT_H
#define EXECRAY_EVENT_H

#define ER_ABI_VERSION 31

enum er_event {
	ER_EVENT_INVALID = 0,
	ER_EVENT_EXEC = 1,
	ER_EVENT_FORK = 2,
	ER_EVENT_EXIT = 3,
	ER_EVENT_OPEN = 4,
	ER_EVENT_WRITE = 5,
	ER_EVENT_CHMOD = 6,
	ER_EVENT_CONNECT = 7,
	ER_EVENT_PTRACE = 8,
	ER_EVENT_SETUID = 9,
	ER_EVENT_RENAME = 10,
	ER_EVENT_UNLINK = 11,
	ER_EVENT_LINK = 12,
	ER_EVENT_SYMLINK = 13,
	ER_EVENT_MKDIR = 14,
	ER_EVENT_TRUNCATE = 15,
	ER_EVENT_MKNOD = 16,
	ER_EVENT_CHOWN = 17,
	ER_EVENT_SETXATTR = 18,
	ER_EVENT_UTIMES = 19,
	ER_EVENT_MOUNT = 20,
	ER_EVENT_UMOUNT = 21,
	ER_EVENT_CHROOT = 22,
	ER_EVENT_PIVOT_ROOT = 23,
	ER_EVENT_SETNS = 24,
	ER_EVENT_UNSHARE = 25,
	ER_EVENT_SOCKET = 26,
	ER_EVENT_BIND = 27,
	ER_EVENT_LISTEN = 28,
	ER_EVENT_ACCEPT = 29,
	ER_EVENT_SENDTO = 30,
	ER_EVENT_DUP = 31,
	ER_EVENT_PROCMEM = 32,
	ER_EVENT_CAPSET = 33,
	ER_EVENT_PRCTL = 34,
	ER_EVENT_PERSONALITY = 35,
	ER_EVENT_KEYCTL = 36,
	ER_EVENT_KILL = 37,
	ER_EVENT_MEMFD_CREATE = 38,
	ER_EVENT_MMAP = 39,
	ER_EVENT_MPROTECT = 40,
	ER_EVENT_BPF = 41,
	ER_EVENT_PERF_EVENT_OPEN = 42,
	ER_EVENT_USERFAULTFD = 43,
	ER_EVENT_IO_URING_SETUP = 44,
	ER_EVENT_KEXEC = 45,
	ER_EVENT_MODULE_LOAD = 46,
	ER_EVENT_MODULE_UNLOAD = 47,
	ER_EVENT_SETGID = 48,
	ER_EVENT_READ = 49,
	ER_EVENT_SYSCALL = 50,
	ER_EVENT_FANOTIFY_INIT = 51,
	ER_EVENT_FANOTIFY_MARK = 52,
	ER_EVENT_SETSID = 53,
	ER_EVENT_PROCREAD = 54,
	ER_EVENT_IO_SUBMIT = 55,
	ER_EVENT_CRED_CHANGE = 56,
	ER_EVENT_CREATE = 57,
	ER_EVENT_SCAN = 63, /* one thread found by the scan at start; not an event a policy can name */
	ER_EVENT_OWN = 128, /* from here on: events that packages add */
};

enum er_flag {
	ER_F_PATH_TRUNCATED = 1 << 0,
	ER_F_ARGV_TRUNCATED = 1 << 1,
	ER_F_CONTENT_TRUNCATED = 1 << 2,
	ER_F_RAWPATH_TRUNCATED = 1 << 3,
	ER_F_UNREADABLE = 1 << 4,
	ER_F_COMPAT_ABI = 1 << 5,
	ER_F_HEARTBEAT = 1 << 6,
	ER_F_OLD_CREDS_UNKNOWN = 1 << 7,
	ER_F_CWD_TRUNCATED = 1 << 8,
	ER_F_PATH_UNRESOLVED = 1 << 9, /* set by tracerd */
	ER_F_PATH_TORN = 1 << 10,
	ER_F_PATH_DETACHED = 1 << 11,
	ER_F_DELETED = 1 << 12,
	ER_F_IO_URING = 1 << 13,
	ER_F_GATE_DROP = 1 << 14, /* the gate is only watched: it would have dropped this one */
	ER_F_KILLED = 1 << 15, /* the process was killed in the kernel; the record ends with er_inline_rule::policy */
};

/* Limits of captured text, in bytes. A path is at most 4,095 bytes long; powers of two keep the verifier's bounds
 * simple. */
#define ER_PATH_MAX    4096
#define ER_ARGV_MAX    16384
#define ER_CONTENT_MAX 256
#define ER_CGROUP_MAX  1024
#define ER_INTERP_MAX  256
/* A walked path with one of these may be another than it seems. */
#define ER_F_PATH_UNSURE (ER_F_PATH_TRUNCATED | ER_F_PATH_TORN | ER_F_PATH_DETACHED)
#define ER_TAIL_MAX	 (3 * ER_PATH_MAX + 2 * ER_CGROUP_MAX + ER_INTERP_MAX + ER_ARGV_MAX)
#define ER_RECORD_MAX	 (512 + ER_TAIL_MAX)

#define ER_KIND_URGENT 32768 /* besides the kind of a record that doesn't wait for others */
#define ER_GATHERED    32768 /* bytes of records that are enough company: the reader is told of each so many more */

struct er_header {
	__u32 len;     /* of the whole record */
	__u16 kind;    /* enum er_event, or with ER_KIND_URGENT */
	__u16 flags;   /* enum er_flag */
	__u64 time_ns; /* CLOCK_BOOTTIME */
};

/*
 * The acting thread, after the call. Ids are in the initial user and pid namespaces. Here stands what a process can
 * change by a system call of its own; what is fixed with an image is in er_exec.
 */
struct er_task {
	__u64 start_ns; /* the group leader's start_boottime */
	__u64 cgroup_id;
	__u64 cap_effective; /* bit 1 << CAP_* */
	__u64 cap_permitted;
	char comm[16]; /* here for its alignment: it is copied by words */
	__u32 pid;     /* tgid */
	__u32 uid;
	__u32 euid;
	__u32 suid;
	__u32 fsuid;
	__u32 gid;
	__u32 egid;
	__u32 sgid;
	__u32 fsgid;
	__u32 loginuid; /* (uid_t)-1: not set */
	__u32 tty_nr;	/* as /proc/PID/stat has it; 0: none */
	__u32 session;	/* pid of its leader, which may be gone; 0: none */
	__u32 pgrp;
	__u32 ns_pid; /* inode numbers, as in /proc/PID/ns */
	__u32 ns_mnt;
	__u32 ns_net;
	__u32 ns_user;
	__u32 tid; /* last: what stands before is the same for all of a process's threads of one name and credentials */
};

enum er_fact {
	ER_FACT_INTERACTIVE = 1 << 0, /* descriptors 0 and 2 are the controlling terminal */
	ER_FACT_UPPER = 1 << 1,	      /* the file is in the upper layer of an overlay */
};

/* ER_EVENT_EXEC, a successful one (ret 0) or one that failed; ER_EVENT_SCAN, with path_len 0 for all but group leaders.
 */
struct er_exec {
	struct er_header hdr;
	struct er_task task;
	__u64 ino;
	__u64 parent_start_ns;
	__u32 ppid; /* real parent's tgid */
	__u32 dev;  /* s_dev: major << 20 | minor */
	__s32 ret;
	__u32 argv_len; /* arguments, each ended by a NUL */
	__u16 path_len;
	__u16 filename_len;
	__u16 cwd_len;
	__u16 cgroup_len; /* names up from the process's cgroup (v2), each ended by a NUL */
	__u16 v1_len;	  /* the same of a v1 hierarchy, where the host has one */
	__u16 i_mode;
	__u32 generation; /* tells files apart that had one inode number after another */
	__u32 i_uid;
	__u16 own_len;	 /* as in er_file */
	__u16 below_len; /* as in er_file */
	__u64 cap_bounding;
	__s64 mtime_ns; /* of the file, by the wall clock */
	__s64 ctime_ns;
	__u32 env_len;	  /* environment, each entry ended by a NUL */
	__u32 ns_nr;	  /* pid in its own pid namespace */
	__u16 interp_len; /* of a script, the interpreter as it was found */
	__u16 facts;	  /* enum er_fact */
	__u32 _pad;
	char tail[]; /* path, below, filename, interp, cwd, cgroup, v1, argv, env */
};

/* ER_EVENT_FORK: the task is the creator. */
struct er_fork {
	struct er_header hdr;
	struct er_task task;
	__u64 child_start_ns;
	__u32 child_pid;
	__u32 child_ns_nr; /* its pid in its own pid namespace */
	__u32 clone_flags; /* CLONE_*: what the two share, and what is the child's own */
	__u32 _pad;
};

/* ER_EVENT_EXIT: the last thread of a process. */
struct er_exit {
	struct er_header hdr;
	struct er_task task;
	__u32 code; /* as wait(2) reports it: status << 8 | signal */
	__u32 _pad;
};

/* ER_EVENT_OPEN, ER_EVENT_CREATE, ER_EVENT_WRITE, ER_EVENT_READ */
struct er_file {
	struct er_header hdr;
	struct er_task task;
	__u64 asked; /* write, read: bytes asked for; open: when the group leader of `about` began */
	__s32 ret;
	__s32 fd;
	__u32 open_flags; /* as passed */
	__u32 mode;	  /* open: as passed */
	__u32 f_mode;
	__u16 raw_len;
	__u16 content_len;
	/* From here to `below`: the file. Equal bytes, equal file, which tracerd has to look at once only. */
	__u64 ino;
	__u32 dev;
	__u32 generation;
	__u32 i_uid;
	__u32 about; /* open of a file below /proc/PID: that process's tgid; else 0 */
	__u16 i_mode;
	__u16 path_len;
	__u16 own_len;	 /* so much of the path's end is in the file's own mount */
	__u16 below_len; /* what stands before that within its filesystem */
	char tail[];	 /* path, below, raw, content */
};

/*
 * Every system call that its er_shape says all of: ER_EVENT_RENAME and whatever has no record of its own. Texts: the
 * path of the descriptor, or of where the first name begins; that name; the same of a second name, or other texts.
 */
struct er_plain {
	struct er_header hdr;
	struct er_task task;
	__u64 arg0;
	__u64 arg1;
	__u64 arg2;
	__u64 arg3;
	__u64 arg4;
	__u64 arg5;
	__s64 ret;
	__u64 ino; /* of what the call has a descriptor of; 0: none */
	__u32 dev;
	__u32 generation;
	__u16 i_mode;
	__u16 nr; /* of er_shape */
	__u16 len0;
	__u16 len1;
	__u16 len2;
	__u16 len3;
	__u32 i_uid;
	char tail[];
};

/* ER_EVENT_CONNECT, ER_EVENT_BIND, ER_EVENT_LISTEN, ER_EVENT_ACCEPT, ER_EVENT_SENDTO */
struct er_connect {
	struct er_header hdr;
	struct er_task task;
	__u64 amount; /* sendto: bytes asked to be sent; listen: the backlog */
	__u16 nr;     /* of er_shape */
	__u16 _pad;
	__u32 _pad2;
	__s32 fd;
	__s32 ret;
	__u16 family;
	__u16 dport; /* host byte order, as sport */
	__u16 sport;
	__u16 path_len;
	__u8 daddr[16]; /* 4 bytes used for AF_INET */
	__u8 saddr[16];
	char tail[]; /* AF_UNIX: sun_path */
};

/* ER_EVENT_PTRACE, ER_EVENT_KILL, ER_EVENT_PROCMEM: one process on another; target_pid 0: no such process */
struct er_ptrace {
	struct er_header hdr;
	struct er_task task;
	__u64 request; /* ptrace: the request; kill: the signal; procmem: bytes asked to be written */
	__u64 target_start_ns;
	__u64 target_parent_start_ns;
	__u32 target_pid;
	__u32 target_tid;
	__u32 target_uid;
	__u32 target_ppid;
	__s32 target_nr; /* as passed: in the caller's pid namespace, kill: maybe a group */
	__u16 nr;	 /* of er_shape */
	__u16 _pad;
	__s64 ret;
};

enum er_setuid_call {
	ER_CALL_INVALID = 0,
	ER_CALL_SETUID,
	ER_CALL_SETREUID,
	ER_CALL_SETRESUID,
	ER_CALL_SETFSUID,
	ER_CALL_GETUID, /* from here on: where a change of ids was noticed that no call had made */
	ER_CALL_GETEUID,
	ER_CALL_GETRESUID,
	ER_CALL_GETGID,
	ER_CALL_GETEGID,
	ER_CALL_GETRESGID,
	ER_CALL_CAPGET,
	ER_CALL_EXEC,
	ER_CALL_FORK,
};

/* ER_EVENT_SETUID */
struct er_setuid {
	struct er_header hdr;
	struct er_task task;
	__u32 call; /* enum er_setuid_call */
	__s32 ret;
	__u32 new_uid;
	__u32 new_euid;
	__u32 old_uid;
	__u32 old_euid;
};

/* ER_EVENT_CRED_CHANGE: what the thread has now is in er_task */
struct er_cred_change {
	struct er_header hdr;
	struct er_task task;
	__u64 old_cap_effective;
	__u64 old_cap_permitted;
	__u32 old_uid;
	__u32 old_euid;
	__u32 old_gid;
	__u32 old_egid;
	__u32 call; /* enum er_setuid_call */
	__u32 _pad;
};

/*
 * What to make of one system call. Positions are 1 to 6 for its arguments, 7 for its result, 0 for none. tracerd writes
 * them for the calls that are wanted, from the lines of execray/schema/events_*.py.
 */
struct er_shape {
	__u8 event; /* enum er_event; 0: nobody wants it */
	__u8 also;  /* one more event that it is */
	__u8 third; /* and one more */
	__u8 fd;    /* a descriptor */
	__u8 dir;   /* where the name begins; 0: in the working directory */
	__u8 name;
	__u8 dir2;
	__u8 name2;
	__u8 text;
	__u8 text2;
	__u8 need;  /* an argument that must have one of ... */
	__u8 armed; /* enum er_armed_event: which of its events are wanted from armed processes only */
	__u16 nr;   /* the 64-bit number, whatever ABI it came through */
	__u8 rests; /* enum er_rests */
	__u8 _pad2;
	__u32 bits; /* ... these bits, or it isn't the first of its events */
};

/* Where the shapes of each ABI begin. x32 calls with a number of their own are among the 64-bit ones;
 * operations of an io_uring stand by their opcodes. */
#define ER_SHAPES_NATIVE     0
#define ER_SHAPES_COMPAT     1024
#define ER_SHAPES_SOCKETCALL 1536
#define ER_SHAPES_URING	     1600
#define ER_SHAPES	     2048

enum er_rests {
	ER_RESTS = 1 << 0,	 /* it is of one event, whatever its arguments are, which may wait for another one */
	ER_RESTS_ALONE = 1 << 1, /* and in the other ABI the number is of no call that anybody wants */
};

enum er_armed_event {
	ER_ARMED_EVENT = 1 << 0,
	ER_ARMED_ALSO = 1 << 1,
	ER_ARMED_THIRD = 1 << 2,
	ER_ARMED_WHOLE = 1 << 3, /* all that it has: for others than armed processes it is no call of interest */
};

/*
 * Which processes may be armed, or ExecRay's own, by their tgid: not 0 where er_armed or er_self may have one of that
 * slot. A look-up in such a map costs more than all the rest for a call that isn't wanted after all. Two filters side
 * by side, of which one is whole while the other is made anew.
 */
#define ER_PID_SLOTS 4096
#define ER_PID_MARK  257 /* in both */

struct er_config {
	__u64 wanted;	      /* bit 1 << er_event */
	__u32 content;	      /* enum er_content: which bytes to take along */
	__u32 heartbeat_tgid; /* the calls of this process's ... */
	__u32 heartbeat_tid;  /* ... this thread are liveness probes */
	__u32 gate;	      /* the plan in use, 1 or 2; 0: everything passes. Or ER_GATE_SHADOW besides */
	__u64 followed;	      /* bit 1 << er_event: somebody follows all of these, also what no policy wants */
	__u64 waiting;	      /* bit 1 << er_event: the plan may have er_gate_code::waits */
	__u64 urgent;	      /* bit 1 << er_event: something may have to be done at these: the reader is woken */
	__u64 lapsed_ns;      /* CLOCK_BOOTTIME as tracerd last looked: what had ended by then has ended */
};

/* What every hook asks, in one map: each look-up has its price. */
struct er_shapes {
	struct er_shape shape[ER_SHAPES];
	__u16 armed[ER_PID_SLOTS];
	__u16 self[ER_PID_SLOTS];
	struct er_config config;
};

enum er_content {
	ER_CONTENT_WRITE = 1 << 0, /* what is written */
	ER_CONTENT_READ = 1 << 1,
	ER_CONTENT_ENV = 1 << 2,      /* environments */
	ER_CONTENT_SPELLING = 1 << 3, /* of a file whose path is known, how the caller wrote it */
};

#define ER_GATE_HALF   0xff /* of er_config::gate: the plan in use; 0: none, everything passes */
#define ER_GATE_SHADOW 256  /* everything passes, flagged with what the gate says of it */

enum er_self_flag {
	ER_SELF_DROP = 1 << 0,	    /* one of ExecRay's own processes */
	ER_SELF_INHERIT = 1 << 1,   /* so are its children, but not theirs (the enforcer's tcpdump) */
	ER_SELF_HEARTBEAT = 1 << 2, /* made by the liveness probe */
	ER_SELF_CHILD = 1 << 3, /* hidden as a child: stays so through exec; a daemon that executes something is none */
};

struct er_self {
	__u64 start_ns;
	__u32 flags; /* enum er_self_flag */
	__u32 _pad;
};

/* What a thread may, as it last got it: a set*id call is compared with what was before, and what there is now with
 * what calls gave. */
struct er_creds {
	__u64 start_ns;
	__u64 cap_effective;
	__u64 cap_permitted;
	__u32 uid;
	__u32 euid;
	__u32 gid;
	__u32 egid;
	__u32 ns_user; /* where the capabilities count */
	__u32 _pad;
};

/* A name that an operation of an io_uring brought along: the kernel's own copy, from the submission to the end. */
struct er_ring_key {
	__u64 request; /* where it is in the kernel's memory, which is used again */
	__u32 place;   /* which argument of the system call that does the same */
	__u32 _pad;
};

struct er_ring_name {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u64 ring;
	__u64 user_data;
	__u32 opcode;
	__u32 len; /* bytes of text */
	char text[ER_PATH_MAX];
};

enum er_counter {
	ER_COUNT_SENT = 0,
	ER_COUNT_DROPPED,    /* the ring was full */
	ER_COUNT_SELF,	     /* events of ExecRay's own processes */
	ER_COUNT_CREDS_FULL, /* no room to remember a thread's ids */
	ER_COUNT_SELF_FULL,  /* no room to remember one of our own processes */
	ER_COUNT_SYSCALLS,   /* the optional counter on sys_enter */
	ER_COUNT_NAMES_FULL, /* no room to keep a name of an io_uring's operation */
	ER_COUNT_REFUSED,    /* no room in the ring for what is only followed */
	ER_COUNT_MAX = 8,
};

/* The counters of one CPU: no two of them share a cache line, and whoever reads adds them up. */
struct er_counts {
	__u64 value[ER_COUNT_MAX];
};

#endif
