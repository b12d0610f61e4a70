/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kills in the kernel: what is told to the hook of system calls, and what it tells. A rule is one way to meet one step
 * of a policy, and says all of it: an event that meets the rule meets the step. docs/kernel-kills.md has the whole;
 * tracerd/inline.py writes it. Part of the ABI, as event.h is.
 */
#ifndef EXECRAY_INLINE_PLAN_H
#define EXECRAY_INLINE_PLAN_H

#define ER_INLINE_CODES	   64
#define ER_INLINE_RULES	   256
#define ER_INLINE_NUMBERS  6   /* tests of numbers in a rule */
#define ER_INLINE_TEXTS	   4   /* tests of texts in a rule */
#define ER_INLINE_TEXT	   128 /* bytes of one */
#define ER_INLINE_POLICIES 64
#define ER_INLINE_STEPS	   4  /* of a policy */
#define ER_INLINE_NAME	   64 /* bytes of what is spared */
#define ER_INLINE_SPARED   1024
#define ER_INLINE_TOKENS   64 /* kills in a minute, of one policy and of all */
#define ER_INLINE_HOST	   64 /* instead of a policy's slot: the tokens of all */
#define ER_INLINE_CELLS	   16384
#define ER_INLINE_CLAIMS   1024
#define ER_INLINE_HALVES   2
#define ER_INLINE_SLACK_NS 100000000 /* a sequence so near its end is left to user space */

enum er_inline_kind {
	ER_INLINE_RANGE = 1, /* low <= value <= high, signed */
	ER_INLINE_SAME = 2,  /* (value & low) == high */
};

enum er_inline_part {
	ER_INLINE_EXACT = 1, /* the path */
	ER_INLINE_STARTS = 2,
	ER_INLINE_ENDS = 3,
	ER_INLINE_COMM = 4, /* the thread's name */
};

struct er_inline_number {
	__u8 input; /* enum er_gate_input */
	__u8 kind;  /* enum er_inline_kind */
	__u8 negate;
	__u8 _pad[5];
	__u64 low;
	__u64 high;
};

struct er_inline_text {
	__u8 part; /* enum er_inline_part */
	__u8 negate;
	__u16 len;
	__u32 _pad;
	char bytes[ER_INLINE_TEXT]; /* behind its end NULs */
};

struct er_inline_rule {
	__u32 policy; /* what the record of a kill says: the first 32 bits of the policy's hash */
	__u16 slot;   /* the policy's place in this plan */
	__u8 step;    /* from 0 */
	__u8 steps;
	__u64 within_ns;
	__u16 numbers;
	__u16 texts;
	__u32 _pad;
	struct er_inline_number number[ER_INLINE_NUMBERS];
	struct er_inline_text text[ER_INLINE_TEXTS];
};

/* The rules of each event lie one behind the other, those of later steps first. */
struct er_inline_plan {
	__u64 generation;
	__u16 first[ER_INLINE_CODES];
	__u16 end[ER_INLINE_CODES];
	struct er_inline_rule rule[ER_INLINE_RULES];
};

struct er_inline_state {
	__u64 lease_ns; /* CLOCK_BOOTTIME; from then on nobody is killed here */
	__u64 half;	/* the plan in use, 1 or 2; 0: none */
	/* counts */
	__u64 killed;
	__u64 expired; /* met, and not killed for the lease had ended */
	__u64 spared;  /* likewise: on the protected list, or not known not to be */
	__u64 budget;  /* likewise: no kill was left for this minute */
	__u64 unsent;  /* likewise: the ring had no room for the evidence */
	__u64 failed;  /* the kernel didn't take the signal */
	/* where to look first for a kill that is left, by policies' places, and behind these of all */
	__u8 next[ER_INLINE_POLICIES + 8];
};

/* How far the sequences of one policy have come in one process. */
struct er_inline_cell_key {
	__u32 tgid;
	__u32 slot;
};

struct er_inline_cell {
	__u64 start_ns; /* of the process */
	__u64 generation;
	__u64 since[ER_INLINE_STEPS]; /* when the latest sequence that has come so far began; 0: none has */
};

/* A process that is being killed, claimed by the first of its threads. The value is the policy that has paid for it, as
 * er_inline_rule has it; 0: none has yet. */
struct er_inline_claim_key {
	__u64 start_ns; /* of the process */
	__u32 tgid;
	__u32 _pad;
};

/* Whether an event meets a rule. */
enum er_inline_met {
	ER_INLINE_NOT = 0,
	ER_INLINE_YES = 1,
	ER_INLINE_MAYBE = 2,	/* user space may know */
	ER_INLINE_FINISHES = 3, /* it does, and that completes the rule's policy */
};

/* What is done with each rule of an event. */
enum er_inline_what {
	ER_INLINE_LOOK = 0,	/* does the event meet it? */
	ER_INLINE_CHARGE = 1,	/* takes a kill for the first that ends its policy, and whose policy has one left */
	ER_INLINE_REMEMBER = 2, /* it was sent, and met those */
};

/* The program's own memory, one per CPU. */
struct er_inline_work {
	char name[ER_INLINE_NAME];
	__u64 half; /* of the plan by which the record at hand is judged, 1 or 2 */
	struct er_inline_cell cell;
	struct er_inline_claim_key claim; /* of the process at hand, and its value */
	__u32 payer;
	__u32 ends;		   /* how many rules end their policies */
	__u32 found;		   /* 1 + the rule that kills */
	__s32 token;		   /* its kill */
	__u32 joined;		   /* the policy that has paid where another thread was first; 0: none has */
	__u32 refused;		   /* 1 + the place of the policy that was found last to have no kill left */
	__u8 met[ER_INLINE_RULES]; /* enum er_inline_met */
};

#endif
