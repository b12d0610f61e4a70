/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How far sequences have come that the kernel may finish. */
#ifndef EXECRAY_INLINE_CELLS_H
#define EXECRAY_INLINE_CELLS_H

#include "execray/inline_maps.h"

static __always_inline struct er_inline_cell *er_inline_cell(const struct er_scratch *scratch,
							     const struct er_inline_rule *rule)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	void *cells = er_slot(&er_inline_cells_slot);

	return cells ? bpf_map_lookup_elem(cells, &key) : NULL;
}

/* Whether a cell is this process's, and of this plan. It may become another process's at any time. */
static __always_inline bool er_inline_ours(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					   const struct er_inline_cell *cell)
{
	const volatile struct er_inline_cell *now = cell;

	return now->start_ns == scratch->record.exec.task.start_ns && now->generation == plan->generation;
}

/* When the latest sequence began that has come to this step of the rule; 0: none has. */
static __always_inline __u64 er_inline_since(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					     const struct er_inline_rule *rule)
{
	struct er_inline_cell *cell;
	__u64 since;

	if (!rule->step)
		return scratch->record.exec.hdr.time_ns;
	cell = er_inline_cell(scratch, rule);
	if (!cell || !er_inline_ours(scratch, plan, cell))
		return 0;
	since = *(volatile __u64 *)&cell->since[(rule->step - 1) & (ER_INLINE_STEPS - 1)];
	return er_inline_ours(scratch, plan, cell) ? since : 0;
}

/* What has begun is left to user space: there a sequence may have been used up. */
static __always_inline void er_inline_forget(const struct er_scratch *scratch, const struct er_inline_rule *rule)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	void *cells = er_slot(&er_inline_cells_slot);

	if (cells)
		bpf_map_delete_elem(cells, &key);
}

/* A step before the last was met by an event that user space gets: the sequence leaves its place, and is a step
 * further, where it takes the place of an older one. */
static __always_inline void er_inline_advance(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					      const struct er_inline_rule *rule, struct er_inline_cell *next)
{
	struct er_inline_cell_key key = {.tgid = scratch->record.exec.task.pid, .slot = rule->slot};
	__u64 since = er_inline_since(scratch, plan, rule);
	struct er_inline_cell *cell = er_inline_cell(scratch, rule);
	void *cells = er_slot(&er_inline_cells_slot);

	if (!since || !cells)
		return;
	__builtin_memset(next, 0, sizeof(*next));
	if (cell)
		__builtin_memcpy(next, cell, sizeof(*next));
	if (!cell || !er_inline_ours(scratch, plan, next) || !er_inline_ours(scratch, plan, cell)) {
		if (rule->step)
			return;
		__builtin_memset(next, 0, sizeof(*next));
	}
	next->start_ns = scratch->record.exec.task.start_ns;
	next->generation = plan->generation;
	if (rule->step)
		next->since[(rule->step - 1) & (ER_INLINE_STEPS - 1)] = 0;
	next->since[rule->step & (ER_INLINE_STEPS - 1)] = since;
	bpf_map_update_elem(cells, &key, next, BPF_ANY);
}

/* An event that may have been this rule's may have used up a sequence there. Not static, to be verified once. */
__noinline int er_inline_use_up(__u32 index)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan = work ? er_inline_plan(work) : NULL;
	const struct er_inline_rule *rule;

	if (!scratch || !plan)
		return 0;
	rule = &plan->rule[index & (ER_INLINE_RULES - 1)];
	if (rule->steps > 1 && rule->step + 1 == rule->steps)
		er_inline_forget(scratch, rule);
	return 0;
}

/*
 * User space has been sent an event that no rule is asked about, for it isn't sure: it may have met each, and used up
 * each sequence that it could be the last step of. Not static, to be verified once.
 */
__noinline int er_inline_doubt(void)
{
	struct er_inline_state *state = er_inline_state();
	struct er_scratch *scratch = er_get_scratch();
	struct er_inline_work *work = er_inline_work();
	const struct er_inline_plan *plan;
	__u32 code, first, end, i;

	if (!state || !scratch || !work)
		return 0;
	work->half = *(volatile __u64 *)&state->half;
	plan = work->half ? er_inline_plan(work) : NULL;
	if (!plan)
		return 0;
	code = scratch->call.event & (ER_INLINE_CODES - 1);
	first = plan->first[code];
	end = plan->end[code];
	for (i = 0; i < ER_INLINE_RULES; i++) {
		if (first + i >= end)
			break;
		er_inline_use_up(first + i);
	}
	return 0;
}

#endif
