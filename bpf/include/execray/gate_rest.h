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
static __always_inline bool er_gate_sleeps(const struct er_config *config, const struct er_shape *shape,
					   struct task_struct *task)
{
	const struct er_gate_code *code;
	const struct er_gate *plan;
	struct er_gate_work *work;
	__u64 lapsed_ns;
	__u32 tgid;

	if (shape->event >= ER_GATE_CODES ||
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

#endif
