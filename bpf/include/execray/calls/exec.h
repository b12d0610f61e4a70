/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs: execve and execveat. */
#ifndef EXECRAY_CALLS_EXEC_H
#define EXECRAY_CALLS_EXEC_H

#include "execray/calls/record.h"

/* execve and execveat that failed; a successful one is sched_process_exec's. */
static __noinline int er_exec_failed(struct er_scratch *scratch, struct er_call *call)
{
	struct er_exec *e;
	__u32 total;

	if (!scratch || !call || call->ret >= 0)
		return 0;
	e = &scratch->record.exec;
	if (!er_admit())
		return 0;
	er_fill_parent(e, er_this_task(), er_can_load());
	e->ino = 0;
	e->dev = 0;
	e->i_uid = 0;
	e->i_mode = 0;
	e->generation = 0;
	e->argv_len = e->env_len = 0;
	e->interp_len = e->facts = 0;
	e->cap_bounding = e->mtime_ns = e->ctime_ns = 0;
	e->ns_nr = e->_pad = 0;
	e->own_len = e->below_len = 0;
	e->path_len = e->cwd_len = e->cgroup_len = e->v1_len = 0;
	e->ret = call->ret;
	e->filename_len = er_append_user_str(e->tail, call->arg[call->nr == NR_EXECVEAT ? 1 : 0], &e->hdr);
	total = sizeof(*e) + (e->filename_len & (ER_PATH_MAX - 1));
	e->hdr.len = total;
	er_send(e, total);
	return 0;
}

#endif
