// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The threads that were there before ExecRay, each as one ER_EVENT_SCAN record read from the iterator's file. Records
 * carry the same exact start time as events do, which /proc (clock ticks) doesn't give.
 */
#include "execray/common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_scratch);
} er_scan_scratch SEC(".maps");

SEC("iter/task")
int er_scan(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	__u32 zero = 0, total;
	struct er_scratch *scratch = bpf_map_lookup_elem(&er_scan_scratch, &zero);
	struct er_exec *e;
	struct file *file;

	if (!task || !scratch)
		return 0;
	e = &scratch->record.exec;
	__builtin_memset(e, 0, sizeof(*e));
	e->hdr.kind = ER_EVENT_SCAN;
	e->hdr.time_ns = bpf_ktime_get_boot_ns();
	er_fill_task(&e->task, task);
	er_fill_parent(e, task);
	total = sizeof(*e);
	file = BPF_CORE_READ(task, mm, exe_file);
	if (file && e->task.pid == e->task.tid) {
		er_fill_inode(file, &e->ino, &e->dev, &e->i_mode);
		e->path_len = er_append_path(scratch, e->tail, file, &e->hdr.flags);
		total += e->path_len & (ER_PATH_MAX - 1);
	}
	e->hdr.len = total;
	bpf_seq_write(ctx->meta->seq, e, total);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version = ER_ABI_VERSION;
