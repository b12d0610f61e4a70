/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a call that has returned, by whatever way it was made, to its records. */
#ifndef EXECRAY_CALLS_DISPATCH_H
#define EXECRAY_CALLS_DISPATCH_H

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
	/* most reads and writes are of something else than a process's memory */
	if ((call->event == ER_EVENT_PROCMEM || call->event == ER_EVENT_PROCREAD) && call->nr != NR_PROCESS_VM_WRITEV &&
	    call->nr != NR_PROCESS_VM_READV && !er_is_proc_mem(call->file))
		return 0;
	if (call->event == ER_EVENT_CREATE && !(call->file ? er_has_made(call->file) : er_may_have_made(call)) &&
	    !er_is_heartbeat(config, bpf_get_current_pid_tgid()))
		return 0;
	if (!call->awake && !er_gate_is_late(scratch) && er_gate_is_idle(config, call->event))
		return 0;
	if (!er_begin_of(call->tgid, &scratch->record.exec.hdr, config, call->event, call->own))
		return 0;
	call->path_at = call->path_len = call->urgent = call->walked = 0;
	call->gate = config->gate;
	call->wanted = er_wanted(config, call->event);
	call->followed = config->followed >> (call->event & 63) & 1;
	if (call->compat)
		scratch->record.exec.hdr.flags |= ER_F_COMPAT_ABI;
	if (call->uring)
		scratch->record.exec.hdr.flags |= ER_F_IO_URING;
	if (er_is_of_file(call) && !er_admit())
		return 0;
	switch (call->event) {
	case ER_EVENT_OPEN:
	case ER_EVENT_CREATE: return er_open(scratch, call, config->content & ER_CONTENT_SPELLING);
	case ER_EVENT_WRITE:
	case ER_EVENT_READ:
		return er_write(scratch, call,
				config->content & (call->event == ER_EVENT_WRITE ? ER_CONTENT_WRITE : ER_CONTENT_READ));
	case ER_EVENT_EXEC: return er_exec_failed(scratch, call);
	case ER_EVENT_CONNECT:
	case ER_EVENT_BIND:
	case ER_EVENT_LISTEN:
	case ER_EVENT_ACCEPT:
	case ER_EVENT_SENDTO: return er_connect(scratch, call);
	case ER_EVENT_PTRACE:
	case ER_EVENT_KILL:
	case ER_EVENT_PROCMEM:
	case ER_EVENT_PROCREAD: return er_ptrace(scratch, call);
	case ER_EVENT_SETUID: return er_setuid(scratch, call);
	case ER_EVENT_CRED_CHANGE: return er_cred_change(scratch, call);
	default: return er_plain(scratch, call);
	}
}

/* The call is filled, its descriptor's file looked up. */
static __always_inline void er_send_call(struct er_call *call, struct er_shape *shape)
{
	bool first = er_meant(call, shape);

	if (shape->event == ER_EVENT_EXEC && call->ret >= 0) /* sched_process_exec's */
		first = false;
	call->shape = *shape;
	call->nr = shape->nr;
	if (first && !(call->skip & ER_ARMED_EVENT)) {
		call->event = shape->event;
		er_record();
	}
	if (call->shape.also && !(call->skip & ER_ARMED_ALSO)) {
		call->event = call->shape.also;
		er_record();
	}
	if (call->shape.third && !(call->skip & ER_ARMED_THIRD)) {
		call->event = call->shape.third;
		er_record();
	}
}

#endif
