/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the walk along a path and the gate's decision have in memory: together, for each look-up has its price. */
#ifndef EXECRAY_NEAR_H
#define EXECRAY_NEAR_H

#include "execray/gate_plan.h"

#define ER_PATH_DEPTH \
	128 /* deeper is cut in front, and flagged; a round of a loop for each, which the verifier walks */

/* The verifier allows loads that aren't aligned wherever the processor does. Volatile, or they become eight of a byte.
 */
#define ER_GATE_LOAD(from) (*(const volatile __u64 *)(from))
#define ER_GATE_BARRIER()  barrier()
#define ER_GATE_KEEP(var)  barrier_var(var) /* checked as it is used, and not read again */
#define ER_GATE_CLOCK()	   bpf_ktime_get_boot_ns()

/* A dentry whose name is in the path. */
struct er_level {
	struct dentry *dentry;
	const unsigned char *name;
	__u32 seq; /* its rename counter when the name was looked at */
	__u32 len;
};

/*
 * A walk and what it has come to, one per CPU. Apart from er_scratch: no per-CPU value may have more than 32 KiB. In
 * memory and not in registers: what the verifier knows of it is then the same in each round of the loop, whatever the
 * round before did, and it has one case to look at instead of thousands.
 */
struct er_walk {
	struct dentry *dentry;
	struct vfsmount *mnt; /* NULL: to the filesystem's root, whatever is mounted where */
	struct dentry *first; /* where it began */
	struct mount *top;    /* where it ended, if at the top of mounts */
	struct kernfs_node *kn;
	struct dentry *below; /* the root of the file's own mount, where that isn't its filesystem's; NULL: it is */
	__u32 at;	      /* where in the record the path begins */
	__u32 end;	      /* of what is written of it */
	__u32 size;	      /* of the path, so far */
	__u32 own; /* how much of its end lies in the file's own mount; ER_PATH_MAX: not come to the others */
	__u32 flags;
	__u32 count;   /* of levels */
	__u32 lengths; /* of all names, or-ed */
	struct er_level level[ER_PATH_DEPTH];
	char names[ER_CGROUP_MAX + ER_NAME_MAX + 1]; /* cgroup.h */
};

/* The decision's memory first: tracerd reads the counts of each processor's. */
struct er_near {
	struct er_gate_work work;
	struct er_walk walk;
};

/* One per CPU, as the scratch area. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct er_near);
} er_gate_works SEC(".maps");

static __always_inline struct er_near *er_get_near(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&er_gate_works, &zero);
}

static __always_inline struct er_walk *er_get_walk(void)
{
	struct er_near *near = er_get_near();

	return near ? &near->walk : NULL;
}

static __always_inline struct er_gate_work *er_gate_work(void)
{
	struct er_near *near = er_get_near();

	return near ? &near->work : NULL;
}

#endif
