/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One process on another: ptrace, signals, writes to its memory; and whom a pid means. */
#ifndef EXECRAY_CALLS_PTRACE_H
#define EXECRAY_CALLS_PTRACE_H

#include "execray/calls/record.h"

#define XA_CHUNK_SHIFT_BITS 6
#define XA_NODE_TAG	    2UL
#define PIDTYPE_PID_INDEX   0
#define ER_PROC_MAGIC	    0x9fa0
#define ER_PID_FS_MAGIC	    0x50494446
#define ER_ANON_INODE_MAGIC 0x09041934

static __always_inline struct task_struct *er_pid_task(struct pid *pid)
{
	struct hlist_node *first = BPF_CORE_READ(pid, tasks[PIDTYPE_PID_INDEX].first);

	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links[PIDTYPE_PID_INDEX]);
}

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
	struct xa_node *node;
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
	return er_pid_task(entry);
}

/* The process behind a pidfd. It has a filesystem of its own since Linux 6.9 (cb12fd8e0dab). */
static __always_inline struct task_struct *er_pidfd_task(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	if (BPF_CORE_READ(inode, i_sb, s_magic) == ER_PID_FS_MAGIC)
		return er_pid_task(BPF_CORE_READ(inode, i_private));
	return BPF_CORE_READ(inode, i_sb, s_magic) == ER_ANON_INODE_MAGIC
		       ? er_pid_task(BPF_CORE_READ(file, private_data))
		       : NULL;
}

/* Whether a file is /proc/PID/mem, by whatever name it was opened. */
static __always_inline bool er_is_proc_mem(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);
	char name[4] = {};

	if (!file || BPF_CORE_READ(file, f_inode, i_sb, s_magic) != ER_PROC_MAGIC ||
	    BPF_CORE_READ(dentry, d_name.len) != 3)
		return false;
	bpf_probe_read_kernel(name, 3, BPF_CORE_READ(dentry, d_name.name));
	return name[0] == 'm' && name[1] == 'e' && name[2] == 'm';
}

static __always_inline struct task_struct *er_proc_task(struct file *file)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct proc_inode *of = (void *)inode - bpf_core_field_offset(struct proc_inode, vfs_inode);

	return er_pid_task(BPF_CORE_READ(of, pid));
}

/* Whom the call is about. Each kind of call has its arguments in an order of its own. */
static __always_inline struct task_struct *er_target(struct er_ptrace *e, struct er_call *call)
{
	struct file *file = call->file; /* a local: see er_walk_up() */

	switch (call->nr) {
	case NR_PTRACE:
		e->request = call->arg[0];
		e->target_nr = call->arg[1];
		return e->request ? er_find_task(e->target_nr) : NULL; /* 0 is TRACEME: no target */
	case NR_PROCESS_VM_READV:
	case NR_PROCESS_VM_WRITEV: e->target_nr = call->arg[0]; return er_find_task(e->target_nr);
	case NR_TGKILL:
	case NR_RT_TGSIGQUEUEINFO:
		e->request = (__u32)call->arg[2];
		e->target_nr = call->arg[1];
		return er_find_task(e->target_nr);
	case NR_PIDFD_SEND_SIGNAL: e->request = (__u32)call->arg[1]; return file ? er_pidfd_task(file) : NULL;
	case NR_KILL:
	case NR_TKILL:
	case NR_RT_SIGQUEUEINFO:
		e->request = (__u32)call->arg[1];
		e->target_nr = call->arg[0];
		return er_find_task(e->target_nr);
	}
	e->request = call->arg[2]; /* a read or write of /proc/PID/mem; one of several pieces has their number here */
	return file ? er_proc_task(file) : NULL;
}

static __noinline int er_ptrace(struct er_scratch *scratch, struct er_call *call)
{
	struct er_ptrace *e;
	struct task_struct *target;

	if (!scratch || !call)
		return 0;
	e = &scratch->record.ptrace;
	e->hdr.len = sizeof(*e);
	e->request = e->target_start_ns = e->target_parent_start_ns = 0;
	e->target_pid = e->target_tid = e->target_uid = e->target_ppid = e->target_nr = 0;
	e->nr = call->nr;
	e->_pad = 0;
	e->ret = call->ret;
	target = er_target(e, call);
	if (target) {
		struct task_struct *parent = BPF_CORE_READ(target, real_parent);

		e->target_pid = BPF_CORE_READ(target, tgid);
		e->target_tid = BPF_CORE_READ(target, pid);
		e->target_start_ns = er_start_ns(target);
		e->target_uid = BPF_CORE_READ(target, real_cred, uid.val);
		e->target_ppid = BPF_CORE_READ(parent, tgid);
		e->target_parent_start_ns = er_start_ns(parent);
	}
	if (er_admit())
		er_submit(e, sizeof(*e));
	return 0;
}

#endif
