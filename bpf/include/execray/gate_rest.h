/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events that end before anything of them is looked at: what can want them hasn't begun, or never wants a failed call.
 */
#ifndef EXECRAY_GATE_REST_H
#define EXECRAY_GATE_REST_H

#include "execray/gate.h"

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

/* Whether one of so many slots counts as begun, or may. lapsed_ns: a time not long ago. */
static __always_inline bool er_gate_some_begun(const struct er_gate *plan, const __u16 *slots, __u32 count,
					       __u64 lapsed_ns)
{
	__u32 i;

	for (i = 0; i < ER_GATE_WAITS && i < count; i++) {
		__u32 slot = slots[i] & (ER_GATE_SLOTS - 1);
		__u64 until = *(const volatile __u64 *)&plan->until_ns[slot];
		__u64 settled = *(const volatile __u64 *)&plan->settled_ns[slot];

		if (until >= lapsed_ns || settled >= lapsed_ns)
			return true;
	}
	return false;
}

/* Whether one of so many slots counts as begun, or may, in some process or other. */
static __always_inline bool er_gate_some_own(const struct er_gate *plan, const __u16 *slots, __u32 count,
					     __u64 lapsed_ns)
{
	__u32 i;

	for (i = 0; i < ER_GATE_WAITS && i < count; i++) {
		__u64 until = *(const volatile __u64 *)&plan->cells_ns[slots[i] & (ER_GATE_OWN - 1)];

		if (slots[i] < ER_GATE_OWN && until >= lapsed_ns)
			return true;
	}
	return false;
}

static __always_inline bool er_gate_drop(__u32 event)
{
	struct er_gate_work *work = er_gate_work();

	if (work)
		work->dropped[event & (ER_GATE_CODES - 1)]++;
	return work;
}

/*
 * Whether a call whose shape may rest does, whoever makes it: nothing that its event waits for has begun, anywhere or
 * in a process of which the caller can be a thread. By plain loads alone, for to ask for the current task, as to call
 * any function, takes as long as all of this. That it isn't known who it is does no harm: a probe fails, and what the
 * number means to a 32-bit caller is no call that anybody wants. stack: an address on the caller's, its lower half.
 */
static __always_inline bool er_gate_is_still(const struct er_config *config, const struct er_shape *shape, __u32 stack,
					     __s64 ret)
{
	const struct er_gate *plan = er_gate_plan(config->gate);
	__u32 event = shape->event & (ER_GATE_CODES - 1);
	__u64 lapsed_ns = config->lapsed_ns;
	const struct er_gate_code *code;

	if (!plan || ret < 0)
		return false;
	code = &plan->code[event];
	if (!code->waits || er_gate_some_begun(plan, code->slot, code->waits, lapsed_ns))
		return false;
	if ((plan->threads_ns[er_gate_thread(stack)] >= lapsed_ns || plan->crowd_ns >= lapsed_ns) &&
	    er_gate_some_own(plan, code->slot, code->waits, lapsed_ns))
		return false;
	return er_gate_drop(event);
}

/* The same of a 64-bit call of a known process. What isn't sure by a time not long ago is decided with all the rest. */
static __always_inline bool er_gate_sleeps(const struct er_config *config, const struct er_shape *shape,
					   struct task_struct *task)
{
	__u32 event = shape->event & (ER_GATE_CODES - 1), tgid = ER_READ(er_can_load(), task, tgid);
	const struct er_gate *plan = er_gate_plan(config->gate);
	__u64 lapsed_ns = config->lapsed_ns;
	const struct er_gate_code *code;

	if (!plan || tgid == config->heartbeat_tgid)
		return false;
	code = &plan->code[event];
	if (!code->waits || er_gate_some_begun(plan, code->slot, code->waits, lapsed_ns))
		return false;
	if (plan->celled_ns[tgid & (ER_PID_SLOTS - 1)] >= lapsed_ns &&
	    er_gate_some_own(plan, code->slot, code->waits, lapsed_ns))
		return false;
	return er_gate_drop(event);
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
	if (count > ER_GATE_WAITS || (count && plan->celled_ns[tgid & (ER_PID_SLOTS - 1)] >= lapsed_ns) ||
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
static __always_inline bool er_gate_is_idle(const struct er_config *config, __u32 event)
{
	return event < ER_GATE_CODES && (config->waiting >> (event & (ER_GATE_CODES - 1)) & 1) && er_gate_idle(event);
}

#endif
