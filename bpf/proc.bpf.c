// SPDX-License-Identifier: GPL-2.0-or-later
/* The life of processes: exec, fork, exit. Always attached: lineage and the table of processes rest on it. */
#include "execray/common.h"
#include "execray/creds.h"
#include "execray/gate_cells.h"
#include "execray/gate_threads.h"
#include "execray/image.h"
#include "execray/inline_claims.h"

/* Behind paths of more than 14 KiB altogether a record has room for half as much. */
#define ER_ARGV_LEAST (ER_ARGV_MAX / 2)

/*
 * Arguments, and behind them the environment where somebody wants it: so they lie in the new program's memory, too.
 * Both share the room, and the arguments come first.
 */
static __always_inline __u32 er_append_argv(struct er_exec *e, struct task_struct *task, __u32 at, bool env)
{
	__u64 start = ER_READ(true, task, mm, arg_start);
	__u64 end = ER_READ(true, task, mm, arg_end);
	__u64 last = env && ER_READ(true, task, mm, env_start) == end ? ER_READ(true, task, mm, env_end) : end;
	__u64 len = last - start, argv = end - start;
	__u64 most = at > ER_TAIL_MAX - ER_ARGV_MAX ? ER_ARGV_LEAST : ER_ARGV_MAX;

	if (end < start || last < end)
		return 0;
	if (argv > most) {
		argv = most;
		e->hdr.flags |= ER_F_ARGV_TRUNCATED;
	}
	if (len > most) {
		len = most;
		if (env)
			e->hdr.flags |= ER_F_CONTENT_TRUNCATED;
	}
	/* execve has just written these pages, so they are there; should one have left, tracerd asks /proc. */
	if (bpf_probe_read_user(&e->tail[at], len, (void *)start)) {
		e->hdr.flags |= ER_F_UNREADABLE;
		return 0;
	}
	e->argv_len = argv;
	e->env_len = len - argv;
	return len;
}

/* Of a script, what its first line says, or who is registered for it: the program that runs is then that one. */
static __always_inline __u32 er_append_interp(struct er_exec *e, const struct linux_binprm *bprm, char *tail)
{
	const char *interp = ER_READ(true, bprm, interp);
	long len;

	e->interp_len = 0;
	if (interp == ER_READ(true, bprm, filename))
		return 0;
	len = bpf_probe_read_kernel_str(tail, ER_INTERP_MAX, interp);
	if (len == ER_INTERP_MAX)
		e->hdr.flags |= ER_F_RAWPATH_TRUNCATED;
	e->interp_len = len > 0 ? len - 1 : 0;
	return e->interp_len & (ER_INTERP_MAX - 1);
}

/* A daemon of ours that executes another program is ours no longer; what it started on purpose still is. */
static __always_inline void er_end_hiding(struct task_struct *task)
{
	__u32 pid = ER_READ(true, task, tgid);
	__u32 flags = er_self_flags(pid, er_start_of(task, true));
	void *map = er_slot(&er_self_slot);

	if (map && flags && !(flags & (ER_SELF_CHILD | ER_SELF_HEARTBEAT)))
		bpf_map_delete_elem(map, &pid);
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(er_exec, struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)
{
	struct er_config *config = er_get_config();
	__u32 at, total;
	struct er_scratch *scratch = er_get_scratch();
	struct er_exec *e;
	struct file *file;
	__u16 below_len;
	long len;

	/* exec by another thread than the leader: that thread takes over the leader's tid */
	if (old_pid != ER_READ(true, task, pid))
		er_forget_creds(old_pid);
	else if (!BPF_CORE_READ_BITFIELD_PROBED(bprm,
						secureexec)) /* set where the file gives other ids or capabilities */
		er_note_cred_change(config, ER_CALL_EXEC);
	er_remember_creds(task, true);
	er_end_hiding(task);
	if (!config || !scratch)
		return 0;
	e = &scratch->record.exec;
	if (!er_begin(&e->hdr, config, ER_EVENT_EXEC))
		return 0;
	er_sign(&e->hdr, &e->task);
	file = ER_READ(true, task, mm, exe_file);
	ER_FILL_INODE(e, file);
	er_fill_parent(e, task, true);
	er_fill_image(e, task, file);
	e->ret = 0;
	e->argv_len = e->env_len = 0;
	e->_pad = 0;
	at = e->path_len = er_append_path(scratch, e->tail, &file->f_path, &e->hdr.flags);
	at &= ER_PATH_MAX - 1;
	e->own_len = er_append_below(scratch, &e->tail[at], at, &below_len, &e->hdr.flags);
	e->below_len = below_len;
	at += below_len & (ER_PATH_MAX - 1);
	len = bpf_probe_read_kernel_str(&e->tail[at], ER_PATH_MAX, ER_READ(true, bprm, filename));
	e->filename_len = len > 0 ? len - 1 : 0;
	at += e->filename_len & (ER_PATH_MAX - 1);
	at += er_append_interp(e, bprm, &e->tail[at]);
	at = er_append_place(scratch, e, at, task);
	total = sizeof(*e) + at + er_append_argv(e, task, at, config->content & ER_CONTENT_ENV);
	if (total > sizeof(scratch->record)) /* can't be; the verifier wants to hear it */
		return 0;
	e->hdr.len = total;
	er_send(e, total);
	return 0;
}

/*
 * Whether the child of one of ExecRay's own processes is ours too, and the fork therefore nobody's business. One
 * generation only: what our tcpdump, or the probe's child, might start is everybody's business.
 */
static __always_inline bool er_inherit_self(struct task_struct *parent, struct task_struct *child, bool heartbeat,
					    __u32 child_pid)
{
	struct er_self self = {.start_ns = er_start_of(child, true)};
	struct er_shapes *shapes = er_get_shapes();
	void *map = er_slot(&er_self_slot);

	if (heartbeat)
		self.flags = ER_SELF_HEARTBEAT;
	else if (er_self_flags(ER_READ(true, parent, tgid), er_start_of(parent, true)) & ER_SELF_INHERIT)
		self.flags = ER_SELF_DROP | ER_SELF_CHILD;
	if (!self.flags || !map)
		return false;
	if (bpf_map_update_elem(map, &child_pid, &self, BPF_ANY)) {
		er_count(ER_COUNT_SELF_FULL);
		return false;
	}
	if (shapes)
		shapes->self[child_pid & (ER_PID_SLOTS - 1)] = ER_PID_MARK;
	return true;
}

#define ER_CLONE_VM	   0x00000100
#define ER_CLONE_FS	   0x00000200
#define ER_CLONE_FILES	   0x00000400
#define ER_CLONE_SIGHAND   0x00000800
#define ER_CLONE_PARENT	   0x00008000
#define ER_CLONE_NEWNS	   0x00020000
#define ER_CLONE_NEWCGROUP 0x02000000
#define ER_CLONE_NEWUTS	   0x04000000
#define ER_CLONE_NEWIPC	   0x08000000
#define ER_CLONE_NEWUSER   0x10000000
#define ER_CLONE_NEWPID	   0x20000000
#define ER_CLONE_NEWNET	   0x40000000

/* Both sides' `member` compared: the same one, or not. */
#define ER_SAME(one, other, member) (ER_READ(true, one, member) == ER_READ(true, other, member))

/*
 * By which flags the child was made, as far as it shows: they are the caller's memory in clone3, and nothing that a
 * tracing program may read keeps them.
 */
static __always_inline __u32 er_clone_flags(struct task_struct *parent, struct task_struct *child)
{
	struct nsproxy *ours = ER_READ(true, parent, nsproxy), *theirs = ER_READ(true, child, nsproxy);
	__u32 flags = 0;

	flags |= ER_SAME(parent, child, mm) ? ER_CLONE_VM : 0;
	flags |= ER_SAME(parent, child, fs) ? ER_CLONE_FS : 0;
	flags |= ER_SAME(parent, child, files) ? ER_CLONE_FILES : 0;
	flags |= ER_SAME(parent, child, sighand) ? ER_CLONE_SIGHAND : 0;
	flags |= ER_SAME(parent, child, real_parent) ? ER_CLONE_PARENT : 0;
	flags |= ER_READ(true, parent, real_cred, user_ns) == ER_READ(true, child, real_cred, user_ns)
			 ? 0
			 : ER_CLONE_NEWUSER;
	if (ours == theirs)
		return flags;
	flags |= ER_SAME(ours, theirs, mnt_ns) ? 0 : ER_CLONE_NEWNS;
	flags |= ER_SAME(ours, theirs, cgroup_ns) ? 0 : ER_CLONE_NEWCGROUP;
	flags |= ER_SAME(ours, theirs, uts_ns) ? 0 : ER_CLONE_NEWUTS;
	flags |= ER_SAME(ours, theirs, ipc_ns) ? 0 : ER_CLONE_NEWIPC;
	flags |= ER_SAME(ours, theirs, pid_ns_for_children) ? 0 : ER_CLONE_NEWPID;
	flags |= ER_SAME(ours, theirs, net_ns) ? 0 : ER_CLONE_NEWNET;
	return flags;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(er_fork, struct task_struct *parent, struct task_struct *child)
{
	struct er_config *config = er_get_config();
	__u32 child_pid = ER_READ(true, child, tgid);
	struct er_fork e;
	bool ours, heartbeat;

	er_note_cred_change(config, ER_CALL_FORK);
	er_remember_creds(child, true);
	if (config && config->gate)
		er_gate_inherit(child);
	if (!config || child_pid != (__u32)ER_READ(true, child, pid)) /* a thread */
		return 0;
	heartbeat = er_is_heartbeat(config, bpf_get_current_pid_tgid());
	ours = er_inherit_self(parent, child, heartbeat, child_pid);
	if (ours && !heartbeat) {
		er_count(ER_COUNT_SELF);
		return 0;
	}
	/* A child that isn't hidden needs its lineage, so its fork is reported although its creator's events may not
	 * be. */
	__builtin_memset(&e, 0, sizeof(e));
	e.hdr.len = sizeof(e);
	e.hdr.kind = ER_EVENT_FORK;
	e.hdr.flags = ours ? ER_F_HEARTBEAT : 0;
	e.hdr.time_ns = bpf_ktime_get_boot_ns();
	er_fill_task(&e.task, parent, true);
	e.child_pid = child_pid;
	e.child_start_ns = er_start_of(child, true);
	e.child_ns_nr = er_nr_within(child);
	e.clone_flags = er_clone_flags(parent, child);
	er_send(&e, sizeof(e));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(er_exit, struct task_struct *task)
{
	struct er_config *config = er_get_config();
	__u32 pid = ER_READ(true, task, tgid);
	void *map = er_slot(&er_self_slot);
	struct er_exit e;
	bool send;

	er_forget_creds(ER_READ(true, task, pid));
	/* do_exit counts the thread out before it comes here, so the last one finds none left */
	if (!config || ER_READ(true, task, signal, live.counter) != 0)
		return 0;
	__builtin_memset(&e, 0, sizeof(e));
	e.hdr.len = sizeof(e);
	send = er_begin(&e.hdr, config, ER_EVENT_EXIT);
	if (map)
		bpf_map_delete_elem(map, &pid);
	er_disarm(pid);
	if (config->gate)
		er_gate_forget(pid);
	if (!send)
		return 0;
	er_sign(&e.hdr, &e.task);
	/* a group exit (exit_group, a fatal signal) keeps its code in signal_struct, a lone thread's in the task */
	e.code = ER_READ(true, task, signal, group_exit_code);
	if (!e.code)
		e.code = ER_READ(true, task, exit_code);
	/* the last record of who is killed here has woken nobody */
	er_send_as(&e.hdr, sizeof(e), er_is_urgent(&e.hdr) || (e.code == ER_SIGKILL && er_inline_claimed(&e.task)));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
