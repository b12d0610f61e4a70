/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What has begun: until when each policy counts as that, of a process or of the host. Compiled as gate_core.h is, which
 * says what a map look-up is. docs/adr/0017 says why stores and looks are in this order.
 */
#ifndef EXECRAY_GATE_BEGUN_H
#define EXECRAY_GATE_BEGUN_H

#include "execray/gate_raise.h"

/* Asked for where something has begun, or does: seldom. */
static __always_inline __u64 er_gate_now(struct er_gate_work *work)
{
	if (!work->now_ns)
		work->now_ns = ER_GATE_CLOCK();
	return work->now_ns;
}

/*
 * Notes that the policies of a bit's slot begin. Plain stores: of two at once either may be the last, which makes a
 * difference of the time between them, and plans add a second to windows. So whatever is stored in one place has one
 * window: where slots share it, the longest of theirs. Programs aren't preempted. The locked addition is a full
 * barrier: whoever looks after this event's record has taken its time, sees what is stored here.
 */
__noinline int er_gate_begin(__u32 bit)
{
	struct er_gate_work *work = er_gate_work();
	struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	struct er_gate_cell *cell = NULL;
	__u64 end, latest;
	__u32 slot;

	if (!plan)
		return 0;
	slot = plan->slot[bit & (ER_GATE_PLACES - 1)] & (ER_GATE_SLOTS - 1);
	if (!slot)
		return 0;
	if (slot < ER_GATE_OWN) {
		cell = er_gate_cell(work, true);
		if (!cell)
			work->full++;
	}
	end = er_gate_end(er_gate_now(work), plan->window_ns[slot]);
	latest = er_gate_end(er_gate_now(work), plan->window_ns[slot < ER_GATE_OWN ? 0 : ER_GATE_OWN]);
	if (cell) {
		er_gate_raise(&cell->until_ns[slot & (ER_GATE_OWN - 1)], end);
		er_gate_raise(&cell->until_ns[0], latest);
		er_gate_raise(&plan->cells_ns[slot & (ER_GATE_OWN - 1)], end);
		er_gate_raise(&plan->cells_ns[0], latest);
		er_gate_raise(&plan->celled_ns[work->tgid & (ER_PID_SLOTS - 1)], latest);
		er_gate_mark(plan, latest);
	} else {
		er_gate_raise(&plan->until_ns[slot], end);
		er_gate_raise(&plan->until_ns[slot < ER_GATE_OWN ? 0 : ER_GATE_OWN], latest);
	}
	__sync_fetch_and_add(&work->begun, 1);
	return 0;
}

/*
 * Whether a slot counts as begun for the process that acts. An event that is dropped by this has no time; it could not
 * have had a later one than that of this look, and so stands before any that begins afterwards.
 */
static __always_inline bool er_gate_has_begun(const struct er_gate *plan, struct er_gate_work *work, __u32 slot)
{
	__u64 until = *(const volatile __u64 *)&plan->until_ns[slot & (ER_GATE_SLOTS - 1)];
	__u64 other = *(const volatile __u64 *)&plan->settled_ns[slot & (ER_GATE_SLOTS - 1)];
	const struct er_gate_cell *cell = NULL;

	if (until < other)
		until = other;
	if (slot < ER_GATE_OWN && plan->celled_ns[work->tgid & (ER_PID_SLOTS - 1)])
		cell = er_gate_cell(work, false);
	if (cell) {
		other = *(const volatile __u64 *)&cell->until_ns[slot & (ER_GATE_OWN - 1)];
		if (until < other)
			until = other;
	}
	return until && until >= er_gate_now(work);
}

/*
 * Whether nothing can want an event of this kind, whatever it is: all of its bits wait, and for what hasn't begun.
 * Asked before anything of the event is known.
 */
static __always_inline bool er_gate_rests(const struct er_gate *plan, struct er_gate_work *work)
{
	const struct er_gate_code *code = &plan->code[work->event & (ER_GATE_CODES - 1)];
	__u32 i;

	if (plan->open >> (work->event & 63) & 1)
		return false;
	for (i = 0; i < ER_GATE_WAITS; i++) {
		if (i >= code->waits)
			break;
		if (er_gate_has_begun(plan, work, code->slot[i]))
			return false;
	}
	return code->waits && code->waits <= ER_GATE_WAITS;
}

/* Whether a bit that waits is awaited. */
__noinline int er_gate_awaits(__u32 bit)
{
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan = work ? er_gate_plan(work->half) : NULL;
	__u32 slot;

	if (!plan)
		return 1;
	slot = plan->slot[bit & (ER_GATE_PLACES - 1)] & (ER_GATE_SLOTS - 1);
	return !slot || er_gate_has_begun(plan, work, slot);
}

#endif
