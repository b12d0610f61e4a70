/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who does it: ids of a task, ExecRay's own processes, remembered credentials. */
#ifndef EXECRAY_TASK_H
#define EXECRAY_TASK_H

#define ER_UNSET      ((__u32)-1)
#define ER_PID_LEVELS 64

/*
 * Linux 5.11 (3ca1032ab7ab) gives every program a task that the verifier knows for one; before, a program on system
 * calls copies each value by a helper.
 */
static __always_inline bool er_can_load(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

/* The current task, for ER_READ(er_can_load(), ...). */
static __always_inline struct task_struct *er_this_task(void)
{
	return er_can_load() ? bpf_get_current_task_btf() : (void *)bpf_get_current_task();
}

/* Linux 5.5 (cf25e24db61c) renamed real_start_time; nothing older has the ring buffer. direct: as for ER_READ. */
static __always_inline __u64 er_start_of(struct task_struct *task, const bool direct)
{
	return ER_READ(direct, task, group_leader, start_boottime);
}

static __always_inline __u64 er_start_ns(struct task_struct *task)
{
	return er_start_of(task, false);
}

/* The number that struct pid has in the initial namespace; 0 is nobody's. */
static __always_inline __u32 er_pid_nr(struct pid *pid, const bool direct)
{
	return pid ? ER_READ(direct, pid, numbers[0].nr) : 0;
}

/* The controlling terminal as new_encode_dev() writes it. */
static __always_inline __u32 er_tty_nr(struct signal_struct *signal, const bool direct)
{
	struct tty_struct *tty = ER_READ(direct, signal, tty);
	struct tty_driver *driver;
	__u32 major, minor;

	if (!tty)
		return 0;
	driver = ER_READ(direct, tty, driver);
	if (!driver)
		return 0;
	major = ER_READ(direct, driver, major);
	minor = ER_READ(direct, driver, minor_start) + ER_READ(direct, tty, index);
	return (minor & 0xff) | major << 8 | (minor & ~0xff) << 12;
}

static __always_inline void er_fill_namespaces(struct er_task *out, struct task_struct *task, const struct cred *cred,
					       const bool direct)
{
	struct nsproxy *proxy = ER_READ(direct, task, nsproxy);
	struct pid *pid = ER_READ(direct, task, thread_pid);
	struct user_namespace *user = cred ? ER_READ(direct, cred, user_ns) : NULL;
	struct pid_namespace *ns = NULL;

	out->ns_pid = out->ns_mnt = out->ns_net = 0;
	out->ns_user = user ? ER_READ(direct, user, ns.inum) : 0;
	if (proxy) {
		out->ns_mnt = ER_READ(direct, proxy, mnt_ns, ns.inum);
		out->ns_net = ER_READ(direct, proxy, net_ns, ns.inum);
	}
	if (pid) {
		__u32 level = ER_READ(direct, pid, level);

		/* an index that isn't a constant is nothing for a plain load */
		if (!level) {
			out->ns_pid = ER_READ(direct, pid, numbers[0].ns, ns.inum);
		} else {
			bpf_core_read(&ns, sizeof(ns), &pid->numbers[level & (ER_PID_LEVELS - 1)].ns);
			out->ns_pid = BPF_CORE_READ(ns, ns.inum);
		}
	}
}

static __always_inline void er_fill_comm(struct er_task *out, struct task_struct *task)
{
	__u64 *to = (__u64 *)out->comm;

	if (er_can_cast()) {
		/* two words in every kernel; a plain load of the array itself would be one of a byte */
		struct timespec64 *words = ER_AS(struct timespec64, (void *)task + bpf_core_field_offset(task->comm));

		to[0] = words->tv_sec;
		to[1] = words->tv_nsec;
		return;
	}
	/* As a string: before Linux 5.17 the bytes behind its NUL are those of the name before. */
	to[0] = to[1] = 0;
	bpf_core_read_str(out->comm, sizeof(out->comm), &task->comm);
}

/* Linux 6.3 (f122a08b197d) made one number of two halves, in the same order. */
#define ER_CAPS(out, cred, field, direct)                                 \
	do {                                                              \
		if ((direct) && bpf_core_field_exists((cred)->field.val)) \
			out = (cred)->field.val;                          \
		else                                                      \
			bpf_core_read(&out, sizeof(out), &(cred)->field); \
	} while (0)

/* direct: a constant; whether the verifier knows the pointer for a task's. */
static __always_inline void er_fill_task(struct er_task *out, struct task_struct *task, const bool direct)
{
	/* real_cred: what the task is, also while the kernel acts for it under other credentials (overlayfs, NFS). */
	const struct cred *cred = ER_READ(direct, task, real_cred);
	struct signal_struct *signal = ER_READ(direct, task, signal);
	struct task_struct *leader = ER_READ(direct, task, group_leader);
	struct css_set *cgroups = ER_READ(direct, task, cgroups);

	out->start_ns = leader ? ER_READ(direct, leader, start_boottime) : 0;
	out->cgroup_id = cgroups ? ER_READ(direct, cgroups, dfl_cgrp, kn, id) : 0;
	out->pid = ER_READ(direct, task, tgid);
	out->tid = ER_READ(direct, task, pid);
	if (cred) {
		out->uid = ER_READ(direct, cred, uid.val);
		out->euid = ER_READ(direct, cred, euid.val);
		out->suid = ER_READ(direct, cred, suid.val);
		out->fsuid = ER_READ(direct, cred, fsuid.val);
		out->gid = ER_READ(direct, cred, gid.val);
		out->egid = ER_READ(direct, cred, egid.val);
		out->sgid = ER_READ(direct, cred, sgid.val);
		out->fsgid = ER_READ(direct, cred, fsgid.val);
		ER_CAPS(out->cap_effective, cred, cap_effective, direct);
		ER_CAPS(out->cap_permitted, cred, cap_permitted, direct);
	}
	out->loginuid = bpf_core_field_exists(task->loginuid) ? ER_READ(direct, task, loginuid.val) : ER_UNSET;
	out->tty_nr = er_tty_nr(signal, direct);
	out->session = er_pid_nr(ER_READ(direct, signal, pids[PIDTYPE_SID]), direct);
	out->pgrp = er_pid_nr(ER_READ(direct, signal, pids[PIDTYPE_PGID]), direct);
	er_fill_namespaces(out, task, cred, direct);
	er_fill_comm(out, task);
}

static __always_inline void er_fill_current(struct er_task *out)
{
	if (er_can_load())
		er_fill_task(out, bpf_get_current_task_btf(), true);
	else
		er_fill_task(out, (void *)bpf_get_current_task(), false);
}

/* What er_self says of a process: 0, or enum er_self_flag. */
static __always_inline __u32 er_self_flags(__u32 pid, __u64 start_ns)
{
	struct er_shapes *shapes = er_get_shapes();
	struct er_self *self;
	void *map;

	if (!shapes || !shapes->self[pid & (ER_PID_SLOTS - 1)])
		return 0;
	map = er_slot(&er_self_slot);
	self = map ? bpf_map_lookup_elem(map, &pid) : NULL;
	return self && self->start_ns == start_ns ? self->flags : 0;
}

/* Whether this is the thread whose calls are probes. Its id alone could be another's, should tracerd's thread have
 * ended. */
static __always_inline bool er_is_heartbeat(const struct er_config *config, __u64 pid_tgid)
{
	return (__u32)pid_tgid == config->heartbeat_tid && pid_tgid >> 32 == config->heartbeat_tgid;
}

/* The exact start of the current process. */
static __always_inline __u64 er_current_start_ns(void)
{
	struct task_struct *task = er_this_task();

	return ER_READ(er_can_load(), task, group_leader, start_boottime);
}

/* Whether this process, of a slot that has armed ones, is one. Not static: those who ask seldom, and have no stack to
 * spare on Linux 5.10. */
__noinline int er_is_armed(void)
{
	struct task_struct *task = er_this_task();
	__u32 tgid = ER_READ(er_can_load(), task, tgid);
	void *map = er_slot(&er_armed_slot);
	__u64 *start_ns = map ? bpf_map_lookup_elem(map, &tgid) : NULL;

	return start_ns && *start_ns == ER_READ(er_can_load(), task, group_leader, start_boottime);
}

/* Which events of a call are not wanted from this process, because it isn't armed: 0, or enum er_armed_event. */
static __always_inline __u8 er_skipped(struct er_shapes *shapes, struct er_shape *shape, struct task_struct *task)
{
	__u32 tgid;

	if (!shape->armed)
		return 0;
	tgid = ER_READ(er_can_load(), task, tgid);
	return shapes->armed[tgid & (ER_PID_SLOTS - 1)] && er_is_armed() ? 0 : shape->armed;
}

/* At the end of a process. */
static __always_inline void er_disarm(__u32 tgid)
{
	struct er_shapes *shapes = er_get_shapes();
	void *map = er_slot(&er_armed_slot);

	if (map && shapes && shapes->armed[tgid & (ER_PID_SLOTS - 1)])
		bpf_map_delete_elem(map, &tgid);
}

/*
 * Begins a record of the current task with what can be told of it at once. own: whether it may be one of ExecRay's.
 * Returns false for an event that must not leave the kernel: one of ExecRay's own, which would make each batch that is
 * written an event in the next.
 */
static __always_inline bool er_begin_of(__u32 tgid, struct er_header *hdr, const struct er_config *config,
					enum er_event kind, bool own)
{
	__u32 self = own ? er_self_flags(tgid, er_current_start_ns()) : 0;

	hdr->flags = 0;
	if ((tgid == config->heartbeat_tgid && er_is_heartbeat(config, bpf_get_current_pid_tgid())) ||
	    (self & ER_SELF_HEARTBEAT)) {
		hdr->flags = ER_F_HEARTBEAT;
	} else if (self & ER_SELF_DROP) {
		er_count(ER_COUNT_SELF);
		return false;
	}
	hdr->kind = kind;
	return true;
}

static __always_inline bool er_begin(struct er_header *hdr, const struct er_config *config, enum er_event kind)
{
	return er_begin_of(bpf_get_current_pid_tgid() >> 32, hdr, config, kind, true);
}

/* The rest of what begins each record: who it was, and when. */
static __always_inline void er_sign(struct er_header *hdr, struct er_task *out)
{
	er_fill_current(out);
	hdr->time_ns = bpf_ktime_get_boot_ns();
}

/* direct: as for ER_READ. */
static __always_inline void er_fill_creds(struct er_creds *out, struct task_struct *task, const bool direct)
{
	const struct cred *cred = ER_READ(direct, task, real_cred);

	out->start_ns = er_start_of(task, direct);
	out->uid = ER_READ(direct, cred, uid.val);
	out->euid = ER_READ(direct, cred, euid.val);
	out->gid = ER_READ(direct, cred, gid.val);
	out->egid = ER_READ(direct, cred, egid.val);
	ER_CAPS(out->cap_effective, cred, cap_effective, direct);
	ER_CAPS(out->cap_permitted, cred, cap_permitted, direct);
	out->ns_user = ER_READ(direct, cred, user_ns, ns.inum);
}

static __always_inline void er_remember_creds(struct task_struct *task, const bool direct)
{
	__u32 tid = ER_READ(direct, task, pid);
	void *map = er_slot(&er_creds_slot);
	struct er_creds creds = {};

	er_fill_creds(&creds, task, direct);
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
