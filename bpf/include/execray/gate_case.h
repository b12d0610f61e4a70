/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One question to the gate's core, as its tests ask it: in the kernel and natively. */
#ifndef EXECRAY_GATE_CASE_H
#define EXECRAY_GATE_CASE_H

#include "execray/gate_core.h"

#define ER_GATE_PATH_AT 16

/* Fills in what a hook makes of the path while it walks. Returns false for a case that has no such path. */
static __always_inline bool er_gate_read_case(struct er_gate_case *asked)
{
	struct er_gate_work *work = &asked->work;
	__u32 i, size = work->size;

	ER_GATE_KEEP(size);
	if (size > ER_GATE_CASE_MAX - 48 || work->count > ER_GATE_DEPTH)
		return false;
	work->at = ER_GATE_PATH_AT + 1;
	for (i = 0; i < ER_GATE_DEPTH; i++) {
		__u32 at, len = asked->len[i];

		ER_GATE_BARRIER();
		at = work->at;
		if (i >= work->count)
			break;
		if (at > ER_GATE_CASE_MAX - 32)
			return false;
		work->component[i] = er_gate_name(&asked->path[at], len);
		work->at = at + len + 1;
	}
	work->tail[0] = ER_GATE_LOAD(&asked->path[size + ER_GATE_PATH_AT - 16]);
	work->tail[1] = ER_GATE_LOAD(&asked->path[size + ER_GATE_PATH_AT - 8]);
	return true;
}

#endif
