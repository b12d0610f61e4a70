/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls by (ABI, number). A number alone says nothing: 5 is fstat to a 64-bit caller and open to a 32-bit one,
 * and a 64-bit program may use both. The table of shapes has a part for each, and gives all the 64-bit number.
 */
#ifndef EXECRAY_SYSCALLS_H
#define EXECRAY_SYSCALLS_H

/* Those that handlers tell apart. */
enum er_nr {
	NR_OPEN = 2,
	NR_READV = 19,
	NR_WRITEV = 20,
	NR_SENDFILE = 40,
	NR_SENDTO = 44,
	NR_SENDMSG = 46,
	NR_RECVMSG = 47,
	NR_KILL = 62,
	NR_CREAT = 85,
	NR_PTRACE = 101,
	NR_GETUID = 102,
	NR_GETGID = 104,
	NR_SETUID = 105,
	NR_GETEUID = 107,
	NR_GETEGID = 108,
	NR_SETREUID = 113,
	NR_SETRESUID = 117,
	NR_GETRESUID = 118,
	NR_GETRESGID = 120,
	NR_SETFSUID = 122,
	NR_CAPGET = 125,
	NR_RT_SIGQUEUEINFO = 129,
	NR_TKILL = 200,
	NR_TGKILL = 234,
	NR_OPENAT = 257,
	NR_SPLICE = 275,
	NR_VMSPLICE = 278,
	NR_PREADV = 295,
	NR_PWRITEV = 296,
	NR_RT_TGSIGQUEUEINFO = 297,
	NR_RECVMMSG = 299,
	NR_OPEN_BY_HANDLE_AT = 304,
	NR_SENDMMSG = 307,
	NR_PROCESS_VM_READV = 310,
	NR_PROCESS_VM_WRITEV = 311,
	NR_EXECVEAT = 322,
	NR_COPY_FILE_RANGE = 326,
	NR_PREADV2 = 327,
	NR_PWRITEV2 = 328,
	NR_PIDFD_SEND_SIGNAL = 424,
	NR_OPENAT2 = 437,
};

#define ER_AT_RESULT	   7 /* er_shape: the result */
#define ER_X32_BIT	   0x40000000
#define ER_TS_COMPAT	   0x0002 /* thread_info::status: a 32-bit entry is under way */
#define NR_I386_SOCKETCALL 102
#define ER_SOCKETCALLS	   32
#define SOCKETCALL_SEND	   9

/* Calls that move bytes from one descriptor to another: the caller has no buffer that could be read. */
static __always_inline bool er_is_zero_copy(int nr)
{
	return nr == NR_SENDFILE || nr == NR_SPLICE || nr == NR_COPY_FILE_RANGE;
}

/* Whether a 32-bit entry of this thread is under way. */
static __always_inline bool er_is_compat(struct task_struct *task)
{
	return ER_READ(er_can_load(), task, thread_info.status) & ER_TS_COMPAT;
}

/* Whether there is a shape for a call's number. */
static __always_inline bool er_has_shape(__u32 orig_ax)
{
	return (orig_ax & ~ER_X32_BIT) < ER_SHAPES_COMPAT;
}

/* What it is for 64-bit callers. */
static __always_inline struct er_shape *er_native_shape(struct er_shapes *shapes, __u32 orig_ax)
{
	return &shapes->shape[orig_ax & (ER_SHAPES_COMPAT - 1)];
}

/*
 * The shape of the call that returns, or NULL for one that nobody wants: most calls, so this is kept short. native:
 * what er_native_shape() gave. current: the task that made it, for a call of a helper takes as long as the rest of
 * this.
 */
static __always_inline struct er_shape *er_shape_of(struct er_shapes *shapes, struct er_shape *native, __u32 orig_ax,
						    struct task_struct **current, bool *compat)
{
	struct er_shape *narrow = &shapes->shape[ER_SHAPES_COMPAT + (orig_ax & 511)], *found;

	/* the task is asked for its entry only where the number means something to somebody in one of the two */
	if (!native->event && !narrow->event)
		return NULL;
	*current = er_this_task();
	*compat = er_is_compat(*current);
	if (*compat && orig_ax >= 512)
		return NULL;
	found = *compat ? narrow : native;
	return found->event ? found : NULL;
}

/* Whether a call is the first of its events at all: some are by one of their arguments. */
static __always_inline bool er_meant(const struct er_call *call, const struct er_shape *shape)
{
	__u64 value = call->value[shape->need & 7];

	if (shape->need & ER_ONE_OF)
		return (__u32)value == (shape->bits & 0xffff) || (__u32)value == shape->bits >> 16;
	return !shape->bits || (value & shape->bits);
}

/* The registers still hold the arguments when the call returns; only rax is gone, kept in orig_ax. */
static __always_inline void er_fill_call(struct er_call *call, struct pt_regs *regs)
{
	if (call->compat) {
		call->arg[0] = (__u32)regs->bx;
		call->arg[1] = (__u32)regs->cx;
		call->arg[2] = (__u32)regs->dx;
		call->arg[3] = (__u32)regs->si;
		call->arg[4] = (__u32)regs->di;
		call->arg[5] = (__u32)regs->bp;
	} else {
		call->arg[0] = regs->di;
		call->arg[1] = regs->si;
		call->arg[2] = regs->dx;
		call->arg[3] = regs->r10;
		call->arg[4] = regs->r8;
		call->arg[5] = regs->r9;
	}
}

/* What socketcall was asked for: its arguments lie in the caller's memory. Returns its number, or 0 where there is no
 * such call. Not static: its caller has no stack to spare on Linux 5.10. */
__noinline int er_socketcall(void)
{
	struct er_scratch *scratch = er_get_scratch();
	__u32 which, narrow[6] = {};
	struct er_call *call;

	if (!scratch)
		return 0;
	call = &scratch->call;
	which = call->arg[0];
	if (which >= ER_SOCKETCALLS)
		return 0;
	/* no call has more arguments than six; the bytes behind a shorter one's are nobody's business */
	if (bpf_probe_read_user(narrow, sizeof(narrow), (void *)call->arg[1]))
		bpf_probe_read_user(narrow, 3 * sizeof(__u32), (void *)call->arg[1]);
	call->arg[0] = narrow[0];
	call->arg[1] = narrow[1];
	call->arg[2] = narrow[2];
	call->arg[3] = narrow[3];
	/* send is sendto without an address */
	call->arg[4] = which == SOCKETCALL_SEND ? 0 : narrow[4];
	call->arg[5] = which == SOCKETCALL_SEND ? 0 : narrow[5];
	return which;
}

#endif
