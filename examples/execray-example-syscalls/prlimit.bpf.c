// SPDX-License-Identifier: GPL-2.0-or-later
/* prlimit64: the new limits stand behind a pointer, where no line of a table reaches. */
#include "execray/own.h"

#define NR_PRLIMIT64	  302
#define NR_PRLIMIT64_I386 340
#define TS_COMPAT	  0x0002

SEC("tp_btf/sys_exit")
int BPF_PROG(example_prlimit, struct pt_regs *regs, long ret)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	bool compat = BPF_CORE_READ(task, thread_info.status) & TS_COMPAT;
	__u64 limits[2] = {}, from, number = regs->orig_ax & ~0x40000000ULL; /* x32 */
	struct er_plain *e;

	if (number != (compat ? NR_PRLIMIT64_I386 : NR_PRLIMIT64))
		return 0;
	e = er_own_begin(0, NR_PRLIMIT64, ret);
	if (!e)
		return 0;
	e->arg0 = compat ? regs->bx : regs->di;
	e->arg1 = compat ? regs->cx : regs->si;
	from = compat ? (__u32)regs->dx : regs->dx;
	e->arg2 = from != 0;
	if (from && bpf_probe_read_user(limits, sizeof(limits), (void *)from))
		e->hdr.flags |= ER_F_UNREADABLE;
	e->arg3 = limits[0];
	e->arg4 = limits[1];
	er_own_send(e, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
