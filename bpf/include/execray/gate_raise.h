/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A time until when something counts, and the one way in which it is stored. Compiled as gate_core.h is. */
#ifndef EXECRAY_GATE_RAISE_H
#define EXECRAY_GATE_RAISE_H

#include "execray/gate_plan.h"

static __always_inline __u64 er_gate_end(__u64 now_ns, __u64 window_ns)
{
	__u64 end = now_ns + window_ns;

	return end < window_ns ? ER_GATE_FOR_EVER : end;
}

static __always_inline void er_gate_raise(volatile __u64 *until, __u64 end)
{
	if (*until < end)
		*until = end;
}

#endif
