/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is being killed in the kernel. Beside the rules, for the end of a process asks for it. */
#ifndef EXECRAY_INLINE_CLAIMS_H
#define EXECRAY_INLINE_CLAIMS_H

#include "execray/inline_plan.h"

#define ER_SIGKILL 9

/* A claim for each process that is killed. The oldest go: by then their processes have ended. */
struct er_inline_claims_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ER_INLINE_CLAIMS);
	__uint(key_size, sizeof(struct er_inline_claim_key));
	__uint(value_size, sizeof(__u32));
};

ER_SLOT(er_inline_claims_slot, struct er_inline_claims_map);

/* Whether the process was killed here: its record may be in the ring, and nobody was woken for it. */
static __always_inline bool er_inline_claimed(const struct er_task *process)
{
	struct er_inline_claim_key key = {.start_ns = process->start_ns, .tgid = process->pid};
	void *claims = er_slot(&er_inline_claims_slot);

	return claims && bpf_map_lookup_elem(claims, &key);
}

#endif
