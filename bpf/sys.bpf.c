// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * System calls, as they return: one raw tracepoint for all of them. Tracepoints of single calls would miss 32-bit entry
 * points, and are skipped without a word while another tool's program runs.
 */
#define ER_HAS_TABLES
#include "execray/common.h"
#define ER_KILLS /* whoever makes a system call can be killed in its hook */
#include "execray/syscalls.h"
#include "execray/calls/dispatch.h"

/* The lower half of a pointer as a number: to take that is all that the verifier lets be done with one's value. */
static __always_inline __u32 er_lower_half(const void *pointer)
{
	__u32 half = (__u64)pointer;

	asm volatile("%0 = %1" : "=w"(half) : "w"(half));
	return half;
}

/* ctx: the registers, and what the call returns. Read where they are needed: the stack has no room for more. */
SEC("tp_btf/sys_exit")
int er_sys_exit(__u64 *ctx)
{
	struct er_shapes *shapes = er_get_shapes();
	struct task_struct *task = NULL;
	struct er_shape *shape, *native;
	struct er_scratch *scratch;
	struct er_call *call;
	struct pt_regs *regs;
	bool compat = false;
	__u8 skip;

	if (!shapes)
		return 0;
	regs = (void *)ctx[0];
	if (!er_has_shape(regs->orig_ax))
		return 0;
	native = er_native_shape(shapes, regs->orig_ax);
	if (native->rests & ER_RESTS_ALONE && er_gate_is_still(&shapes->config, native, er_lower_half(regs), ctx[1]))
		return 0;
	shape = er_shape_of(shapes, native, regs->orig_ax, &task, &compat);
	if (!shape)
		return 0;
	if (shape->rests && er_gate_sleeps(&shapes->config, shape, task))
		return 0;
	skip = er_skipped(shapes, shape, task);
	if (skip & ER_ARMED_WHOLE || (!compat && er_gate_fails(shape, ctx[1])))
		return 0;
	scratch = er_get_scratch();
	if (!scratch)
		return 0;
	regs = (void *)ctx[0];
	call = &scratch->call;
	call->compat = compat;
	call->skip = skip;
	call->awake = shape->rests;
	call->tgid = ER_READ(er_can_load(), task, tgid);
	call->own = shapes->self[call->tgid & (ER_PID_SLOTS - 1)];
	call->uring = false;
	call->none = -1;
	call->ret = ctx[1];
	call->task = (__u64)task;
	er_fill_call(call, regs);
	if (call->compat && regs->orig_ax == NR_I386_SOCKETCALL) {
		shapes = er_get_shapes();
		if (!shapes)
			return 0;
		shape = &shapes->shape[ER_SHAPES_SOCKETCALL + (er_socketcall() & (ER_SOCKETCALLS - 1))];
		if (!shape->event) /* nor has the first one of the table */
			return 0;
		call->skip = er_skipped(shapes, shape, task);
		if (call->skip & ER_ARMED_WHOLE)
			return 0;
	}
	/*
	 * The descriptor first: another thread can put something else in its place as soon as the call has returned in
	 * the kernel. That race is made short here, and not closed (docs/operations.md).
	 */
	call->file = er_file_of(task, call->value[shape->fd & 7]);
	er_send_call(call, shape);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
const volatile __u32 er_abi_version SEC(".rodata.abi") = ER_ABI_VERSION;
