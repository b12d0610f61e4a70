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

/* The number in 64-bit numbering, and whether it came through the 32-bit entry; NR_NONE for a call without a handler.
 */
static __always_inline int er_classify(__u32 orig_ax, bool *compat)
{
	int native = orig_ax & ER_X32_BIT ? er_nr_x32(orig_ax & ~ER_X32_BIT) : (int)orig_ax;

	*compat = false;
	/* the task is asked for its entry only where the number means something to us in one of the two */
	if (er_event_of(native) == ER_EVENT_INVALID && er_nr_i386(orig_ax) == NR_NONE)
		return NR_NONE;
	if (er_is_compat()) {
		*compat = true;
		return er_nr_i386(orig_ax);
	}
	/* the pseudo-number is no number that a caller could use */
	return native >= NR_I386_SOCKETCALL || er_event_of(native) == ER_EVENT_INVALID ? NR_NONE : native;
}

/*
 * The descriptor a call is about. Looked up first of all: another thread can put something else in its place as soon as
 * the call has returned in the kernel. That race is made short here, and not closed (docs/operations.md).
 */
static __always_inline __s32 er_fd_of(struct er_call *call, enum er_event event)
{
	__u32 fd = call->arg[0];
	char first = 0;

	if (event == ER_EVENT_OPEN)
		return call->ret;
	if (call->nr == NR_I386_SOCKETCALL)
		bpf_probe_read_user(&fd, sizeof(fd), (void *)call->arg[1]);
	if (call->nr == NR_SPLICE || call->nr == NR_COPY_FILE_RANGE)
		return call->arg[2];
	if (event == ER_EVENT_CHMOD && call->nr != NR_FCHMOD) {
		/* by name; only an empty one (AT_EMPTY_PATH) means the descriptor */
		if (call->nr == NR_CHMOD || bpf_probe_read_user(&first, 1, (void *)call->arg[1]) || first)
			return -1;
	}
	return fd;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(er_sys_exit, struct pt_regs *regs, long ret)
{
	struct er_config *config;
	struct er_scratch *scratch;
	struct er_call *call;
	enum er_event event;
	bool compat;
	int nr = er_classify(regs->orig_ax, &compat);

	if (nr == NR_NONE)
		return 0;
	event = er_event_of(nr);
	config = er_get_config();
	/* set*id calls are followed even when nobody asks for them: what they leave behind is the next one's "before"
	 */
	if (!config || (!er_wanted(config, event) && event != ER_EVENT_SETUID))
		return 0;
	scratch = er_get_scratch();
	if (!scratch)
		return 0;
	call = &scratch->call;
	call->nr = nr;
	call->compat = compat;
	call->ret = ret;
	er_fill_call(call, regs);
	call->file = er_file_of(er_fd_of(call, event));
	if (nr == NR_I386_SOCKETCALL && call->arg[0] != ER_SYS_CONNECT)
		return 0;
	if (event == ER_EVENT_EXEC && ret >= 0)
		return 0;
	if (!er_begin(&scratch->record.exec.hdr, &scratch->record.exec.task, config, event, 0))
		return 0;
	if (compat)
		scratch->record.exec.hdr.flags |= ER_F_COMPAT_ABI;
	switch (event) {
	case ER_EVENT_OPEN: er_clear_file(&scratch->record.file, ret); return er_open(scratch, call);
	case ER_EVENT_WRITE: er_clear_file(&scratch->record.file, ret); return er_write(scratch, call, config->content);
	case ER_EVENT_CHMOD: er_clear_file(&scratch->record.file, ret); return er_chmod(scratch, call);
	case ER_EVENT_EXEC: return er_exec_failed(scratch, call);
	case ER_EVENT_CONNECT: return er_connect(scratch, call);
	case ER_EVENT_PTRACE: return er_ptrace(scratch, call);
	case ER_EVENT_SETUID: return er_setuid(scratch, call, er_wanted(config, event));
	default: return 0;
	}
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version = ER_ABI_VERSION;
