// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The gate's core as a program of its own, which BPF_PROG_RUN runs on one question at a time: no hook, and nothing that
 * tracerd loads. The tests compare it with its twin.
 */
#include "execray/common.h"
#include "execray/gate_maps.h"
#include "execray/gate_case.h"

struct er_gate_case_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_gate_case));
};

ER_SLOT(er_gate_case_slot, struct er_gate_case_map);

static __always_inline struct er_gate_case *er_gate_get_case(void)
{
	void *cases = er_slot(&er_gate_case_slot);
	__u32 zero = 0;

	return cases ? bpf_map_lookup_elem(cases, &zero) : NULL;
}

SEC("syscall")
int er_gate_ask(void *ctx)
{
	struct er_gate_case *asked = er_gate_get_case();
	struct er_gate_work *work = er_gate_work();
	const struct er_gate *plan;

	if (!asked || !work)
		return 0;
	if (!er_gate_read_case(asked))
		return 0;
	bpf_probe_read_kernel(work, sizeof(*work), &asked->work);
	plan = er_gate_plan(work->half);
	if (plan)
		asked->verdict = !er_gate_rests(plan, work) && er_gate_decide(plan, work);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
