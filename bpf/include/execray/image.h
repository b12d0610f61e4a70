/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is fixed with a program's image: of an exec, and of the processes that the scan at start finds. */
#ifndef EXECRAY_IMAGE_H
#define EXECRAY_IMAGE_H

#define ER_OVERLAY_MAGIC 0x794c7630

/* Linux 6.11 (3aa63a569c64) made a time two numbers; 6.6 (13bc24457850) and 6.7 (12cd44023651) had renamed them before.
 */
struct inode___plain {
	struct timespec64 i_mtime, i_ctime;
} __attribute__((preserve_access_index));

struct inode___private {
	struct timespec64 __i_mtime, __i_ctime;
} __attribute__((preserve_access_index));

/* Since Linux 6.13 (4e40eff0b573) the topmost bit of the nanoseconds says that somebody has asked for the time. */
#define ER_TIME_NS(time) ((time).tv_sec * 1000000000LL + ((time).tv_nsec & 0x7fffffff))
#define ER_INODE_TIME(out, inode, which)                                                    \
	do {                                                                                \
		struct inode___plain *er_plain = (void *)(inode);                           \
		struct inode___private *er_private = (void *)(inode);                       \
		struct timespec64 er_time = {};                                             \
                                                                                            \
		if (bpf_core_field_exists(er_plain->i_##which)) {                           \
			bpf_core_read(&er_time, sizeof(er_time), &er_plain->i_##which);     \
		} else if (bpf_core_field_exists(er_private->__i_##which)) {                \
			bpf_core_read(&er_time, sizeof(er_time), &er_private->__i_##which); \
		} else {                                                                    \
			er_time.tv_sec = ER_READ(true, inode, i_##which##_sec);             \
			er_time.tv_nsec = ER_READ(true, inode, i_##which##_nsec);           \
		}                                                                           \
		out = ER_TIME_NS(er_time);                                                  \
	} while (0)

/*
 * Whether an overlay's file is in its upper layer, the one that can be written. Overlayfs may be a module that isn't
 * loaded yet, so its types can't be asked for: behind the inode stands the upper file's dentry, since Linux 4.13
 * (09d8b586731b).
 */
static __always_inline bool er_is_upper(struct inode *inode)
{
	struct dentry *upper = NULL;

	if (ER_READ(true, inode, i_sb, s_magic) != ER_OVERLAY_MAGIC)
		return false;
	bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
	return upper;
}

/* Whether a task's descriptor is its controlling terminal. Of no other file the first word behind it is a terminal. */
static __always_inline bool er_is_terminal(struct task_struct *task, __u32 fd, struct tty_struct *tty)
{
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slots = BPF_CORE_READ(fdt, fd);
	struct file *file = NULL;
	struct tty_file_private *of;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]);
	of = (void *)BPF_CORE_READ(file, private_data);
	return of && BPF_CORE_READ(of, tty) == tty;
}

/* The number that a process has in its own pid namespace. */
static __always_inline __u32 er_nr_within(struct task_struct *task)
{
	struct pid *pid = ER_READ(true, task, group_leader, thread_pid);
	__u32 level = ER_READ(true, pid, level), nr = 0;

	if (!level) { /* an index that isn't a constant is nothing for a plain load */
		level = ER_READ(true, pid, numbers[0].nr);
		barrier_var(level); /* or both numbers are fetched by one instruction, which is refused */
		return level;
	}
	bpf_core_read(&nr, sizeof(nr), &pid->numbers[level & (ER_PID_LEVELS - 1)].nr);
	return nr;
}

static __always_inline void er_fill_image(struct er_exec *e, struct task_struct *task, struct file *file)
{
	struct inode *inode = ER_READ(true, file, f_inode);
	const struct cred *cred = ER_READ(true, task, real_cred);
	struct tty_struct *tty = ER_READ(true, task, signal, tty);

	ER_INODE_TIME(e->mtime_ns, inode, mtime);
	ER_INODE_TIME(e->ctime_ns, inode, ctime);
	ER_CAPS(e->cap_bounding, cred, cap_bset, true);
	e->ns_nr = er_nr_within(task);
	e->facts = 0;
	if (er_is_upper(inode))
		e->facts |= ER_FACT_UPPER;
	if (tty && er_is_terminal(task, 0, tty) && er_is_terminal(task, 2, tty))
		e->facts |= ER_FACT_INTERACTIVE;
}

#endif
