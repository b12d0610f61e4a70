/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one way in which a time until when something counts is stored. Compiled as gate_core.h is. */
#ifndef EXECRAY_GATE_RAISE_H
#define EXECRAY_GATE_RAISE_H

#include "execray/gate_plan.h"

static __always_inline void er_gate_raise(volatile __u64 *until, __u64 end)
{
	if (*until < end)
		*until = end;
}

#endif
