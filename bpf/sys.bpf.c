// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * System calls, as they return: one raw tracepoint for all of them. Tracepoints of single calls would miss 32-bit entry
 * points, and are skipped without a word while another tool's program runs.
 */
#include "execray/common.h"
#include "execray/syscalls.h"
#include "execray/calls/files.h"
#include "execray/calls/exec.h"
#include "execray/calls/connect.h"
#include "execray/calls/ptrace.h"
#include "execray/calls/creds.h"
#include "execray/calls/plain.h"

/* One record of the call in the scratch area. Not static, so that it is verified once and not for each use. */
__noinline int er_record(void)
{
	struct er_config *config = er_get_config();
	struct er_scratch *scratch = er_get_scratch();
	struct er_call *call;

	if (!config || !scratch)
		return 0;
	call = &scratch->call;
	/* most writes are to something else than a process's memory */
	if (call->event == ER_EVENT_PROCMEM && call->nr != NR_PROCESS_VM_WRITEV && !er_is_proc_mem(call->file))
		return 0;
	if (!er_begin(&scratch->record.exec.hdr, &scratch->record.exec.task, config, call->event, 0))
		return 0;
	if (call->compat)
		scratch->record.exec.hdr.flags |= ER_F_COMPAT_ABI;
	switch (call->event) {
	case ER_EVENT_OPEN: er_clear_file(&scratch->record.file, call->ret); return er_open(scratch, call);
	case ER_EVENT_WRITE:
		er_clear_file(&scratch->record.file, call->ret);
		return er_write(scratch, call, config->content);
	case ER_EVENT_EXEC: return er_exec_failed(scratch, call);
	case ER_EVENT_CONNECT:
	case ER_EVENT_BIND:
	case ER_EVENT_LISTEN:
	case ER_EVENT_ACCEPT:
	case ER_EVENT_SENDTO: return er_connect(scratch, call);
	case ER_EVENT_PTRACE:
	case ER_EVENT_KILL:
	case ER_EVENT_PROCMEM: return er_ptrace(scratch, call);
	case ER_EVENT_SETUID: return er_setuid(scratch, call, er_wanted(config, call->event));
	default: return er_plain(scratch, call);
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(er_sys_exit, struct pt_regs *regs, long ret)
{
	struct er_shapes *shapes = er_get_shapes();
	struct er_shape *shape;
	struct er_scratch *scratch;
	struct er_call *call;
	bool compat = false;

	if (!shapes)
		return 0;
	shape = er_shape_of(shapes, regs->orig_ax, &compat);
	if (!shape)
		return 0;
	scratch = er_get_scratch();
	if (!scratch)
		return 0;
	call = &scratch->call;
	call->compat = compat;
	call->none = -1;
	call->ret = ret;
	er_fill_call(call, regs);
	if (compat && regs->orig_ax == NR_I386_SOCKETCALL) {
		shape = er_socketcall(call, shapes);
		if (!shape)
			return 0;
	}
	/*
	 * The descriptor first: another thread can put something else in its place as soon as the call has returned in
	 * the kernel. That race is made short here, and not closed (docs/operations.md).
	 */
	call->file = er_file_of(call->value[shape->fd & 7]);
	if (shape->bits && !(call->value[shape->need & 7] & shape->bits))
		return 0;
	if (shape->event == ER_EVENT_EXEC && ret >= 0) /* sched_process_exec's */
		return 0;
	call->shape = *shape;
	call->nr = shape->nr;
	call->event = shape->event;
	er_record();
	if (call->shape.also) {
		call->event = call->shape.also;
		er_record();
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version = ER_ABI_VERSION;
