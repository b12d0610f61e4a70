/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every program includes. */
#ifndef EXECRAY_COMMON_H
#define EXECRAY_COMMON_H

/* clang-format off: vmlinux.h must come first */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
/* clang-format on */
#include "execray/compat.h"
#include "execray/event.h"
#include "execray/maps.h"
#include "execray/task.h"
#include "execray/scratch.h"
#include "execray/path.h"
#include "execray/cgroup.h"

/* What a file is, by whatever name. Into the fields of a record that has all of them. */
#define ER_FILL_INODE(e, file)                                                           \
	do {                                                                             \
		struct file *er_file = ER_AS(struct file, file);                         \
		struct inode *er_inode = ER_AS(struct inode, ER_LOAD(er_file, f_inode)); \
                                                                                         \
		(e)->ino = ER_LOAD(er_inode, i_ino);                                     \
		(e)->dev = ER_LOAD(er_inode, i_sb, s_dev);                               \
		(e)->generation = ER_LOAD(er_inode, i_generation);                       \
		(e)->i_mode = ER_LOAD(er_inode, i_mode);                                 \
		(e)->i_uid = ER_LOAD(er_inode, i_uid.val);                               \
	} while (0)

/* What a task brings along: its working directory and cgroups, behind what is in the tail already. Returns the new end.
 */
static __always_inline __u32 er_append_place(struct er_scratch *scratch, struct er_exec *e, __u32 at,
					     struct task_struct *task)
{
	struct fs_struct *fs = ER_READ(true, task, fs);
	struct css_set *set = ER_READ(true, task, cgroups);
	struct cgroup *dfl = ER_READ(true, set, dfl_cgrp), *v1 = er_v1_cgroup(set, dfl);
	__u16 flags = 0;

	e->cwd_len = e->cgroup_len = e->v1_len = 0;
	if (fs) {
		e->cwd_len = er_append_path(scratch, &e->tail[at], &fs->pwd, &flags);
		at += e->cwd_len & (ER_PATH_MAX - 1);
	}
	if (flags & ER_F_PATH_UNSURE)
		e->hdr.flags |= ER_F_CWD_TRUNCATED;
	e->cgroup_len = er_append_cgroup(&e->tail[at], dfl);
	at += e->cgroup_len & (ER_CGROUP_MAX - 1);
	if (v1) {
		e->v1_len = er_append_cgroup(&e->tail[at], v1);
		at += e->v1_len & (ER_CGROUP_MAX - 1);
	}
	return at;
}

/* direct: as for ER_READ. */
static __always_inline void er_fill_parent(struct er_exec *e, struct task_struct *task, const bool direct)
{
	struct task_struct *parent = ER_READ(direct, task, real_parent);

	e->ppid = ER_READ(direct, parent, tgid);
	e->parent_start_ns = er_start_of(parent, direct);
}

#endif
