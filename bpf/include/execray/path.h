/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The path the kernel used: built from the dentry and mount of a struct file that is open, so symlinks, `..`, relative
 * names and a second thread that rewrites the argument can't fool it. It is the name in the mount namespace; a chroot
 * is ignored.
 */
#ifndef EXECRAY_PATH_H
#define EXECRAY_PATH_H

#include "execray/near.h"
#include "execray/gate_hash.h"

#define ER_SHORT_NAME	 32
#define ER_ANON_INUM	 0xEFFFFFF7U /* MNT_NS_ANON_INO */
#define ER_WALK_NAMELESS (1 << 16)   /* no place in any tree: pipe, socket, memfd; beside enum er_flag */

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
	/* an anonymous namespace has no number; since Linux 6.18 (1a7d8969a5a9) its inode's is one that all of them
	 * have */
	old = (void *)ns;
	if (bpf_core_field_exists(old->seq))
		return BPF_CORE_READ(old, seq) == 0;
	return ER_LOAD(ns, ns.inum) == ER_ANON_INUM;
}

/* Over the edge of a mount. Returns true at the top of all. */
static __always_inline bool er_leave_mount(struct er_walk *walk, struct vfsmount *mnt, struct dentry *root, bool bound)
{
	struct mount *mount = ER_AS(struct mount, (void *)mnt - bpf_core_field_offset(struct mount, mnt));
	struct mount *above = ER_LOAD(mount, mnt_parent);

	if (walk->own == ER_PATH_MAX) {
		walk->own = walk->size;
		walk->below = bound ? root : NULL;
	}
	if (mount == above) {
		walk->top = mount;
		return true;
	}
	walk->dentry = ER_LOAD(mount, mnt_mountpoint);
	walk->mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
	return false;
}

/* One level up. Returns true at the end of the walk. */
static __always_inline bool er_walk_up(struct er_walk *walk)
{
	struct dentry *dentry = ER_AS(struct dentry, walk->dentry);
	struct vfsmount *mnt = walk->mnt;
	__u32 seq = er_rename_seq(dentry), count = walk->count, len;
	struct dentry *parent = ER_LOAD(dentry, d_parent);
	bool root = dentry == parent;
	struct er_level *level;

	if (mnt) {
		mnt = ER_AS(struct vfsmount, mnt);
		if (dentry == ER_LOAD(mnt, mnt_root))
			return er_leave_mount(walk, mnt, dentry, !root);
		/* A root that isn't its mount's: a pipe, socket, memfd. Its name stands alone. */
		if (root)
			walk->flags |= ER_WALK_NAMELESS;
	} else if (root) {
		return true;
	}
	len = ER_LOAD(dentry, d_name.len) & ER_NAME_MAX;
	if (walk->size + len + 1 >= ER_PATH_MAX || count >= ER_PATH_DEPTH) {
		walk->flags |= ER_F_PATH_TRUNCATED;
		return true;
	}
	level = &walk->level[count];
	level->dentry = dentry;
	level->name = ER_LOAD(dentry, d_name.name);
	level->seq = seq;
	level->len = len;
	walk->lengths |= len;
	walk->count = count + 1;
	walk->size += len + 1;
	walk->dentry = parent;
	return root;
}

/*
 * What there is to be known of a level whose name has just been written: its hash, as the gate asks for it, and whether
 * it was renamed since it was come to: the path may be one that never was. All levels had been come to before the first
 * of them is asked here, so there was a moment at which the whole path was as it is written.
 */
static __always_inline void er_settle_name(struct er_near *near, struct er_level *level, const char *name, __u32 len,
					   __u32 place)
{
	/* first: Linux 6.1 takes no loop that would end with the call of a helper */
	if ((level->seq & 1) || er_rename_seq(ER_AS(struct dentry, level->dentry)) != level->seq)
		near->walk.flags |= ER_F_PATH_TORN;
	if (place < ER_GATE_DEPTH)
		near->work.component[place] = er_gate_name(name, len);
}

/* Where the next name goes: behind its slash. Negative where there is no more. */
static __always_inline __s32 er_next_name(struct er_walk *walk, struct er_scratch *scratch, __u32 from, __u32 slash)
{
	__u32 at;

	barrier(); /* or the compiler keeps the end in a register, where the verifier follows each of its values */
	at = walk->end;
	if (from >= ER_PATH_DEPTH || at > ER_RECORD_MAX - 2 * ER_NAME_MAX)
		return -1;
	scratch->record.bytes[at] = '/';
	walk->end = at + (walk->level[from].len & ER_NAME_MAX) + 1;
	return at + slash;
}

/*
 * Writes the walk's names into the record, the last one first. Each with some bytes behind it, which what follows
 * covers: in words that a plain load reads, since a helper takes as long as the rest of the level, and no more of them
 * than the name has. timespec64 is two words in every kernel.
 */
static __always_inline void er_write_short_names(struct er_near *near, struct er_scratch *scratch, __u32 slash)
{
	struct er_walk *walk = &near->walk;
	__u32 i;

	for (i = 0; i < ER_PATH_DEPTH; i++) {
		__u32 from = walk->count - 1 - i;
		__s32 at = er_next_name(walk, scratch, from, slash);
		struct timespec64 *words;
		struct er_level *level;
		__u64 *to;

		if (at < 0)
			return;
		to = (__u64 *)&scratch->record.bytes[at];
		level = &walk->level[from & (ER_PATH_DEPTH - 1)];
		words = ER_AS(struct timespec64, level->name);
		to[0] = words->tv_sec;
		to[1] = words->tv_nsec;
		if (level->len > 16) {
			words = ER_AS(struct timespec64, level->name + 16);
			to[2] = words->tv_sec;
			to[3] = words->tv_nsec;
		}
		er_settle_name(near, level, (char *)to, level->len, i);
	}
}

/* The same for names of any length, and for kernels without bpf_rdonly_cast. */
static __always_inline void er_write_names(struct er_near *near, struct er_scratch *scratch, __u32 slash)
{
	struct er_walk *walk = &near->walk;
	__u32 i;

	for (i = 0; i < ER_PATH_DEPTH; i++) {
		__u32 from = walk->count - 1 - i;
		__s32 at = er_next_name(walk, scratch, from, slash);
		struct er_level *level = &walk->level[from & (ER_PATH_DEPTH - 1)];
		__u32 len;

		if (at < 0)
			return;
		len = level->len;
		barrier_var(len); /* or it is kept on the stack, where Linux 6.1 forgets its bound */
		bpf_probe_read_kernel(&scratch->record.bytes[at], len & ER_NAME_MAX, level->name);
		er_settle_name(near, level, &scratch->record.bytes[at], len, i);
	}
}

/* Builds the path of the walk's dentry and mount in the record. */
static __always_inline void er_climb(struct er_near *near, struct er_scratch *scratch)
{
	struct er_walk *walk = &near->walk;
	__u32 at = walk->at, i;
	bool mounts;

	if (at > ER_RECORD_MAX - 2 * ER_PATH_MAX)
		return;
	mounts = walk->mnt;
	walk->top = NULL;
	walk->size = 0;
	walk->own = ER_PATH_MAX;
	walk->flags = 0;
	walk->count = 0;
	walk->lengths = 0;
	for (i = 0; i < ER_PATH_DEPTH; i++) {
		if (er_walk_up(walk))
			goto done;
	}
	walk->flags |= ER_F_PATH_TRUNCATED;
done:
	walk->end = at;
	if (er_can_cast() && walk->lengths < ER_SHORT_NAME)
		er_write_short_names(near, scratch, walk->flags & ER_WALK_NAMELESS ? 0 : 1);
	else
		er_write_names(near, scratch, walk->flags & ER_WALK_NAMELESS ? 0 : 1);
	at = walk->at;
	barrier_var(at); /* its bound, too, was on the stack */
	if (at > ER_RECORD_MAX - 2 * ER_PATH_MAX)
		return;
	if (walk->flags & ER_WALK_NAMELESS) {
		/* namespaces and pidfds have a slash for a name: the kernel's word for none */
		if (scratch->record.bytes[at] == '/')
			walk->size = 1;
		walk->size -= 1;
	} else if (!walk->size && mounts) {
		scratch->record.bytes[at] = '/';
		walk->size = 1;
	}
}

/* The same, not static and without arguments: such a function is verified once, and not for each place that calls it.
 */
__noinline int er_walk(void)
{
	struct er_scratch *scratch = er_get_scratch();
	struct er_near *near = er_get_near();

	if (near && scratch)
		er_climb(near, scratch);
	return 0;
}

/* Where a walk is to begin, and where in the record its path. */
static __always_inline void er_aim(struct er_walk *walk, const struct path *path, __u32 at)
{
	struct path *place = ER_AS(struct path, path);

	walk->first = walk->dentry = ER_LOAD(place, dentry);
	walk->mnt = ER_LOAD(place, mnt);
	walk->at = at;
	walk->below = NULL;
}

/* Appends a path to the record's tail, and of what is told of it only what bears on the names. Returns its length. */
static __always_inline __u32 er_append_names(struct er_scratch *scratch, char *tail, const struct path *path,
					     __u16 *flags)
{
	struct er_walk *walk = er_get_walk();

	if (!walk)
		return 0;
	er_aim(walk, path, tail - scratch->record.bytes);
	er_walk();
	*flags |= (__u16)walk->flags;
	return walk->size & (ER_PATH_MAX - 1);
}

/* The rest of what is told of it: whether there is such a file any more, and whether anybody can come to it so. */
static __always_inline void er_tell_place(const struct er_walk *walk, __u16 *flags)
{
	struct dentry *first = ER_AS(struct dentry, walk->first);

	if (walk->count && !(walk->flags & ER_WALK_NAMELESS) && !ER_LOAD(first, d_hash.pprev))
		*flags |= ER_F_DELETED;
	if (walk->top && er_is_detached(ER_AS(struct mount, walk->top)))
		*flags |= ER_F_PATH_DETACHED;
}

/* Appends a path to the record's tail. Returns its length. */
static __always_inline __u32 er_append_path(struct er_scratch *scratch, char *tail, const struct path *path,
					    __u16 *flags)
{
	__u32 len = er_append_names(scratch, tail, path, flags);
	struct er_walk *walk = er_get_walk();

	if (walk)
		er_tell_place(walk, flags);
	return len;
}

/*
 * After er_append_path: the same file within its filesystem, whatever is mounted where. Returns how long the path's end
 * is that holds for both; appends what stands before that end, if the file's mount shows only a part of its filesystem.
 */
static __always_inline __u32 er_append_below(struct er_scratch *scratch, char *tail, __u32 path_len, __u16 *below_len,
					     __u16 *flags)
{
	struct er_walk *walk = er_get_walk();
	__u32 own;

	*below_len = 0;
	if (!walk || walk->flags & ER_WALK_NAMELESS)
		return 0;
	own = walk->own == ER_PATH_MAX ? path_len : walk->own;
	if (walk->below) {
		walk->dentry = walk->below;
		walk->mnt = NULL;
		walk->at = tail - scratch->record.bytes;
		er_walk();
		*below_len = walk->size & (ER_PATH_MAX - 1);
		*flags |= (__u16)walk->flags;
	}
	return own;
}

/*
 * Appends the path of a call's file, which the gate looks at before another is walked; what an event that passes says
 * of it besides is for er_tell_path_of(). Returns its length.
 */
static __always_inline __u32 er_append_path_of(struct er_scratch *scratch, char *tail, struct file *file, __u16 *flags)
{
	__u32 len = er_append_names(scratch, tail, &file->f_path, flags);

	scratch->call.path_at = tail - scratch->record.bytes;
	scratch->call.path_len = len;
	scratch->call.walked = true;
	return len;
}

static __always_inline void er_tell_path_of(const struct er_scratch *scratch, __u16 *flags)
{
	struct er_walk *walk = er_get_walk();

	if (scratch->call.walked && walk)
		er_tell_place(walk, flags);
}

/* The struct file behind a descriptor of the current task, or NULL. */
static __always_inline struct file *er_file_of(struct task_struct *task, __s32 fd)
{
	struct files_struct *files = ER_AS(struct files_struct, ER_READ(er_can_load(), task, files));
	struct fdtable *fdt = ER_LOAD(files, fdt);
	struct file *file = NULL;
	struct file **slots;

	if (fd < 0 || (__u32)fd >= ER_LOAD(fdt, max_fds))
		return NULL;
	slots = ER_LOAD(fdt, fd);
	if (er_can_cast())
		return (struct file *)ER_AS(struct timespec64, &slots[fd])->tv_sec;
	bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]);
	return file;
}

#endif
