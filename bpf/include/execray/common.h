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
#include "execray/event.h"
#include "execray/maps.h"
#include "execray/task.h"
#include "execray/path.h"

static __always_inline void er_fill_inode(struct file *file, __u64 *ino, __u32 *dev, __u32 *i_mode)
{
	struct inode *inode = BPF_CORE_READ(file, f_inode);

	*ino = BPF_CORE_READ(inode, i_ino);
	*dev = BPF_CORE_READ(inode, i_sb, s_dev);
	*i_mode = BPF_CORE_READ(inode, i_mode);
}

static __always_inline void er_fill_parent(struct er_exec *e, struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent);

	e->ppid = BPF_CORE_READ(parent, tgid);
	e->parent_start_ns = er_start_ns(parent);
}

#endif
