/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The path the kernel used: built from the dentry and mount of a struct file that is open, so symlinks, `..`, relative
 * names and a second thread that rewrites the argument can't fool it. It is the name in the mount namespace; a chroot
 * is ignored. Read with bpf_probe_read_kernel only, which every kernel with a ring buffer has.
 */
#ifndef EXECRAY_PATH_H
#define EXECRAY_PATH_H

/* Deeper than this is cut in front, and flagged. Each level is one round of a loop that the verifier walks through. */
#define ER_PATH_DEPTH	 128
#define ER_WALK_NAMELESS (1 << 16) /* no place in any tree: pipe, socket, memfd; beside enum er_flag */

/* One level up. Returns true at the end of the walk. */
static __always_inline bool er_walk_up(struct er_scratch *scratch)
{
	struct dentry *dentry = scratch->dentry, *parent = BPF_CORE_READ(dentry, d_parent);
	struct vfsmount *mnt = scratch->mnt;
	const unsigned char *name;
	__u32 len, pos = scratch->pos;

	if (dentry == BPF_CORE_READ(mnt, mnt_root)) {
		struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		struct mount *above = BPF_CORE_READ(mount, mnt_parent);

		if (mount == above)
			return true;
		scratch->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		scratch->mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
		return false;
	}
	len = BPF_CORE_READ(dentry, d_name.len);
	name = BPF_CORE_READ(dentry, d_name.name);
	if (len > ER_NAME_MAX)
		len = ER_NAME_MAX;
	if (pos < len + 1) {
		scratch->walk_flags |= ER_F_PATH_TRUNCATED;
		return true;
	}
	/* A root that isn't its mount's: a pipe, socket, memfd, or something unmounted. Its name stands alone. */
	if (dentry == parent) {
		pos = (pos - len) & (ER_PATH_MAX - 1);
		bpf_probe_read_kernel(&scratch->path[pos], len & ER_NAME_MAX, name);
		if (scratch->path[pos] != '/') /* namespaces, pidfds: the kernel's word for no name */
			scratch->pos = pos;
		scratch->walk_flags |= ER_WALK_NAMELESS;
		return true;
	}
	pos = (pos - len - 1) & (ER_PATH_MAX - 1);
	scratch->path[pos] = '/';
	bpf_probe_read_kernel(&scratch->path[pos + 1], len & ER_NAME_MAX, name);
	scratch->pos = pos;
	scratch->dentry = parent;
	return false;
}

/*
 * Builds the path of the walk's dentry and mount in scratch->path, from scratch->pos on. Not static, and without
 * arguments: such a function is verified once, and not for each place that calls it.
 */
__noinline int er_walk(void)
{
	struct er_scratch *scratch = er_get_scratch();
	int i;

	if (!scratch)
		return 0;
	scratch->pos = ER_PATH_MAX - 1;
	scratch->walk_flags = 0;
	for (i = 0; i < ER_PATH_DEPTH; i++) {
		if (er_walk_up(scratch))
			goto done;
	}
	scratch->walk_flags |= ER_F_PATH_TRUNCATED;
done:
	if (scratch->pos == ER_PATH_MAX - 1 && !(scratch->walk_flags & ER_WALK_NAMELESS)) {
		scratch->path[ER_PATH_MAX - 2] = '/';
		scratch->pos = ER_PATH_MAX - 2;
	}
	return 0;
}

/* Appends a path to the record's tail. Returns its length. */
static __always_inline __u32 er_append_path(struct er_scratch *scratch, char *tail, const struct path *path,
					    __u16 *flags)
{
	__u32 pos, len;

	scratch->dentry = BPF_CORE_READ(path, dentry);
	scratch->mnt = BPF_CORE_READ(path, mnt);
	er_walk();
	pos = scratch->pos & (ER_PATH_MAX - 1);
	len = (ER_PATH_MAX - 1 - pos) & (ER_PATH_MAX - 1);
	*flags |= (__u16)scratch->walk_flags;
	bpf_probe_read_kernel(tail, len, &scratch->path[pos]);
	return len;
}

/* The struct file behind a descriptor of the current process, or NULL. */
static __always_inline struct file *er_file_of(__s32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file *file = NULL;
	struct file **slots;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	slots = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]);
	return file;
}

#endif
