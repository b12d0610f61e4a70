/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One process on another: ptrace, and whom a pid means. */
#ifndef EXECRAY_CALLS_PTRACE_H
#define EXECRAY_CALLS_PTRACE_H

#define XA_CHUNK_SHIFT_BITS 6
#define XA_NODE_TAG	    2UL
#define PIDTYPE_PID_INDEX   0

/*
 * The task that a pid means to the caller: looked up in its pid namespace's IDR, an XArray, as find_task_by_vpid()
 * does. bpf_task_from_pid() would be shorter, but needs Linux 6.2 and takes pids of the initial namespace.
 */
static __always_inline struct task_struct *er_find_task(__s32 nr)
{
	struct task_struct *current_task = (void *)bpf_get_current_task();
	struct pid *self = BPF_CORE_READ(current_task, thread_pid);
	unsigned int level = BPF_CORE_READ(self, level);
	struct pid_namespace *ns = NULL;
	struct hlist_node *first;
	struct xa_node *node;
	struct pid *pid;
	void *entry;
	int i;

	if (nr <= 0)
		return NULL;
	bpf_core_read(&ns, sizeof(ns), &self->numbers[level & 63].ns);
	entry = BPF_CORE_READ(ns, idr.idr_rt.xa_head);
	/* pids have at most 22 bits: four levels of 64 slots */
	for (i = 0; i < 5; i++) {
		__u8 shift;
		__u32 slot;

		if (((__u64)entry & 3) != XA_NODE_TAG)
			break;
		node = (void *)((__u64)entry - XA_NODE_TAG);
		shift = BPF_CORE_READ(node, shift);
		if (i == 0 && shift < 32 && (__u64)nr >> shift >= 1 << XA_CHUNK_SHIFT_BITS)
			return NULL;
		slot = ((__u32)nr >> (shift & 31)) & ((1 << XA_CHUNK_SHIFT_BITS) - 1);
		bpf_core_read(&entry, sizeof(entry), &node->slots[slot]);
	}
	/* a lone entry at the head stands for index 0 only, which is no pid */
	if (!i || !entry || ((__u64)entry & 3))
		return NULL;
	pid = entry;
	first = BPF_CORE_READ(pid, tasks[PIDTYPE_PID_INDEX].first);
	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links[PIDTYPE_PID_INDEX]);
}

static __noinline int er_ptrace(struct er_scratch *scratch, struct er_call *call)
{
	struct er_ptrace e = {};
	struct task_struct *target;

	if (!scratch || !call)
		return 0;
	e.hdr = scratch->record.exec.hdr;
	e.task = scratch->record.exec.task;
	e.hdr.len = sizeof(e);
	e.request = call->arg[0];
	e.ret = call->ret;
	target = e.request ? er_find_task(call->arg[1]) : NULL; /* 0 is TRACEME: no target */
	if (target) {
		struct task_struct *parent = BPF_CORE_READ(target, real_parent);

		e.target_pid = BPF_CORE_READ(target, tgid);
		e.target_tid = BPF_CORE_READ(target, pid);
		e.target_start_ns = er_start_ns(target);
		e.target_uid = BPF_CORE_READ(target, real_cred, uid.val);
		e.target_ppid = BPF_CORE_READ(parent, tgid);
		e.target_parent_start_ns = er_start_ns(parent);
	}
	er_send(&e, sizeof(e));
	return 0;
}

#endif
