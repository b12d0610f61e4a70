/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A program's own memory, one per CPU. No program runs twice at once on one CPU, so none sees another's. */
#ifndef EXECRAY_SCRATCH_H
#define EXECRAY_SCRATCH_H

#define ER_ONE_OF 8 /* er_shape::need: the argument must be one of two numbers of 16 bits */

#define ER_NAME_MAX 255

/*
 * One system call that has just returned. In map memory and not on the stack: of memory the verifier knows no values.
 * Before Linux 6.8 (41f6f64e6999) it trusts a constant read through a pointer to a caller's stack without marking it
 * precise: it takes `call->nr` of the first path it walks for the number on all, and removes the other branches as
 * dead.
 */
struct er_call {
	int nr;		     /* enum er_nr */
	enum er_event event; /* of this record: a call may be two */
	bool compat;
	__u8 skip;    /* enum er_armed_event: what this process's call is to nobody */
	bool awake;   /* it was asked whether its one event rests */
	bool own;     /* the process may be one of ExecRay's: its pid's place in er_shapes is taken */
	bool uring;   /* no system call, but an operation of an io_uring with the same arguments */
	__u32 opcode; /* of such an operation; request, ring and user_data tell it from others: ring.h */
	__u64 request;
	__u64 ring;
	__u64 user_data;
	struct er_shape shape;
	union {
		struct {
			__s64 none; /* -1: no descriptor */
			__u64 arg[6];
			__s64 ret;
		};
		__u64 value[8]; /* the same, by the positions of er_shape */
	};
	__u64 task;	     /* the current one: er_caller() */
	__u32 tgid;	     /* its process */
	struct file *file;   /* what the call's descriptor referred to when the hook began; NULL for none */
	struct inode *inode; /* of that file, as it was then; files.h */
	__u32 path_at;	     /* where in the record's bytes the path of the event is; gate.h */
	__u32 path_len;	     /* 0: it has none, or one that the kernel doesn't know */
	__u32 urgent;	     /* it goes on with what has begun; gate.h */
	__u32 gate;	     /* er_config::gate when the event was begun */
	bool walked;	     /* the walk's memory has the path */
	bool wanted;	     /* by policies; else it is followed for its own sake */
	bool followed;	     /* somebody follows all of its kind */
};

/* The current task, for ER_READ(er_can_load(), ...): a plain load where that is possible, for the call of a helper
 * takes longer than a level of a path. */
static __always_inline struct task_struct *er_caller(const struct er_call *call)
{
	return er_can_cast() ? ER_AS(struct task_struct, (void *)call->task) : er_this_task();
}

struct er_scratch {
	struct er_call call;
	union {
		struct er_exec exec;
		struct er_file file;
		struct er_plain plain;
		struct er_connect connect;
		struct er_ptrace ptrace;
		struct er_setuid setuid;
		struct er_cred_change cred_change;
		char bytes[ER_RECORD_MAX];
	} record;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_scratch);
} er_scratches SEC(".maps");

static __always_inline struct er_scratch *er_get_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&er_scratches, &zero);
}

/* Sends the record that begins the scratch area's, of a system call that the gate has looked at. */
static __always_inline bool er_send_scratch(struct er_scratch *scratch, __u64 len)
{
	struct er_header *header = &scratch->record.exec.hdr;

	return er_send_as(header, len, scratch->call.urgent || er_is_urgent(header));
}

#endif
