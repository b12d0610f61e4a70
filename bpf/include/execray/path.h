/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The path the kernel used: built from the dentry and mount of a struct file that is open, so symlinks, `..`, relative
 * names and a second thread that rewrites the argument can't fool it. It is the name in the mount namespace; a chroot
 * is ignored.
 */
#ifndef EXECRAY_PATH_H
#define EXECRAY_PATH_H

/* Deeper than this is cut in front, and flagged. Each level is one round of a loop that the verifier walks through. */
#define ER_PATH_DEPTH	 128
#define ER_WALK_NAMELESS (1 << 16) /* no place in any tree: pipe, socket, memfd; beside enum er_flag */

/* A walk and what it has come to, one per CPU. Apart from er_scratch: no per-CPU value may have more than 32 KiB. */
struct er_walk {
	char path[ER_PATH_MAX + ER_NAME_MAX + 1]; /* filled from its end; the rest is room that bounds checks need */
	/*
	 * Kept in memory and not in registers: what the verifier knows of it is then the same in each round of the
	 * loop, whatever the round before did, and it has one case to look at instead of thousands.
	 */
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct kernfs_node *kn;
	struct dentry *below; /* the root of the file's own mount, where that isn't its filesystem's; NULL: it is */
	__u32 pos;	      /* the path stands in path[pos .. ER_PATH_MAX - 1) */
	__u32 own;	      /* where in it the file's own mount begins; ER_PATH_MAX: not come to */
	__u32 flags;
	__u32 count;			       /* of those seen: */
	__u32 seq[ER_PATH_DEPTH];	       /* what said that nothing is being renamed there */
	struct dentry *seen[ER_PATH_DEPTH + 1]; /* whose names are in the path */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_walk);
} er_walks SEC(".maps");

static __always_inline struct er_walk *er_get_walk(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&er_walks, &zero);
}

/* Odd while the dentry is being renamed, and another number afterwards. */
static __always_inline __u32 er_rename_seq(struct dentry *dentry)
{
	__u32 seq = 0;

	if (er_can_cast())
		return dentry->d_seq.seqcount.sequence;
	bpf_core_read(&seq, sizeof(seq), &dentry->d_seq);
	return seq;
}

/*
 * Whether a mount is in nobody's tree: unmounted while files in it are open, or not yet attached (open_tree, fsmount).
 * A path that ends there looks like one from the root, and isn't.
 */
static __always_inline bool er_is_detached(struct mount *mount)
{
	struct mnt_namespace___seq {
		__u64 seq;
	} __attribute__((preserve_access_index)) * old;
	struct mnt_namespace *ns = ER_LOAD(mount, mnt_ns);

	if (!ns)
		return true;
	/* an anonymous namespace has no number: Linux 6.18 (1a7d8969a5a9) keeps that elsewhere */
	old = (void *)ns;
	if (bpf_core_field_exists(old->seq))
		return BPF_CORE_READ(old, seq) == 0;
	return bpf_core_field_exists(ns->ns.ns_id) && ER_LOAD(ns, ns.ns_id) == 0;
}

/* Over the edge of a mount. Returns true at the top of all. */
static __always_inline bool er_leave_mount(struct er_walk *walk, struct vfsmount *mnt, struct dentry *root, bool bound)
{
	struct mount *mount = ER_AS(struct mount, (void *)mnt - bpf_core_field_offset(struct mount, mnt));
	struct mount *above = ER_LOAD(mount, mnt_parent);

	if (walk->own == ER_PATH_MAX) {
		walk->own = walk->pos;
		walk->below = bound ? root : NULL;
	}
	if (mount == above) {
		if (er_is_detached(mount))
			walk->flags |= ER_F_PATH_DETACHED;
		return true;
	}
	walk->dentry = ER_LOAD(mount, mnt_mountpoint);
	walk->mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
	return false;
}

/* Puts a name in front of the path, behind a slash. Returns false where there is no room. */
static __always_inline bool er_put_name(struct er_walk *walk, struct dentry *dentry, __u32 slash)
{
	__u32 len = ER_LOAD(dentry, d_name.len), pos = walk->pos;
	const unsigned char *name = ER_LOAD(dentry, d_name.name);

	if (len > ER_NAME_MAX)
		len = ER_NAME_MAX;
	if (pos < len + 1)
		return false;
	pos = (pos - len - slash) & (ER_PATH_MAX - 1);
	if (slash)
		walk->path[pos] = '/';
	bpf_probe_read_kernel(&walk->path[pos + slash], len & ER_NAME_MAX, name);
	walk->pos = pos;
	return true;
}

/* One level up. Returns true at the end of the walk. */
static __always_inline bool er_walk_up(struct er_walk *walk)
{
	struct dentry *dentry = ER_AS(struct dentry, walk->dentry);
	struct vfsmount *mnt = ER_AS(struct vfsmount, walk->mnt);
	__u32 seq = er_rename_seq(dentry), count = walk->count;
	struct dentry *parent = ER_LOAD(dentry, d_parent);
	bool root = dentry == parent;

	if (dentry == ER_LOAD(mnt, mnt_root))
		return er_leave_mount(walk, mnt, dentry, !root);
	/* A root that isn't its mount's: a pipe, socket, memfd. Its name stands alone. */
	if (!er_put_name(walk, dentry, !root)) {
		walk->flags |= ER_F_PATH_TRUNCATED;
		return true;
	}
	if (root) {
		if (walk->path[walk->pos & (ER_PATH_MAX - 1)] == '/') /* namespaces, pidfds: the kernel's word for no name */
			walk->pos = ER_PATH_MAX - 1;
		walk->flags |= ER_WALK_NAMELESS;
		return true;
	}
	if (count < ER_PATH_DEPTH) {
		walk->seen[count] = dentry;
		walk->seq[count] = seq;
		walk->count = count + 1;
	}
	walk->dentry = parent;
	return false;
}

/* Whether something was renamed while its name was read or since: the path may be one that never was. */
static __always_inline bool er_is_torn(struct er_walk *walk)
{
	int i;

	for (i = 0; i < ER_PATH_DEPTH; i++) {
		__u32 seq = walk->seq[i];

		if (i >= (int)walk->count)
			return false;
		if ((seq & 1) || er_rename_seq(ER_AS(struct dentry, walk->seen[i])) != seq)
			return true;
	}
	return false;
}

/*
 * Builds the path of the walk's dentry and mount in walk->path, from walk->pos on. Not static, and without arguments:
 * such a function is verified once, and not for each place that calls it.
 */
__noinline int er_walk(void)
{
	struct er_walk *walk = er_get_walk();
	int i;

	if (!walk)
		return 0;
	walk->pos = ER_PATH_MAX - 1;
	walk->own = ER_PATH_MAX;
	walk->below = NULL;
	walk->flags = 0;
	walk->count = 0;
	for (i = 0; i < ER_PATH_DEPTH; i++) {
		if (er_walk_up(walk))
			goto done;
	}
	walk->flags |= ER_F_PATH_TRUNCATED;
done:
	if (er_is_torn(walk))
		walk->flags |= ER_F_PATH_TORN;
	if (walk->pos == ER_PATH_MAX - 1 && !(walk->flags & ER_WALK_NAMELESS)) {
		walk->path[ER_PATH_MAX - 2] = '/';
		walk->pos = ER_PATH_MAX - 2;
	}
	return 0;
}

/* Builds in walk->path the way from the filesystem's root to the root of the file's mount, which walk->below is. */
__noinline int er_walk_below(void)
{
	struct er_walk *walk = er_get_walk();
	int i;

	if (!walk)
		return 0;
	walk->pos = ER_PATH_MAX - 1;
	for (i = 0; i < ER_PATH_DEPTH; i++) {
		struct dentry *dentry = ER_AS(struct dentry, walk->below);
		struct dentry *parent = ER_LOAD(dentry, d_parent);

		if (dentry == parent)
			return 0;
		if (!er_put_name(walk, dentry, 1))
			break;
		walk->below = parent;
	}
	walk->flags |= ER_F_PATH_TRUNCATED;
	return 0;
}

/* Copies what a walk has built to the record's tail. Returns its length. */
static __always_inline __u32 er_copy_walked(struct er_walk *walk, char *tail)
{
	__u32 pos = walk->pos & (ER_PATH_MAX - 1), len = (ER_PATH_MAX - 1 - pos) & (ER_PATH_MAX - 1);

	bpf_probe_read_kernel(tail, len, &walk->path[pos]);
	return len;
}

/* Appends a path to the record's tail. Returns its length. */
static __always_inline __u32 er_append_path(struct er_scratch *scratch, char *tail, const struct path *path,
					    __u16 *flags)
{
	struct path *at = ER_AS(struct path, path);
	struct er_walk *walk = er_get_walk();
	struct dentry *dentry;

	if (!walk)
		return 0;
	walk->dentry = ER_LOAD(at, dentry);
	walk->mnt = ER_LOAD(at, mnt);
	dentry = ER_AS(struct dentry, walk->dentry);
	er_walk();
	if (!ER_LOAD(dentry, d_hash.pprev) && !(walk->flags & ER_WALK_NAMELESS) && walk->count)
		*flags |= ER_F_DELETED;
	*flags |= (__u16)walk->flags;
	return er_copy_walked(walk, tail);
}

/*
 * After er_append_path: the same file within its filesystem, whatever is mounted where. Returns how long the path's end
 * is that holds for both; appends what stands before that end, if the file's mount shows only a part of its filesystem.
 */
static __always_inline __u32 er_append_below(char *tail, __u32 path_len, __u16 *below_len, __u16 *flags)
{
	struct er_walk *walk = er_get_walk();
	__u32 own;

	*below_len = 0;
	if (!walk || walk->flags & ER_WALK_NAMELESS)
		return 0;
	if (walk->own == ER_PATH_MAX)
		return path_len;
	own = ER_PATH_MAX - 1 - walk->own;
	if (walk->below) {
		er_walk_below();
		*below_len = er_copy_walked(walk, tail);
		*flags |= (__u16)walk->flags;
	}
	return own;
}

/* The struct file behind a descriptor of the current process, or NULL. */
static __always_inline struct file *er_file_of(__s32 fd)
{
	struct task_struct *task = ER_AS(struct task_struct, (void *)bpf_get_current_task());
	struct fdtable *fdt = ER_LOAD(task, files, fdt);
	struct file *file = NULL;
	struct file **slots;

	if (fd < 0 || (__u32)fd >= ER_LOAD(fdt, max_fds))
		return NULL;
	slots = ER_LOAD(fdt, fd);
	bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]);
	return file;
}

#endif
