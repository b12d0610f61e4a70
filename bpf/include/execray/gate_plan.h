/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the gate is told: for each step of the loaded policies bits, and for each value that is tested the bits that it
 * doesn't contradict. docs/kernel-gate.md has the whole; tracerd/gate_table.py writes it. Part of the ABI, as event.h
 * is.
 */
#ifndef EXECRAY_GATE_PLAN_H
#define EXECRAY_GATE_PLAN_H

#define ER_GATE_CODES	 64
#define ER_GATE_WORDS	 64   /* of a row; 64 bits each */
#define ER_GATE_PLACES	 4096 /* for bits */
#define ER_GATE_ROWS	 4096 /* row 0 has no bit, row 1 every one */
#define ER_GATE_KEYS	 8192
#define ER_GATE_BUCKETS	 4096 /* of keys, by their topmost 12 bits */
#define ER_GATE_BUCKET	 16   /* keys in one bucket at most */
#define ER_GATE_BLOOM	 1024 /* words */
#define ER_GATE_SUFFIXES 8    /* lengths */
#define ER_GATE_NUMBERS	 6    /* tested of one event */
#define ER_GATE_BOUNDS	 16   /* of one number */
#define ER_GATE_INPUTS	 32   /* places for numbers */
#define ER_GATE_CHOSEN	 48   /* rows that the numbers of one event choose at most; more are left out */
#define ER_GATE_DEPTH	 32   /* components of a path; of a deeper one nothing is known */
#define ER_GATE_FILES	 8192
#define ER_GATE_FILE_ROW 32768
#define ER_GATE_HALVES	 2
#define ER_GATE_SLOTS	 512 /* where it is kept that a policy has begun */
#define ER_GATE_OWN	 64  /* the slots below are each process's own, the others the host's */
/* No policy has slots 0 and ER_GATE_OWN: there stands the latest of all of a process's own, and of all of the host's.
 */
#define ER_GATE_WAITS	 3 /* slots that the bits of one event may wait for, to be asked before anything else */
#define ER_GATE_LOOKS	 8 /* bits of one word that are asked whether they are awaited */
#define ER_GATE_CELLS	 8192
#define ER_GATE_THREADS	 4096
#define ER_GATE_FOR_EVER (~0ULL)
#define ER_GATE_CASE_MAX 4224

/* What numbers are tested, as the catalogue has them: execray/gate/plan.py. */
enum er_gate_input {
	ER_GATE_NONE = 0,
	ER_GATE_RET = 1,
	ER_GATE_UID = 2,
	ER_GATE_EUID = 3,
	ER_GATE_FLAGS = 4,
	ER_GATE_MODE = 5,
	ER_GATE_FAMILY = 6,
	ER_GATE_PORT = 7,
	ER_GATE_REQUEST = 8, /* ptrace: the request; kill: the signal */
	ER_GATE_NEW_UID = 9,
	ER_GATE_NEW_EUID = 10,
	ER_GATE_CREATED = 11,
	ER_GATE_DST_IP = 12, /* gate_address.h */
	ER_GATE_SRC_IP = 13,
	ER_GATE_FILE = 14, /* no numbers, but places in er_gate_code::asks: a file whatever leads to it, */
	ER_GATE_COMM = 15, /* and the actor's name */
	ER_GATE_OLD_UID = 16,
	ER_GATE_OLD_EUID = 17,
};

enum er_gate_kind {
	ER_GATE_RANGES = 1, /* the row is chosen by how many bounds aren't above the (signed) value */
	ER_GATE_BITS = 2,   /* for each bound two rows: none of its bits is set in the value, or one is */
};

struct er_gate_number {
	__u8 input; /* enum er_gate_input */
	__u8 kind;  /* enum er_gate_kind */
	__u16 rows; /* the first */
	__u16 bounds;
	__u16 _pad;
	__u64 bound[ER_GATE_BOUNDS];
};

/* One event's tests. Rows by their index. */
struct er_gate_code {
	__u16 first_word; /* its bits are in these words */
	__u16 end_word;
	__u16 all;	     /* all of its bits: what nothing is known of contradicts none */
	__u16 path_free;     /* bits that ask nothing of the path */
	__u16 path_nameless; /* bits that a pipe, socket or memfd may have */
	__u16 path_missing;  /* bits that an event without a file may have */
	__u16 comm_free;     /* bits that ask nothing of the name */
	__u16 numbers;	     /* how many */
	__u32 asks;	     /* bit 1 << enum er_gate_input: what must be looked at */
	__u32 begins;	     /* whether some of its bits begin a policy */
	__u16 waits;	     /* where all of its bits wait: for how many slots, the first of these; else 0 */
	__u16 failed;	     /* where all of those wait that a failed call may meet: 1 more than for how many, ... */
	__u16 slot[2 * ER_GATE_WAITS]; /* ... the others, from ER_GATE_WAITS on */
	struct er_gate_number number[ER_GATE_NUMBERS];
};

/*
 * Key of the files that policies mean whatever leads to them. The value has 16 bits for each half's plan: the row of
 * the bits that ask for this file, with ER_GATE_FILE_ROW; 0: that of all bits that ask for any.
 */
struct er_gate_file {
	__u64 ino;
	__u32 dev;
	__u32 generation;
};

struct er_gate_row {
	__u64 word[ER_GATE_WORDS];
};

/* What has begun in a process under the plan of one half. Taken out when its last thread ends. */
struct er_gate_cell_key {
	__u32 tgid;
	__u32 half;
};

struct er_gate_cell {
	__u64 until_ns[ER_GATE_OWN];
};

/* One plan, whole: there is no second look-up that could fail or give another plan's. */
struct er_gate {
	__u64 generation;
	__u64 open;			 /* bit 1 << er_event: not tested, all pass */
	__u32 first;			 /* the row of the bits that are awaited always */
	__u32 named;			 /* the row of the bits that ask for a file whatever leads to it */
	__u64 window_ns[ER_GATE_SLOTS];	 /* how long what has begun counts; ER_GATE_FOR_EVER. At 0 and ER_GATE_OWN: the
					    longest */
	__u64 settled_ns[ER_GATE_SLOTS]; /* until when it counts that was begun before the plan came; tracerd's alone */
	__u64 until_ns[ER_GATE_SLOTS];	 /* and what was begun since, anywhere; the programs' alone */
	__u64 cells_ns[ER_GATE_OWN];	 /* the latest of all cells */
	__u64 crowd_ns;			 /* the latest of those that began where a process had several threads */
	__u16 slot[ER_GATE_PLACES];	 /* that a bit begins, where it is among the first; else that it waits for */
	/* until when something has begun in a process of a slot, by tgid as in er_shapes, or in that of a thread:
	 * gate_threads.h */
	__u64 celled_ns[ER_PID_SLOTS];
	__u64 threads_ns[ER_GATE_THREADS];
	__u8 suffix[ER_GATE_SUFFIXES];	   /* lengths 1 to 16 that some key has; the first 0 ends them */
	__u64 bloom[ER_GATE_BLOOM];	   /* two bits for each key */
	__u16 bucket[ER_GATE_BUCKETS + 4]; /* where a bucket's keys begin; the next one's begin ends them */
	__u64 key[ER_GATE_KEYS];	   /* ascending */
	__u16 key_row[ER_GATE_KEYS];
	__u64 free_words[ER_GATE_ROWS]; /* of a row: the words in which it has bits of its event's path_free, or may */
	struct er_gate_code code[ER_GATE_CODES];
	struct er_gate_row row[ER_GATE_ROWS];
};

/* What is known of the event's path. */
enum er_gate_path {
	ER_GATE_UNKNOWN = 0,
	ER_GATE_KNOWN = 1,
	ER_GATE_NAMELESS = 2,
	ER_GATE_MISSING = 3,
};

/* The event at hand, and the decision's own memory. */
struct er_gate_work {
	__u32 event; /* enum er_event */
	__u32 half;
	__u32 path;  /* enum er_gate_path */
	__u32 count; /* of components */
	__u32 size;  /* of the path, in bytes */
	__u32 known; /* bit 1 << enum er_gate_input */
	__u32 tgid;
	__u32 named;  /* the row of the bits that ask for this file whatever leads to it; 0: none does */
	__u64 now_ns; /* 0: not asked for yet */
	__u64 number[ER_GATE_INPUTS];
	__u64 comm[2]; /* behind its NUL only NULs */
	__u64 tail[2]; /* the path's last 16 bytes; before a shorter one's begin anything */
	__u64 component[ER_GATE_DEPTH];
	/* from here on the decision's own */
	__u32 at;
	__u32 hits;
	__u32 rows;
	__u32 comm_row;
	__u16 row[ER_GATE_CHOSEN];
	__u64 pass;
	__u64 urgent;		  /* it goes on with what has begun */
	__u64 left;		  /* of a word: the bits that nothing contradicts */
	__u64 hit[ER_GATE_WORDS]; /* of the event's words: bits that the path has by its keys */
	/* counts; tracerd adds up those of all processors */
	__u64 passed[ER_GATE_CODES];
	__u64 dropped[ER_GATE_CODES];
	__u64 deep;  /* paths of more components than ER_GATE_DEPTH */
	__u64 begun; /* how often some policy began */
	__u64 full;  /* and there was no room for it in the process's cell */
	struct er_gate_cell_key key;
	struct er_gate_cell fresh; /* what a cell is at first: zeros */
};

/* What the gate's tests ask (bpf/gate.bpf.c, tests/fuzz): an event, and its path in bytes. */
struct er_gate_case {
	struct er_gate_work work;
	__u32 verdict; /* the answer; 1: it passes */
	__u32 _pad;
	__u16 len[ER_GATE_DEPTH];    /* of the path's components */
	char path[ER_GATE_CASE_MAX]; /* begins behind 16 bytes, as in a record something stands before it */
};

#endif
