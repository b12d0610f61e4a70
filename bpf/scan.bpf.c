// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The threads that were there before ExecRay, each as one ER_EVENT_SCAN record read from the iterator's file. Records
 * carry the same exact start time as events do, which /proc (clock ticks) doesn't give.
 */
#include "execray/common.h"
#include "execray/image.h"

SEC("iter/task")
int er_scan(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 at = 0;
	struct er_scratch *scratch = er_get_scratch();
	struct er_exec *e;
	struct file *file;

	if (!task || !scratch)
		return 0;
	e = &scratch->record.exec;
	__builtin_memset(e, 0, sizeof(*e));
	e->hdr.kind = ER_EVENT_SCAN;
	e->hdr.time_ns = bpf_ktime_get_boot_ns();
	er_fill_task(&e->task, task, true);
	er_fill_parent(e, task, true);
	file = ER_READ(true, task, mm, exe_file);
	if (file && e->task.pid == e->task.tid) {
		ER_FILL_INODE(e, file);
		er_fill_image(e, task, file);
		e->path_len = er_append_path(scratch, e->tail, &file->f_path, &e->hdr.flags);
		at = er_append_place(scratch, e, e->path_len & (ER_PATH_MAX - 1), task);
	}
	if (at > sizeof(scratch->record) - sizeof(*e)) /* can't be; the verifier wants to hear it */
		return 0;
	e->hdr.len = sizeof(*e) + at;
	bpf_seq_write(ctx->meta->seq, e, sizeof(*e) + at);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
