/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which events leave the kernel. */
#ifndef EXECRAY_GATE_H
#define EXECRAY_GATE_H

/*
 * The one place that decides. At hand are: scratch->call with the event's code, the call's number, arguments and
 * result; the record's own integers and the identity of its file; its path (call.path_at, call.path_len) and the flags
 * that say how far that is whole. Not yet: who did it, and what has to be copied from the caller.
 */
static __always_inline bool er_gate_pass(const struct er_config *config, const struct er_scratch *scratch)
{
	/* what is followed for its own sake, and asked for by nobody, goes no further */
	return er_wanted(config, scratch->call.event);
}

#endif
