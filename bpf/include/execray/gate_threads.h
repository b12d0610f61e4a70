/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plan, and which threads are of a process in which something has begun. Threads by where their stack is: that is
 * known of a call without asking for its task, and no exec changes it. docs/adr/0034 says why none is forgotten.
 */
#ifndef EXECRAY_GATE_THREADS_H
#define EXECRAY_GATE_THREADS_H

#include "execray/gate_raise.h"

#define ER_STACK_SHIFT 15 /* no stack is larger, and each begins at a multiple of its size */

struct er_gate_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, ER_GATE_HALVES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct er_gate));
};

ER_TABLE(er_gate, er_gate_map);

/* half: 1 or 2, as in er_config. */
static __always_inline struct er_gate *er_gate_plan(__u32 half)
{
	__u32 index = half - 1;

	return ER_TABLE_AT(er_gate, &index);
}

/* The place of a thread whose stack has an address with this lower half in it. */
static __always_inline __u32 er_gate_thread(__u32 stack)
{
	return stack >> ER_STACK_SHIFT & (ER_GATE_THREADS - 1);
}

/*
 * Notes until when something has begun in the current process. Of several threads only the current one is known here;
 * the kernel counts a new one before it tells of it.
 */
static __always_inline void er_gate_mark(struct er_gate *plan, __u64 end)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	er_gate_raise(&plan->threads_ns[er_gate_thread((__u64)BPF_CORE_READ(task, stack))], end);
	if (BPF_CORE_READ(task, signal, nr_threads) != 1)
		er_gate_raise(&plan->crowd_ns, end);
}

/*
 * A thread that a process gets, before it runs for the first time: for as long as if all began now, or what is stored
 * here would be older than what another one stores in the same place. A plain load gives no number of a pointer.
 */
static __always_inline void er_gate_inherit(struct task_struct *child)
{
	__u32 tgid = ER_READ(true, child, tgid), half;
	__u64 stack = (__u64)BPF_CORE_READ(child, stack), now_ns = bpf_ktime_get_boot_ns();

	for (half = 1; half <= ER_GATE_HALVES; half++) {
		struct er_gate *plan = er_gate_plan(half);

		if (plan && plan->celled_ns[tgid & (ER_PID_SLOTS - 1)] >= now_ns)
			er_gate_raise(&plan->threads_ns[er_gate_thread(stack)],
				      er_gate_end(now_ns, plan->window_ns[0]));
	}
}

#endif
