/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which events leave the kernel: the gate's core on what the hooks have of a call. */
#ifndef EXECRAY_GATE_H
#define EXECRAY_GATE_H

#include "execray/gate_maps.h"
#include "execray/gate_core.h"
#include "execray/gate_address.h"
#include "execray/calls/facts.h"

#define ER_FMODE_CREATED 0x100000
/* Of a path that begins at a mount in nobody's tree all components are known, and policyd's engine goes by these. */
#define ER_GATE_UNSURE (ER_F_PATH_TRUNCATED | ER_F_PATH_TORN)
#define ER_O_TMPFILE   020000000
#define ER_AF_INET     2
#define ER_AF_INET6    10
#define ER_S_IFMT      0170000
#define ER_S_IALLUGO   07777
#define ER_S_IFIFO     0010000
#define ER_S_IFSOCK    0140000
#define ER_PF_EXITING  0x00000004
/* Of these there is none in many of the calls that could be one. */
#define ER_GATE_PARTIAL (1ULL << ER_EVENT_PROCMEM | 1ULL << ER_EVENT_PROCREAD | 1ULL << ER_EVENT_CREATE)
#define ER_RESTARTS	(-516) /* -516 to -512: the kernel's own "restart this call", which the caller never sees */
#define ER_ERRNO_MAX	4095

static __always_inline bool er_gate_restarts(__s64 ret)
{
	return ret >= ER_RESTARTS && ret <= ER_RESTARTS + 4;
}

/* What the walk has left of the path. Returns what is known of it. */
static __always_inline enum er_gate_path er_gate_names(const struct er_walk *walk, struct er_gate_work *work,
						       const struct er_scratch *scratch)
{
	__u32 size;

	if (walk->count > ER_GATE_DEPTH) {
		work->deep++;
		return ER_GATE_UNKNOWN;
	}
	work->count = walk->count;
	size = walk->size;
	work->size = size;
	size += walk->at - 16;
	barrier_var(size); /* checked as it is used, and not read again */
	if (size > ER_RECORD_MAX - 2 * ER_NAME_MAX)
		return ER_GATE_UNKNOWN;
	work->tail[0] = ER_GATE_LOAD(&scratch->record.bytes[size]);
	work->tail[1] = ER_GATE_LOAD(&scratch->record.bytes[size + 8]);
	return ER_GATE_KNOWN;
}

static __always_inline void er_gate_put(struct er_gate_work *work, enum er_gate_input input, __u64 value)
{
	work->number[input] = value;
	work->known |= 1U << input;
}

static __always_inline void er_gate_put_address(struct er_gate_work *work, enum er_gate_input input, __u16 family,
						const __u8 *address)
{
	__u64 upper = 0, lower = ER_GATE_V4_MAPPED | bpf_ntohl(*(const volatile __u32 *)address);

	if (family == ER_AF_INET6) {
		upper = bpf_be64_to_cpu(ER_GATE_LOAD(address));
		lower = bpf_be64_to_cpu(ER_GATE_LOAD(address + 8));
	}
	er_gate_put(work, input, er_gate_place(upper, lower));
}

/* What a socket's call says of both ends, as the decoder tells it: which of them is the source depends on the call. */
static __always_inline void er_gate_ends(const struct er_connect *connect, struct er_gate_work *work)
{
	const __u8 *src = connect->saddr, *dst = NULL;

	if (connect->family)
		er_gate_put(work, ER_GATE_FAMILY, connect->family);
	if (connect->family != ER_AF_INET && connect->family != ER_AF_INET6)
		return;
	switch (work->event) {
	case ER_EVENT_CONNECT: src = connect->sport ? connect->saddr : NULL; /* fall through */
	case ER_EVENT_SENDTO:
		dst = connect->daddr;
		er_gate_put(work, ER_GATE_PORT, connect->dport);
		break;
	case ER_EVENT_BIND: src = connect->ret ? connect->daddr : connect->saddr; break;
	case ER_EVENT_ACCEPT: src = connect->daddr; dst = connect->saddr;
	}
	if (src)
		er_gate_put_address(work, ER_GATE_SRC_IP, connect->family, src);
	if (dst)
		er_gate_put_address(work, ER_GATE_DST_IP, connect->family, dst);
}

/* The numbers that the event's record has. */
static __always_inline void er_gate_fields(struct er_scratch *scratch, struct er_gate_work *work)
{
	struct er_file *file = &scratch->record.file;
	struct er_setuid *setuid = &scratch->record.setuid;
	struct er_plain *plain = &scratch->record.plain;

	switch (work->event) {
	case ER_EVENT_OPEN:
	case ER_EVENT_CREATE:
		if (file->hdr.flags & ER_F_UNREADABLE)
			break;
		er_gate_put(work, ER_GATE_FLAGS, file->open_flags);
		er_gate_put(work, ER_GATE_MODE, file->mode);
		er_gate_put(work, ER_GATE_CREATED,
			    (file->f_mode & ER_FMODE_CREATED) || (file->ino && (file->open_flags & ER_O_TMPFILE)));
		break;
	case ER_EVENT_CONNECT:
	case ER_EVENT_SENDTO:
	case ER_EVENT_BIND:
	case ER_EVENT_LISTEN:
	case ER_EVENT_ACCEPT: er_gate_ends(&scratch->record.connect, work); break;
	case ER_EVENT_PTRACE:
	case ER_EVENT_KILL: er_gate_put(work, ER_GATE_REQUEST, scratch->record.ptrace.request); break;
	case ER_EVENT_CHMOD: /* behind the name, or else behind the descriptor */
		er_gate_put(work, ER_GATE_MODE,
			    (scratch->call.shape.name == 2 ? plain->arg2 : plain->arg1) & ER_S_IALLUGO);
		break;
	case ER_EVENT_SETUID:
		if (!(setuid->hdr.flags & ER_F_OLD_CREDS_UNKNOWN)) {
			er_gate_put(work, ER_GATE_OLD_UID, setuid->old_uid);
			er_gate_put(work, ER_GATE_OLD_EUID, setuid->old_euid);
		}
		if (setuid->call == ER_CALL_SETFSUID) /* it has no new ones */
			break;
		er_gate_put(work, ER_GATE_NEW_UID, setuid->new_uid);
		er_gate_put(work, ER_GATE_NEW_EUID, setuid->new_euid);
	}
}

/* Who acts, as far as a step asks. */
static __always_inline void er_gate_actor(struct er_scratch *scratch, struct er_gate_work *work, __u32 asks)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct cred *cred;

	if (asks & (1 << ER_GATE_UID | 1 << ER_GATE_EUID)) {
		cred = BPF_CORE_READ(task, real_cred);
		er_gate_put(work, ER_GATE_UID, BPF_CORE_READ(cred, uid.val));
		er_gate_put(work, ER_GATE_EUID, BPF_CORE_READ(cred, euid.val));
	}
	if (asks & 1 << ER_GATE_COMM) {
		struct er_task *out = &scratch->record.exec.task;

		er_fill_comm(out, task);
		work->comm[0] = ER_GATE_LOAD(&out->comm[0]);
		work->comm[1] = ER_GATE_LOAD(&out->comm[8]);
		work->known |= 1U << ER_GATE_COMM;
	}
}

/* Whether what has no place in a tree is a pipe or a socket. */
static __always_inline bool er_gate_is_named(const struct er_scratch *scratch)
{
	struct inode *inode = ER_AS(struct inode, scratch->call.inode);
	__u16 kind = er_is_of_file(&scratch->call) ? ER_LOAD(inode, i_mode) : scratch->record.plain.i_mode;

	return (kind & ER_S_IFMT) == ER_S_IFIFO || (kind & ER_S_IFMT) == ER_S_IFSOCK;
}

/* What is known of the path. As the decoder has it: a file without a number is none; of what has no place in a tree
 * pipes and sockets have a name that is known beforehand. */
static __always_inline enum er_gate_path er_gate_path(struct er_near *near, const struct er_scratch *scratch)
{
	const struct er_call *call = &scratch->call;
	bool file = er_is_of_file(call);

	if (scratch->record.exec.hdr.flags & ER_GATE_UNSURE)
		return ER_GATE_UNKNOWN;
	/* a name that can't be read leaves it open what it was of; of a write's file nobody knows then */
	if (file && !scratch->record.file.ino)
		return call->event == ER_EVENT_OPEN && !(scratch->record.exec.hdr.flags & ER_F_UNREADABLE)
			       ? ER_GATE_MISSING
			       : ER_GATE_UNKNOWN;
	if (!call->walked || (!file && (call->shape.name || !scratch->record.plain.ino)))
		return ER_GATE_UNKNOWN;
	if (near->walk.flags & ER_WALK_NAMELESS)
		return er_gate_is_named(scratch) ? ER_GATE_NAMELESS : ER_GATE_UNKNOWN;
	return er_gate_names(&near->walk, &near->work, scratch);
}

/* Collects what there is to be decided on, and decides. */
static __always_inline bool er_gate_verdict(const struct er_gate *plan, struct er_near *near,
					    struct er_scratch *scratch)
{
	struct er_gate_work *work = &near->work;
	__u32 event = work->event & (ER_GATE_CODES - 1), asks = plan->code[event].asks;
	__s64 ret = scratch->call.ret;

	work->path = er_gate_path(near, scratch);
	work->known = 0;
	if (!er_gate_restarts(ret))
		er_gate_put(work, ER_GATE_RET, ret);
	er_gate_fields(scratch, work);
	if (asks & (1 << ER_GATE_UID | 1 << ER_GATE_EUID | 1 << ER_GATE_COMM))
		er_gate_actor(scratch, work, asks);
	ER_GATE_BARRIER(); /* what was collected is in memory: the verifier looks at the decision once, not after each
			      case */
	return er_gate_decide(plan, work);
}

/* The row of the bits that ask for the event's file whatever leads to it; 0: none does. */
static __always_inline __u32 er_gate_named(const struct er_gate *plan, __u32 half, const struct er_scratch *scratch)
{
	const struct er_call *call = &scratch->call;
	void *files = er_slot(&er_gate_files_slot);
	struct er_gate_file key = {};
	struct inode *inode;
	const __u32 *rows;
	__u32 row;

	if (er_is_of_file(call)) {
		key.ino = scratch->record.file.ino;
		inode = ER_AS(struct inode, call->inode);
		if (key.ino) {
			key.dev = ER_LOAD(inode, i_sb, s_dev);
			key.generation = ER_LOAD(inode, i_generation);
		}
	} else {
		key.ino = scratch->record.plain.ino;
		key.dev = scratch->record.plain.dev;
		key.generation = scratch->record.plain.generation;
	}
	if (!key.ino || !files)
		return 0;
	rows = bpf_map_lookup_elem(files, &key);
	if (!rows)
		return 0;
	row = half == 1 ? *rows & 0xffff : *rows >> 16;
	return row & ER_GATE_FILE_ROW ? row & (ER_GATE_ROWS - 1) : plan->named;
}

/*
 * What an io_uring completes while its process ends comes after that end, by which what had begun there is forgotten. A
 * system call of an ending process doesn't return.
 */
static __always_inline bool er_gate_is_late(const struct er_scratch *scratch)
{
	struct task_struct *task;

	if (!scratch->call.uring)
		return false;
	task = er_this_task();
	return ER_READ(er_can_load(), task, flags) & ER_PF_EXITING;
}

/* When the gate looked at the event at hand, where everything passes. */
static __always_inline __u64 er_gate_looked_ns(void)
{
	struct er_gate_work *work = er_gate_work();

	return work ? work->now_ns : ER_GATE_CLOCK();
}

/*
 * The one place that decides, before it is said who did it and anything is copied from the caller. An event of a file
 * gets its path and numbers here, for each call of a function more would take as long as a level of the path; of others
 * the record has them. Whatever fails lets the event pass. Not static, so that it is verified once.
 */
__noinline int er_gate_pass(void)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_near *near = er_get_near();
	struct er_gate_work *work;
	const struct er_gate *plan;
	struct er_call *call;
	__u32 event, gate;
	bool pass;

	if (!scratch || !near)
		return 1;
	work = &near->work;
	call = &scratch->call;
	/* what is followed for its own sake, and asked for by nobody, goes no further */
	if (!call->wanted && !(scratch->record.exec.hdr.flags & ER_F_HEARTBEAT))
		return 0;
	if (er_is_of_file(call))
		er_take_facts(near, scratch);
	barrier();
	/* a probe is asked whether it arrives, and by nobody what it is */
	if (scratch->record.exec.hdr.flags & ER_F_HEARTBEAT)
		return 1;
	gate = call->gate;
	event = call->event;
	if (!(gate & ER_GATE_HALF) || event <= ER_EVENT_EXIT || event >= ER_GATE_CODES)
		return 1;
	barrier_var(event); /* the verifier of Linux 5.10 has lost the bound when it is used */
	event &= ER_GATE_CODES - 1;
	plan = er_gate_plan(gate & ER_GATE_HALF);
	if (!plan)
		return 1;
	work->event = event;
	work->half = gate & ER_GATE_HALF;
	work->tgid = call->tgid;
	/* where all passes, what would have been dropped gets a time, too: er_gate_awaits() */
	work->now_ns = gate & ER_GATE_SHADOW ? ER_GATE_CLOCK() : 0;
	work->named = plan->code[event].asks & 1 << ER_GATE_FILE ? er_gate_named(plan, work->half, scratch) : 0;
	work->urgent = 0;
	barrier(); /* as in er_gate_verdict(); what is asked again is read again */
	pass = er_gate_verdict(plan, near, scratch) || er_gate_is_late(scratch);
	call->urgent = work->urgent;
	gate = call->gate;
	event = call->event & (ER_GATE_CODES - 1);
	if (!pass && !(gate & ER_GATE_SHADOW))
		pass = call->followed && er_has_room();
	if (pass)
		work->passed[event]++;
	else
		work->dropped[event]++;
	if (gate & ER_GATE_SHADOW) {
		if (!pass)
			scratch->record.exec.hdr.flags |= ER_F_GATE_DROP;
		return 1;
	}
	return pass;
}

#endif
