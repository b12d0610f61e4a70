/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which events leave the kernel: the gate's core on what the hooks have of a call. */
#ifndef EXECRAY_GATE_H
#define EXECRAY_GATE_H

#include "execray/gate_maps.h"
#include "execray/gate_core.h"
#include "execray/gate_address.h"

#define ER_GATE_HALF	 0xff /* of er_config::gate: the plan in use; 0: none, everything passes */
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

/* Hashes the names of the path that was walked just now, before another walk takes their place. */
__noinline int er_gate_note(void)
{
	struct er_config *config = er_get_config();
	struct er_scratch *scratch = er_get_scratch();
	struct er_walk *walk = er_get_walk();
	struct er_gate_work *work;
	__u32 i, size;

	if (!config || !(config->gate & ER_GATE_HALF))
		return 0;
	work = er_gate_work();
	if (!scratch || !walk || !work)
		return 0;
	if (walk->flags & ER_WALK_NAMELESS) {
		scratch->call.path_known = ER_GATE_NAMELESS;
		return 0;
	}
	if (walk->count > ER_GATE_DEPTH) {
		work->deep++;
		return 0;
	}
	work->count = walk->count;
	work->at = walk->at + 1;
	for (i = 0; i < ER_GATE_DEPTH; i++) {
		__u32 at, len;

		ER_GATE_BARRIER(); /* as in er_gate_choose() */
		at = work->at;
		if (i >= walk->count)
			break;
		if (at > ER_RECORD_MAX - 2 * ER_NAME_MAX)
			return 0;
		len = walk->level[(walk->count - 1 - i) & (ER_PATH_DEPTH - 1)].len;
		work->component[i] = er_gate_name(&scratch->record.bytes[at], len);
		work->at = at + len + 1;
	}
	size = walk->size;
	work->size = size;
	size += walk->at - 16;
	barrier_var(size); /* as above: checked as it is used */
	if (size > ER_RECORD_MAX - 2 * ER_NAME_MAX)
		return 0;
	work->tail[0] = ER_GATE_LOAD(&scratch->record.bytes[size]);
	work->tail[1] = ER_GATE_LOAD(&scratch->record.bytes[size + 8]);
	scratch->call.path_known = ER_GATE_KNOWN;
	return 0;
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

/* Whether the event's record is er_file: else, if it has a file, er_plain. */
static __always_inline bool er_is_of_file(const struct er_call *call)
{
	return call->event == ER_EVENT_OPEN || call->event == ER_EVENT_WRITE || call->event == ER_EVENT_READ ||
	       call->event == ER_EVENT_CREATE;
}

/* What is known of the path. As the decoder has it: a file without a number is none; of what has no place in a tree
 * pipes and sockets have a name that is known beforehand. */
static __always_inline enum er_gate_path er_gate_path(const struct er_scratch *scratch)
{
	const struct er_call *call = &scratch->call;
	bool file = er_is_of_file(call);
	__u16 kind = (file ? scratch->record.file.i_mode : scratch->record.plain.i_mode) & ER_S_IFMT;

	if (scratch->record.exec.hdr.flags & ER_GATE_UNSURE)
		return ER_GATE_UNKNOWN;
	/* a name that can't be read leaves it open what it was of; of a write's file nobody knows then */
	if (file && !scratch->record.file.ino)
		return call->event == ER_EVENT_OPEN && !(scratch->record.exec.hdr.flags & ER_F_UNREADABLE)
			       ? ER_GATE_MISSING
			       : ER_GATE_UNKNOWN;
	if (!file && (call->shape.name || !scratch->record.plain.ino))
		return ER_GATE_UNKNOWN;
	if (call->path_known == ER_GATE_NAMELESS && kind != ER_S_IFIFO && kind != ER_S_IFSOCK)
		return ER_GATE_UNKNOWN;
	return call->path_known;
}

/* Collects what there is to be decided on, and decides. Not static, so that it is verified once. */
__noinline int er_gate_verdict(void)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	__u32 event, asks;
	__s64 ret;

	if (!scratch || !plan)
		return 1;
	event = scratch->call.event & (ER_GATE_CODES - 1);
	ret = scratch->call.ret;
	work->event = event;
	work->path = er_gate_path(scratch);
	work->known = 0;
	if (!er_gate_restarts(ret))
		er_gate_put(work, ER_GATE_RET, ret);
	er_gate_fields(scratch, work);
	asks = plan->code[event].asks;
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
	bool file = er_is_of_file(call);
	void *files = er_slot(&er_gate_files_slot);
	struct er_gate_file key;
	const __u32 *rows;
	__u32 row;

	key.ino = file ? scratch->record.file.ino : scratch->record.plain.ino;
	key.dev = file ? scratch->record.file.dev : scratch->record.plain.dev;
	key.generation = file ? scratch->record.file.generation : scratch->record.plain.generation;
	if (!key.ino || !files)
		return 0;
	rows = bpf_map_lookup_elem(files, &key);
	if (!rows)
		return 0;
	row = half == 1 ? *rows & 0xffff : *rows >> 16;
	return row & ER_GATE_FILE_ROW ? row & (ER_GATE_ROWS - 1) : plan->named;
}

/*
 * Whether an event that all wait for needs no look at all. A probe, and what is only watched, goes the long way. Not
 * static: its caller stands below all others, and has no stack to spare on Linux 5.10.
 */
__noinline int er_gate_idle(__u32 event)
{
	struct er_config *config = er_get_config();
	struct task_struct *task = er_this_task();
	const struct er_gate *plan;
	struct er_gate_work *work;
	__u32 gate, tgid;

	if (!config)
		return false;
	event &= ER_GATE_CODES - 1;
	gate = config->gate;
	if (!(gate & ER_GATE_HALF) || gate & ER_GATE_SHADOW)
		return false;
	work = er_gate_work();
	plan = er_gate_plan(gate & ER_GATE_HALF);
	if (!work || !plan)
		return false;
	tgid = ER_READ(er_can_load(), task, tgid);
	if (tgid == config->heartbeat_tgid)
		return false;
	work->event = event;
	work->half = gate & ER_GATE_HALF;
	work->tgid = tgid;
	work->now_ns = 0;
	if (!er_gate_rests(plan, work))
		return false;
	work->dropped[event]++;
	return true;
}

/* Whether a call is of one event only, and of that whatever the arguments are. */
static __always_inline bool er_gate_is_plain(const struct er_shape *shape)
{
	return !shape->also && !shape->bits && !(shape->need & ER_ONE_OF);
}

/* Whether one of so many slots counts as begun, or may, for the current process. */
static __always_inline bool er_gate_some_begun(const struct er_gate *plan, const __u16 *slots, __u32 count,
					       __u64 lapsed_ns)
{
	__u32 i;

	for (i = 0; i < ER_GATE_WAITS && i < count; i++) {
		__u32 slot = slots[i] & (ER_GATE_SLOTS - 1);
		__u64 until = *(const volatile __u64 *)&plan->until_ns[slot];
		__u64 settled = *(const volatile __u64 *)&plan->settled_ns[slot];

		if ((until && until >= lapsed_ns) || (settled && settled >= lapsed_ns))
			return true;
	}
	return false;
}

/*
 * Whether most calls of a kind of event that rests do. Asked before all else, by plain loads alone, for a call of any
 * function takes as long as all of this; what isn't sure here is asked again by er_gate_idle().
 */
static __always_inline bool er_gate_sleeps(const struct er_shape *shape, struct task_struct *task)
{
	struct er_config *config = er_get_config();
	const struct er_gate_code *code;
	const struct er_gate *plan;
	struct er_gate_work *work;
	__u64 lapsed_ns;
	__u32 tgid;

	if (!config || shape->event >= ER_GATE_CODES ||
	    !((config->waiting & ~ER_GATE_PARTIAL) >> (shape->event & (ER_GATE_CODES - 1)) & 1))
		return false;
	if (!er_gate_is_plain(shape))
		return false;
	tgid = ER_READ(er_can_load(), task, tgid);
	if (tgid == config->heartbeat_tgid)
		return false;
	lapsed_ns = config->lapsed_ns;
	plan = er_gate_plan(config->gate);
	if (!plan || plan->open >> (shape->event & 63) & 1)
		return false;
	tgid = ER_READ(er_can_load(), task, tgid);
	if (plan->celled[tgid & (ER_PID_SLOTS - 1)])
		return false;
	code = &plan->code[shape->event & (ER_GATE_CODES - 1)];
	if (er_gate_some_begun(plan, code->slot, code->waits, lapsed_ns))
		return false;
	if (!code->waits || code->waits > ER_GATE_WAITS)
		return false;
	work = er_gate_work();
	if (!work)
		return false;
	work->dropped[shape->event & (ER_GATE_CODES - 1)]++;
	return true;
}

/*
 * The same of calls that have failed, where that is enough to know: half of all opens are for files that lie elsewhere.
 * Not static: its caller's stack is that of all.
 */
__noinline int er_gate_ends_failed(__u32 event)
{
	struct er_config *config = er_get_config();
	struct task_struct *task = er_this_task();
	const struct er_gate_code *code;
	const struct er_gate *plan;
	struct er_gate_work *work;
	__u64 lapsed_ns;
	__u32 tgid, count;

	event &= ER_GATE_CODES - 1;
	if (!config || (config->followed | ER_GATE_PARTIAL) >> event & 1)
		return false;
	tgid = ER_READ(er_can_load(), task, tgid);
	lapsed_ns = config->lapsed_ns;
	plan = er_gate_plan(config->gate);
	work = er_gate_work();
	if (!plan || !work || plan->open >> event & 1 || tgid == config->heartbeat_tgid)
		return false;
	code = &plan->code[event];
	count = code->failed - 1U;
	if (count > ER_GATE_WAITS || (count && plan->celled[tgid & (ER_PID_SLOTS - 1)]) ||
	    er_gate_some_begun(plan, &code->slot[ER_GATE_WAITS], count, lapsed_ns))
		return false;
	work->dropped[event]++;
	return true;
}

static __always_inline bool er_gate_fails(const struct er_shape *shape, __s64 ret)
{
	return ret < 0 && ret >= -ER_ERRNO_MAX && !er_gate_restarts(ret) && shape->event < ER_GATE_CODES &&
	       er_gate_is_plain(shape) && er_gate_ends_failed(shape->event);
}

/* The same of a call's one event: most writes, where what waits for them hasn't begun. */
static __always_inline bool er_gate_is_idle(__u32 event)
{
	struct er_config *config = er_get_config();

	return event < ER_GATE_CODES && config && (config->waiting >> (event & (ER_GATE_CODES - 1)) & 1) &&
	       er_gate_idle(event);
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
 * The one place that decides, asked when the record has the call's path and numbers, and before it is said who did it
 * and anything is copied from the caller. Whatever fails lets the event pass.
 */
static __always_inline bool er_gate_pass(const struct er_config *config, struct er_scratch *scratch)
{
	__u32 event = scratch->call.event, gate = config->gate;
	struct task_struct *task;
	struct er_gate_work *work;
	const struct er_gate *plan;
	bool pass;

	/* what is followed for its own sake, and asked for by nobody, goes no further */
	if (!er_wanted(config, event))
		return false;
	if (!(gate & ER_GATE_HALF) || event <= ER_EVENT_EXIT || event >= ER_GATE_CODES)
		return true;
	barrier_var(event); /* the verifier of Linux 5.10 has lost the bound when it is used */
	event &= ER_GATE_CODES - 1;
	work = er_gate_work();
	plan = er_gate_plan(gate & ER_GATE_HALF);
	if (!work || !plan)
		return true;
	task = er_caller(&scratch->call);
	work->half = gate & ER_GATE_HALF;
	work->tgid = ER_READ(er_can_load(), task, tgid);
	/* where all passes, what would have been dropped gets a time, too: er_gate_awaits() */
	work->now_ns = gate & ER_GATE_SHADOW ? ER_GATE_CLOCK() : 0;
	work->named = plan->code[event].asks & 1 << ER_GATE_FILE ? er_gate_named(plan, work->half, scratch) : 0;
	work->urgent = 0;
	pass = er_gate_verdict() || er_gate_is_late(scratch);
	scratch->call.urgent = work->urgent;
	if (!pass && !(gate & ER_GATE_SHADOW))
		pass = er_followed(config, event);
	if (pass)
		work->passed[event]++;
	else
		work->dropped[event]++;
	if (gate & ER_GATE_SHADOW) {
		if (!pass)
			scratch->record.exec.hdr.flags |= ER_F_GATE_DROP;
		return true;
	}
	return pass;
}

#endif
