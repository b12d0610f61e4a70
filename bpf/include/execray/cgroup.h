/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The names of a task's cgroup and of those above it, leaf first: what tells which container it is in. Read from the
 * kernel when a program starts, because a container's first process may be gone before anybody could ask /proc.
 */
#ifndef EXECRAY_CGROUP_H
#define EXECRAY_CGROUP_H

/* More levels, or longer names altogether, are left out: the leaf's end is what counts. */
#define ER_CGROUP_DEPTH 24

/* Linux 6.15 (633488947ef6) renamed it. */
struct kernfs_node___old {
	struct kernfs_node *parent;
} __attribute__((preserve_access_index));

static __always_inline struct kernfs_node *er_kernfs_parent(struct kernfs_node *kn)
{
	struct kernfs_node___old *old = (void *)kn;

	if (bpf_core_field_exists(kn->__parent))
		return BPF_CORE_READ(kn, __parent);
	return BPF_CORE_READ(old, parent);
}

static __always_inline struct cgroup *er_subsys_cgroup(struct css_set *set, int id)
{
	struct cgroup_subsys_state *css = NULL;

	bpf_core_read(&css, sizeof(css),
		      (void *)set + bpf_core_field_offset(struct css_set, subsys) + id * sizeof(css));
	return BPF_CORE_READ(css, cgroup);
}

/*
 * The cgroup in a v1 hierarchy, on a host that has one; NULL where all is v2. Runtimes put their processes into every
 * hierarchy there is.
 */
static __always_inline struct cgroup *er_v1_cgroup(struct css_set *set, struct cgroup *dfl)
{
	struct cgroup *found = dfl;

	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, pids_cgrp_id))
		found = er_subsys_cgroup(set, bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id));
	return found == dfl ? NULL : found;
}

/* Writes the names from the walk's node up into walk->names, up to walk->size. */
__noinline int er_walk_cgroup(void)
{
	struct er_walk *walk = er_get_walk();
	int i;

	if (!walk)
		return 0;
	walk->size = 0;
	for (i = 0; i < ER_CGROUP_DEPTH; i++) {
		struct kernfs_node *kn = walk->kn, *parent = er_kernfs_parent(kn);
		__u32 pos = walk->size;
		long len;

		if (!parent || pos >= ER_CGROUP_MAX - ER_NAME_MAX - 1)
			break;
		len = bpf_probe_read_kernel_str(&walk->names[pos], ER_NAME_MAX + 1, BPF_CORE_READ(kn, name));
		if (len <= 0)
			break;
		walk->size = pos + len;
		walk->kn = parent;
	}
	return 0;
}

/* Appends the names to the record's tail. Returns their length. */
static __always_inline __u32 er_append_cgroup(char *tail, struct cgroup *cgroup)
{
	struct er_walk *walk = er_get_walk();
	__u32 len;

	if (!walk)
		return 0;
	walk->kn = BPF_CORE_READ(cgroup, kn);
	er_walk_cgroup();
	len = walk->size & (ER_CGROUP_MAX - 1);
	bpf_probe_read_kernel(tail, len, walk->names);
	return len;
}

#endif
