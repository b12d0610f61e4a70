/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a program finds the rules of the kernel's own kills, and what they need. */
#ifndef EXECRAY_INLINE_MAPS_H
#define EXECRAY_INLINE_MAPS_H

#include "execray/gate_maps.h"
#include "execray/inline_claims.h"

struct er_inline_plan_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ER_INLINE_HALVES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_inline_plan));
};

struct er_inline_state_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_inline_state));
};

/* What is there is spared: a letter, and the name of a program's file (e), of a thread (c), or a pid (p). */
struct er_inline_spared_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ER_INLINE_SPARED);
	__uint(key_size, ER_INLINE_NAME);
	__uint(value_size, sizeof(__u32));
};

/* A kill takes one of its policy and one of the host's away: that is atomic, and tracerd lays them back a minute later.
 */
struct er_inline_tokens_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, (ER_INLINE_POLICIES + 1) * ER_INLINE_TOKENS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
};

struct er_inline_cells_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ER_INLINE_CELLS);
	__uint(key_size, sizeof(struct er_inline_cell_key));
	__uint(value_size, sizeof(struct er_inline_cell));
};

ER_SLOT(er_inline_plan_slot, struct er_inline_plan_map);
ER_SLOT(er_inline_state_slot, struct er_inline_state_map);
ER_SLOT(er_inline_spared_slot, struct er_inline_spared_map);
ER_SLOT(er_inline_tokens_slot, struct er_inline_tokens_map);
ER_SLOT(er_inline_cells_slot, struct er_inline_cells_map);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_inline_work);
} er_inline_works SEC(".maps");

static __always_inline struct er_inline_work *er_inline_work(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&er_inline_works, &zero);
}

static __always_inline struct er_inline_state *er_inline_state(void)
{
	void *states = er_slot(&er_inline_state_slot);
	__u32 zero = 0;

	return states ? bpf_map_lookup_elem(states, &zero) : NULL;
}

/* The plan that was in use when the record at hand was to be sent: one and the same until it is. */
static __always_inline const struct er_inline_plan *er_inline_plan(const struct er_inline_work *work)
{
	void *plans = er_slot(&er_inline_plan_slot);
	__u32 index = work->half - 1;

	return plans ? bpf_map_lookup_elem(plans, &index) : NULL;
}

/* Whether a rule is one of those for the event in the record. */
static __always_inline bool er_inline_mine(const struct er_scratch *scratch, const struct er_inline_plan *plan,
					   __u32 index)
{
	__u32 code = scratch->call.event & (ER_INLINE_CODES - 1);

	return index >= plan->first[code] && index < plan->end[code];
}

#endif
