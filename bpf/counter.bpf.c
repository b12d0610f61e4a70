// SPDX-License-Identifier: GPL-2.0-or-later
/* Optional second sign of life: every system call counted. Costs each of them about 80 ns, so it is off by default. */
#include "execray/common.h"

SEC("tp_btf/sys_enter")
int BPF_PROG(er_sys_enter, struct pt_regs *regs, long id)
{
	er_count_often(ER_COUNT_SYSCALLS);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
