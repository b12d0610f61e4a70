/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What handlers of calls share. */
#ifndef EXECRAY_CALLS_RECORD_H
#define EXECRAY_CALLS_RECORD_H

#include "execray/gate_rest.h"
#include "execray/ring.h"
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

/* Appends text of the caller; returns its length without the NUL. */
static __always_inline __u32 er_append_user_str(char *tail, __u64 from, struct er_header *hdr)
{
	long len = bpf_probe_read_user_str(tail, ER_PATH_MAX, (void *)from);

	if (len < 0) {
		hdr->flags |= ER_F_UNREADABLE;
		return 0;
	}
	if (len == ER_PATH_MAX)
		hdr->flags |= ER_F_RAWPATH_TRUNCATED;
	return len > 0 ? (__u32)(len - 1) & (ER_PATH_MAX - 1) : 0;
}

/* Appends an argument that is a name: from the caller's memory, or from where an io_uring's were kept. */
static __always_inline __u32 er_append_given(const struct er_call *call, char *tail, __u64 from, __u32 place,
					     struct er_header *hdr)
{
	struct er_ring_name *name;
	__u32 len;

	if (!call->uring)
		return er_append_user_str(tail, from, hdr);
	name = er_ring_name(call, place);
	if (!name) {
		hdr->flags |= ER_F_UNREADABLE;
		return 0;
	}
	len = name->len;
	barrier_var(len); /* or its bound is on the stack, where Linux 6.1 forgets it */
	len &= ER_PATH_MAX - 1;
	bpf_probe_read_kernel(tail, len, name->text);
	return len;
}

#endif
