/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What handlers of calls share. */
#ifndef EXECRAY_CALLS_RECORD_H
#define EXECRAY_CALLS_RECORD_H

#include "execray/gate_rest.h"
#if defined(ER_KILLS)
#include "execray/inline.h"
#elif defined(ER_USES_UP)
#include "execray/inline_cells.h"
#endif

/* Says of an event that leaves the kernel who it was, and when. Not static, so that it is verified once. */
__noinline int er_sign_call(void)
{
	struct er_scratch *scratch = er_get_scratch();

	if (!scratch)
		return 0;
	er_sign(&scratch->record.exec.hdr, &scratch->record.exec.task);
	if (scratch->record.exec.hdr.flags & ER_F_GATE_DROP)
		scratch->record.exec.hdr.time_ns = er_gate_looked_ns();
	return 1;
}

/*
 * Asked by each handler when what can be tested is in the record, and before what takes time and can't be: who did it,
 * the caller's spelling, what was written. Returns false for an event that stays in the kernel; else the record has its
 * actor and time.
 */
static __always_inline bool er_admit(void)
{
	return er_gate_pass() && er_sign_call();
}

/* Sends a record that is whole, and which begins the scratch area's. */
static __always_inline void er_submit(void *record, __u32 total)
{
#if defined(ER_KILLS)
	er_inline_send(total);
#elif defined(ER_USES_UP)
	struct er_scratch *scratch = er_get_scratch();

	if (scratch && er_send_scratch(scratch, total))
		er_inline_doubt();
#else
	er_send(record, total);
#endif
}

#endif
