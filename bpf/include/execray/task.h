/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who does it: ids of a task, ExecRay's own processes, remembered credentials. */
#ifndef EXECRAY_TASK_H
#define EXECRAY_TASK_H

static __always_inline __u64 er_start_ns(struct task_struct *task)
{
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	/* Linux 5.5 (cf25e24db61c) renamed real_start_time; nothing older has the ring buffer. */
	return BPF_CORE_READ(leader, start_boottime);
}

static __always_inline void er_fill_task(struct er_task *out, struct task_struct *task)
{
	/* real_cred: what the task is, also while the kernel acts for it under other credentials (overlayfs, NFS). */
	const struct cred *cred = BPF_CORE_READ(task, real_cred);

	out->start_ns = er_start_ns(task);
	out->cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
	out->pid = BPF_CORE_READ(task, tgid);
	out->tid = BPF_CORE_READ(task, pid);
	out->uid = BPF_CORE_READ(cred, uid.val);
	out->euid = BPF_CORE_READ(cred, euid.val);
	out->suid = BPF_CORE_READ(cred, suid.val);
	out->gid = BPF_CORE_READ(cred, gid.val);
	out->egid = BPF_CORE_READ(cred, egid.val);
	out->_pad = 0;
	/* As a string: before Linux 5.17 the bytes behind its NUL are those of the name before. */
	__builtin_memset(out->comm, 0, sizeof(out->comm));
	bpf_core_read_str(&out->comm, sizeof(out->comm), &task->comm);
}

/* What er_self says of this process: 0, or enum er_self_flag. */
static __always_inline __u32 er_self_flags(struct task_struct *task, __u32 pid)
{
	void *map = er_slot(&er_self_slot);
	struct er_self *self = map ? bpf_map_lookup_elem(map, &pid) : NULL;

	if (!self || self->start_ns != er_start_ns(task))
		return 0;
	return self->flags;
}

/* Whether this is the thread whose calls are probes. Its id alone could be another's, should tracerd's thread have
 * ended. */
static __always_inline bool er_is_heartbeat(const struct er_config *config, __u64 pid_tgid)
{
	return (__u32)pid_tgid == config->heartbeat_tid && pid_tgid >> 32 == config->heartbeat_tgid;
}

/*
 * Begins a record of the current task. Returns false for an event that must not leave the kernel: one of ExecRay's own,
 * which would make each batch that is written an event in the next.
 */
static __always_inline bool er_begin(struct er_header *hdr, struct er_task *out, const struct er_config *config,
				     enum er_event kind, __u32 len)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 id = bpf_get_current_pid_tgid();
	__u32 self = er_self_flags(task, id >> 32);

	hdr->flags = 0;
	if (er_is_heartbeat(config, id) || (self & ER_SELF_HEARTBEAT)) {
		hdr->flags = ER_F_HEARTBEAT;
	} else if (self & ER_SELF_DROP) {
		er_count(ER_COUNT_SELF);
		return false;
	}
	hdr->len = len;
	hdr->kind = kind;
	hdr->time_ns = bpf_ktime_get_boot_ns();
	er_fill_task(out, task);
	return true;
}

static __always_inline void er_remember_creds(struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, real_cred);
	__u32 tid = BPF_CORE_READ(task, pid);
	struct er_creds creds = {
		.start_ns = er_start_ns(task),
		.uid = BPF_CORE_READ(cred, uid.val),
		.euid = BPF_CORE_READ(cred, euid.val),
	};
	void *map = er_slot(&er_creds_slot);

	if (map && bpf_map_update_elem(map, &tid, &creds, BPF_ANY))
		er_count(ER_COUNT_CREDS_FULL);
}

static __always_inline void er_forget_creds(__u32 tid)
{
	void *map = er_slot(&er_creds_slot);

	if (map)
		bpf_map_delete_elem(map, &tid);
}

#endif
